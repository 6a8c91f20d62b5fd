/** The partitions of one assignment: how far each is read, which has to wait, and what of it may be committed. */
import type { Logger } from 'pino';
import { CommitLedger } from './commit-ledger';
import type { Counters } from './counters';
import { messageOf, within } from './insist';
import {
  partitionKey,
  type PartitionId,
  type PartitionStart,
  type Position,
  type SnapshotPlace,
  type TelemetrySource,
} from './telemetry-source';
import type { RestoredPartition } from './window-snapshots';

export interface Partition {
  id: PartitionId;
  /** Topic and number as one word. */
  key: string;
  start: PartitionStart;
  ledger: CommitLedger;
  /** Next offset to be read. */
  next: number;
  /** End of the partition when last seen: behind it the partition is read up. */
  end: number;
  /** How far in event time the partition has been read. */
  readToMs: number;
  paused: boolean;
  /** Of records before `read`, everything up to `tickMs` is in the restored windows; undefined if none were restored. */
  restored: { read: number; tickMs: number } | undefined;
  /** The snapshot that is told of with each commit, and whether a commit that did so has succeeded. */
  windows: SnapshotPlace | null;
  isWindowsTold: boolean;
  /** A snapshot that is written, and told of once its tick is committed. */
  kept: { place: SnapshotPlace; tickMs: number } | undefined;
  /** Offsets by the time of their records, one in so many seconds: where to read from for a look back. */
  marks: { offset: number; timestampMs: number }[];
}

/** Where a partition stands when a snapshot is taken. */
export interface PartitionCut {
  key: string;
  /** Where the snapshot goes. */
  slot: 0 | 1;
  dealtWith: number;
  read: number;
  from: number;
}

const markEveryMs = 5_000;
const mostMarks = 120;

const commitWithinMs = 5_000;

export class Partitions {
  private partitions = new Map<string, Partition>();

  constructor(
    private readonly source: TelemetrySource,
    private readonly counters: Counters,
    private readonly log: Logger,
  ) {}

  /** All that was known before is void. `restored`: by `topic/partition`, what was restored of some of them. */
  assign(starts: readonly PartitionStart[], restored: ReadonlyMap<string, RestoredPartition>): void {
    // The client keeps what was paused across assignments; we begin anew.
    for (const { id, paused } of this.partitions.values()) if (paused) this.source.resume(id);
    this.partitions = new Map();
    for (const start of starts) {
      const { topic, partition, from, committed, end } = start;
      const id = { topic, partition };
      const key = partitionKey(id);
      const ledger = new CommitLedger(committed);
      this.partitions.set(key, {
        id,
        key,
        start,
        ledger,
        next: from,
        end,
        readToMs: -Infinity,
        paused: false,
        restored: restored.get(key)?.head,
        windows: start.windows,
        isWindowsTold: true,
        kept: undefined,
        marks: [],
      });
      if (committed !== null && committed < from) this.counters.add('records.skipped', from - committed);
    }
  }

  find(id: PartitionId): Partition | undefined {
    return this.partitions.get(partitionKey(id));
  }

  /** Notes that a record is read, and keeps a mark now and then. */
  read(partition: Partition, offset: number, timestampMs: number): void {
    partition.next = offset + 1;
    const { marks } = partition;
    const last = marks[marks.length - 1];
    if (last && timestampMs - last.timestampMs < markEveryMs) return;
    marks.push({ offset, timestampMs });
    if (marks.length > mostMarks) marks.shift();
  }

  /**
   * Where all partitions stand after a tick, or undefined if no snapshot can be taken now: what was committed before this
   * assignment is still being read again, or the snapshot before has not been told of.
   */
  cut(tickMs: number, warmUpMs: number): PartitionCut[] | undefined {
    const partitions = [...this.partitions.values()];
    const isReady = ({ start, next, isWindowsTold, kept }: Partition) =>
      isWindowsTold && !kept && next >= (start.committed ?? 0) && tickMs >= (start.committedTickMs ?? -Infinity);
    if (partitions.length === 0 || !partitions.every(isReady)) return undefined;
    return partitions.map((partition) => {
      const { key, start, ledger, next, windows } = partition;
      const dealtWith = Math.max(start.from, ledger.dealtWith(tickMs));
      const from = warmUpMs === 0 ? dealtWith : lookBack(partition, dealtWith, warmUpMs);
      return { key, slot: windows?.slot === 0 ? 1 : 0, dealtWith, read: next, from };
    });
  }

