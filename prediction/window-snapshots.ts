/**
 * Keeps the windows of a worker's cells where any worker can take them up: all of them as they stand after one tick, at a
 * bounded rate, with the offsets from which the telemetry has to be read again. A snapshot counts from the commit on that
 * names it.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { CellScoring } from './cell-scoring';
import type { Counters } from './counters';
import { messageOf } from './insist';
import type { PartitionCut, Partitions } from './partitions';
import { partitionKey, type PartitionStart } from './telemetry-source';
import { decodeRecord, encodeRecord, headOf, SnapshotRefusedError, type SnapshotHead } from './window-records';
import type { WantedSnapshot, WindowStore } from './window-store';
import { WordWriter } from './words';

export interface WindowSnapshotsOptions {
  store: WindowStore;
  stepMs: number;
  /** Steps between two snapshots. */
  everySteps: number;
  /** Windows reach back so far: an older snapshot is worth no more than the telemetry itself. */
  historyMs: number;
  counters: Counters;
  log: Logger;
  now: () => number;
  /** Most that is written, of compressed windows. @default 4 MB */
  bytesPerSecond?: number;
  /** Least time between two snapshots while a backlog is worked off and steps fly by. @default 5,000 ms */
  atMostEveryMs?: number;
}

/** A partition whose windows are to be had. */
export interface RestoredPartition {
  head: SnapshotHead;
  /** Whole cells. */
  words: readonly Buffer[];
}

/** A record is closed once it holds so much: far below what a broker takes, whatever the cells are like. */
const recordBytes = 256 * 1024;
/** Enough for cumulative series that are exported every minute to be known again. */
const warmUpMs = 120_000;
const warmUpSteps = 30;

interface TakenPartition extends PartitionCut {
  records: Buffer[];
  cells: number;
  with: Set<string>;
}

export class WindowSnapshots {
  private writing = false;
  private stopping = false;
  private lastMs = -Infinity;
  private lastTickMs = -Infinity;

  constructor(private readonly options: WindowSnapshotsOptions) {}

  stop(): void {
    this.stopping = true;
  }

  /** What can be restored of these partitions, by `topic/partition`. Never throws: the telemetry can always be read again. */
  async restore(starts: readonly PartitionStart[]): Promise<Map<string, RestoredPartition>> {
    const { store, stepMs, counters, log } = this.options;
    const found = new Map<string, RestoredPartition>();
    const wanted = starts.flatMap((start): WantedSnapshot[] =>
      start.windows ? [{ ...start.windows, of: partitionKey(start) }] : [],
    );
    if (wanted.length === 0) return found;
    try {
      const countOf = (record: Buffer) => {
        try {
          return headOf(record, stepMs).records;
        } catch {
          // Whoever decodes it says why it is refused.
          return 1;
        }
      };
      const stored = await store.read(wanted, countOf);
      for (const start of starts) {
        const of = partitionKey(start);
        if (!start.windows) continue;
        try {
          found.set(of, await this.unpack(start, of, stored.get(of) ?? []));
        } catch (error) {
          this.refuse(of, messageOf(error));
        }
      }
    } catch (error) {
      counters.add('windows.refused', wanted.length);
      const reason = messageOf(error);
      log.warn({ reason }, `window snapshots cannot be read (${reason}); the telemetry is read again instead`);
      return new Map();
    }
    this.leaveOutTorn(found);
    return found;
  }

  /** Throws SnapshotRefusedError for what cannot be taken up. */
  private async unpack(start: PartitionStart, of: string, records: readonly Buffer[]): Promise<RestoredPartition> {
    const { stepMs, historyMs, now } = this.options;
    const words: Buffer[] = [];
    let first: SnapshotHead | undefined;
    for (const record of records) {
      const { head, words: some } = await decodeRecord(record, stepMs);
      first ??= head;
      if (head.of !== of || head.cut !== first.cut || head.index !== words.length || head.records !== first.records) {
        throw new SnapshotRefusedError(`record ${words.length} is of another snapshot`);
      }
      words.push(some);
    }
    if (!first || words.length < first.records) {
      throw new SnapshotRefusedError(`${words.length} of ${first?.records ?? 'its'} records are there`);
    }
    const { tickMs, dealtWith, read } = first;
    if (start.committed === null || start.committedTickMs === null)
      throw new SnapshotRefusedError('nothing is committed');
    if (tickMs > start.committedTickMs || dealtWith > start.committed || read > start.end) {
      throw new SnapshotRefusedError('it is ahead of what is committed');
    }
    if (now() - tickMs > historyMs) throw new SnapshotRefusedError('it is older than the windows reach back');
    if (dealtWith < start.low) throw new SnapshotRefusedError('telemetry after it has been deleted');
    return { head: { ...first, from: Math.max(first.from, start.low) }, words };
  }

