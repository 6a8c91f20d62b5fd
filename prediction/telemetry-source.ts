/** The port behind which the telemetry stream lies: assignments and records come in, commits go out. */
import type { RecordHeaders } from './decode/decoder';

export interface TelemetryRecord {
  offset: number;
  /** The record's own time, in ms since the epoch. */
  timestampMs: number;
  key: Buffer | null;
  value: Buffer | null;
  headers: RecordHeaders;
}

export interface PartitionId {
  topic: string;
  partition: number;
}

export const partitionKey = ({ topic, partition }: PartitionId): string => `${topic}/${partition}`;

/** Where the reading of a partition begins. Records before `committed` were dealt with; they only rebuild windows. */
export interface PartitionStart extends PartitionId {
  /** First offset that will be delivered. */
  from: number;
  /** Next offset that has not been dealt with; null if none ever was. */
  committed: number | null;
  /** The last tick whose scores were published and whose signals were accepted; null if unknown. */
  committedTickMs: number | null;
  /** The partition's end at the assignment: from here on it is live. */
  end: number;
  /** The oldest offset that is still there. */
  low: number;
  /** The newest snapshot of its cells' windows; null if there is none. */
  windows: SnapshotPlace | null;
}

/** Where a snapshot of windows lies in its topic. */
export interface SnapshotPlace {
  partition: number;
  /** Of its first record. */
  offset: number;
  /** Two snapshots of a partition are kept, turn by turn: the one that is written never replaces the one in use. */
  slot: 0 | 1;
}

export interface Position extends PartitionId {
  /** Next offset to read. */
  offset: number;
  tickMs: number;
  /** What a new reader restores the windows from. */
  windows: SnapshotPlace | null;
}

/** What a source tells its reader, one call at a time. */
export interface TelemetryReader {
  /**
   * A new assignment: everything known before is void. Answers from where it wants to read partitions whose windows it
   * could restore; the records of the others follow from their `from`.
   */
  assigned(partitions: PartitionStart[]): Promise<readonly Pick<PartitionStart, 'topic' | 'partition' | 'from'>[]>;
  /** Records of one partition in order. `end` is the partition's end when they were fetched. */
  records(from: PartitionId, records: readonly TelemetryRecord[], end: number): Promise<void>;
  /** Offsets from `first` to before `next` hold no records for a reader, such as the markers that end transactions. */
  passed(from: PartitionId, first: number, next: number, end: number): Promise<void>;
}

export interface TelemetrySource {
  /** Begins to read, and keeps at it (reconnecting as needed) until `stop`. */
  start(reader: TelemetryReader): Promise<void>;
  /** Throws if the assignment has changed in between: then nothing was committed, and the records come again. */
  commit(positions: readonly Position[]): Promise<void>;
  pause(partition: PartitionId): void;
  resume(partition: PartitionId): void;
  /** Leaves the group and closes. */
  stop(): Promise<void>;
  /** Undefined if all is well, else what is wrong. */
  trouble(): string | undefined;
}