  /** Snapshots that are written whole, by `topic/partition`; told of with the next commit that covers their tick. */
  keep(places: ReadonlyMap<string, SnapshotPlace>, tickMs: number): void {
    for (const [key, place] of places) {
      const partition = this.partitions.get(key);
      if (partition) partition.kept = { place, tickMs };
    }
  }

  /** Event time up to which everything has been read: where there is a backlog by its records, else by the clock. */
  readToMs(nowMs: number): number {
    let readTo = nowMs;
    for (const partition of this.partitions.values()) {
      if (partition.next < partition.end) readTo = Math.min(readTo, partition.readToMs);
    }
    return readTo;
  }

  /** Whether all these partitions had committed this tick before this assignment. */
  hadCommitted(keys: ReadonlySet<string>, tickMs: number): boolean {
    for (const key of keys) {
      const committed = this.partitions.get(key)?.start.committedTickMs ?? -Infinity;
      if (committed < tickMs) return false;
    }
    return keys.size > 0;
  }

  /**
   * Too many samples for later ticks: the partition that brings them waits for the others. Never the one they wait for:
   * its records alone move the ticks on, and with them what is held.
   */
  keepBounded(held: number, most: number, delivering?: Partition): void {
    const hindmost = this.hindmost();
    if (delivering && !delivering.paused && delivering !== hindmost && held > most) {
      delivering.paused = true;
      this.source.pause(delivering.id);
    }
    for (const partition of this.partitions.values()) {
      if (!partition.paused || (partition !== hindmost && held >= most / 2)) continue;
      partition.paused = false;
      this.source.resume(partition.id);
    }
  }

  /** The partition that holds the ticks back; undefined if all are read up, and ticks follow the clock. */
  private hindmost(): Partition | undefined {
    let hindmost: Partition | undefined;
    for (const partition of this.partitions.values()) {
      if (partition.next >= partition.end) continue;
      if (!hindmost || partition.readToMs < hindmost.readToMs) hindmost = partition;
    }
    return hindmost;
  }

  /** Commits every record whose ticks are done. */
  async commit(doneTickMs: number): Promise<void> {
    const positions: Position[] = [];
    for (const partition of this.partitions.values()) {
      const { id, ledger, start, kept } = partition;
      let offset = ledger.advance(doneTickMs);
      if (kept && kept.tickMs <= doneTickMs) {
        partition.windows = kept.place;
        partition.isWindowsTold = false;
        partition.kept = undefined;
      }
      if (!partition.isWindowsTold) offset ??= ledger.position;
      const tickMs = Math.max(doneTickMs, start.committedTickMs ?? -Infinity);
      if (offset !== undefined) positions.push({ ...id, offset, tickMs, windows: partition.windows });
    }
    if (positions.length === 0) return;
    try {
      // A client that rejoins its group in the middle of a commit may never answer, and all scoring would wait for it.
      if (!(await within(commitWithinMs, this.source.commit(positions)))) {
        throw new Error(`no answer within ${commitWithinMs / 1000} s`);
      }
      for (const position of positions) {
        const partition = this.find(position);
        partition?.ledger.committed(position.offset);
        if (partition?.windows === position.windows) partition.isWindowsTold = true;
      }
      this.counters.add('commits');
    } catch (error) {
      // Nothing is lost: the next commit tries again, or the next assignment reads these records again.
      this.counters.add('commits.failed');
      this.log.warn({ reason: messageOf(error) }, `offsets could not be committed: ${messageOf(error)}`);
    }
  }
}

/** The offset of a record that is so much older than the one at `offset`; the oldest known if none is. */
function lookBack({ marks, start }: Partition, offset: number, backMs: number): number {
  const before = marks.filter((mark) => mark.offset <= offset);
  const atMs = before[before.length - 1]?.timestampMs ?? -Infinity;
  const far = before.filter(({ timestampMs }) => timestampMs <= atMs - backMs);
  return far[far.length - 1]?.offset ?? Math.min(offset, start.from);
}
