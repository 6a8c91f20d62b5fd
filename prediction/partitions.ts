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
  type TelemetrySource,
} from './telemetry-source';

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
}

const commitWithinMs = 5_000;

export class Partitions {
  private partitions = new Map<string, Partition>();

  constructor(
    private readonly source: TelemetrySource,
    private readonly counters: Counters,
    private readonly log: Logger,
  ) {}

  /** All that was known before is void. */
  assign(starts: readonly PartitionStart[]): void {
    // The client keeps what was paused across assignments; we begin anew.
    for (const { id, paused } of this.partitions.values()) if (paused) this.source.resume(id);
    this.partitions = new Map();
    for (const start of starts) {
      const { topic, partition, from, committed, end } = start;
      const id = { topic, partition };
      const key = partitionKey(id);
      const ledger = new CommitLedger(committed ?? 0);
      this.partitions.set(key, { id, key, start, ledger, next: from, end, readToMs: -Infinity, paused: false });
      if (committed !== null && committed < from) this.counters.add('records.skipped', from - committed);
    }
  }

  find(id: PartitionId): Partition | undefined {
    return this.partitions.get(partitionKey(id));
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
    for (const { id, ledger, start } of this.partitions.values()) {
      const offset = ledger.advance(doneTickMs);
      const tickMs = Math.max(doneTickMs, start.committedTickMs ?? -Infinity);
      if (offset !== undefined) positions.push({ ...id, offset, tickMs });
    }
    if (positions.length === 0) return;
    try {
      // A client that rejoins its group in the middle of a commit may never answer, and all scoring would wait for it.
      if (!(await within(commitWithinMs, this.source.commit(positions)))) {
        throw new Error(`no answer within ${commitWithinMs / 1000} s`);
      }
      for (const position of positions) this.find(position)?.ledger.committed(position.offset);
      this.counters.add('commits');
    } catch (error) {
      // Nothing is lost: the next commit tries again, or the next assignment reads these records again.
      this.counters.add('commits.failed');
      this.log.warn({ reason: messageOf(error) }, `offsets could not be committed: ${messageOf(error)}`);
    }
  }
}