  /** A cell that came by several partitions is whole only if all of them stand at the same tick. */
  private leaveOutTorn(found: Map<string, RestoredPartition>): void {
    for (let before = -1; before !== found.size;) {
      before = found.size;
      for (const [of, { head }] of found) {
        const torn = head.with.find((other) => found.get(other)?.head.cut !== head.cut);
        if (torn === undefined) continue;
        found.delete(of);
        this.refuse(of, `it shares cells with ${torn}, of which there is none that was taken with it`);
      }
    }
  }

  private refuse(of: string, reason: string): void {
    this.options.counters.add('windows.refused');
    this.options.log.warn(
      { of, reason },
      `the window snapshot of ${of} is not used (${reason}); its telemetry is read again instead`,
    );
  }

  /**
   * Takes a snapshot if it is time: copies at once, packs and writes in the background. `rememberPast`: the decoders hold
   * something of the records before. `isCurrent`: false once another assignment has come.
   */
  take(
    scoring: CellScoring,
    partitions: Partitions,
    tickMs: number,
    rememberPast: boolean,
    isCurrent: () => boolean,
  ): void {
    const { everySteps, stepMs, now, atMostEveryMs = 5_000 } = this.options;
    if (this.writing || this.stopping || everySteps === 0) return;
    const isDue = tickMs - this.lastTickMs >= everySteps * stepMs && now() - this.lastMs >= atMostEveryMs;
    if (!isDue) return;
    const warmUp = rememberPast ? Math.max(warmUpMs, warmUpSteps * stepMs) : 0;
    const cuts = partitions.cut(tickMs, warmUp);
    if (!cuts) return;
    this.lastTickMs = tickMs;
    this.lastMs = now();
    this.writing = true;
    const taken = copyCells(scoring, cuts);
    this.write(taken, partitions, tickMs, isCurrent)
      .catch((error: unknown) => {
        this.options.counters.add('windows.failed');
        const reason = messageOf(error);
        this.options.log.warn(
          { reason },
          `windows could not be kept (${reason}); a restart reads more telemetry again`,
        );
      })
      .finally(() => (this.writing = false));
  }

  private async write(
    taken: readonly TakenPartition[],
    partitions: Partitions,
    tickMs: number,
    isCurrent: () => boolean,
  ): Promise<void> {
    const { store, stepMs, counters, bytesPerSecond = 4_000_000 } = this.options;
    const cut = `${tickMs}-${randomUUID()}`;
    const places = new Map<string, { partition: number; offset: number; slot: 0 | 1 }>();
    for (const { key: of, slot, records, cells, with: others, dealtWith, read, from } of taken) {
      const head = { of, cut, tickMs, dealtWith, read, from, with: [...others], cells, records: records.length };
      for (const [index, words] of records.entries()) {
        // Somebody else may hold some of the partitions by now, and write to the same place.
        if (this.stopping || !isCurrent()) return;
        const startedMs = performance.now();
        const record = await encodeRecord({ ...head, index }, stepMs, words);
        const place = await store.write(of, slot, index, record);
        if (index === 0) places.set(of, { ...place, slot });
        records[index] = Buffer.alloc(0);
        counters.add('windows.bytes', record.length);
        const spentMs = performance.now() - startedMs;
        await sleep(Math.max(0, (record.length * 1000) / bytesPerSecond - spentMs), undefined, { ref: false });
      }
      counters.add('windows.cells', cells);
    }
    if (!isCurrent()) return;
    // Together, so that one commit names them all.
    partitions.keep(places, tickMs);
    counters.add('windows.snapshots');
  }
}

/** The cells as they are now, by partition; one that came by several goes with the first by name. */
function copyCells(scoring: CellScoring, cuts: readonly PartitionCut[]): TakenPartition[] {
  const taken = new Map(
    cuts.map((cut): [string, TakenPartition] => [cut.key, { ...cut, records: [], cells: 0, with: new Set() }]),
  );
  const writers = new Map(cuts.map(({ key }) => [key, new WordWriter((recordBytes + recordBytes / 4) / 8)]));
  for (const [cell, partitions] of scoring.partitionsOfCells()) {
    const keys = [...partitions].filter((key) => taken.has(key)).sort();
    const into = taken.get(keys[0] ?? '');
    const writer = writers.get(keys[0] ?? '');
    if (!into || !writer) continue;
    scoring.save(cell, writer);
    into.cells += 1;
    for (const key of keys) for (const other of keys) if (other !== key) taken.get(key)?.with.add(other);
    if (writer.byteLength >= recordBytes) into.records.push(writer.take());
  }
  for (const [key, into] of taken) {
    const rest = writers.get(key)?.take() ?? Buffer.alloc(0);
    // Also a partition without cells says where it stands.
    if (rest.length > 0 || into.records.length === 0) into.records.push(rest);
  }
  return [...taken.values()];
}
