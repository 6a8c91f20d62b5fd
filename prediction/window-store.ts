/** Where window snapshots lie: a compacted Kafka topic, written record by record, read from a known offset on. */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Consumer, EachBatchPayload, Kafka, Producer } from 'kafkajs';
import { within } from './insist';
import type { SnapshotPlace } from './telemetry-source';
import { recordKey } from './window-records';

export interface WantedSnapshot extends SnapshotPlace {
  /** Whose windows: `topic/partition`. */
  of: string;
}

export interface WindowStore {
  /** Answers where the record lies. All records of one owner lie in one partition, in the order of writing. */
  write(of: string, slot: number, index: number, record: Buffer): Promise<{ partition: number; offset: number }>;
  /**
   * The records of the wanted snapshots, as they were written, by owner; whose are not all there is left out.
   * `recordsOf` reads from a record how many there are.
   */
  read(
    wanted: readonly WantedSnapshot[],
    recordsOf: (record: Buffer) => number,
  ): Promise<ReadonlyMap<string, readonly Buffer[]>>;
  close(): Promise<void>;
}

export interface KafkaWindowStoreOptions {
  kafka: Kafka;
  topic: string;
  /** Readers are groups of their own, whose names begin with this. */
  groupId: string;
  /** @default 10,000 */
  readWithinMs?: number;
}

/** What is still missing of a snapshot that is being read. */
interface Reading extends WantedSnapshot {
  records: Buffer[];
  /** Unknown before the first has come. */
  count: number;
}

export class KafkaWindowStore implements WindowStore {
  private readonly producer: Producer;
  private connecting: Promise<void> | undefined;

  constructor(private readonly options: KafkaWindowStoreOptions) {
    this.producer = options.kafka.producer({
      allowAutoTopicCreation: false,
      createPartitioner:
        () =>
        ({ partitionMetadata, message }) =>
          hashOf(String(message.key).split('#')[0] ?? '') % partitionMetadata.length,
    });
  }

  async write(of: string, slot: number, index: number, record: Buffer): Promise<{ partition: number; offset: number }> {
    this.connecting ??= this.producer.connect();
    try {
      await this.connecting;
    } catch (error) {
      this.connecting = undefined;
      throw error;
    }
    const { topic } = this.options;
    const messages = [{ key: recordKey(of, slot, index), value: record }];
    const [written] = await this.producer.send({ topic, acks: -1, messages });
    if (written?.baseOffset === undefined) throw new Error(`${topic} did not say where the record went`);
    return { partition: written.partition, offset: Number(written.baseOffset) };
  }

  async read(
    wanted: readonly WantedSnapshot[],
    recordsOf: (record: Buffer) => number,
  ): Promise<ReadonlyMap<string, readonly Buffer[]>> {
    const { kafka, topic, groupId, readWithinMs = 10_000 } = this.options;
    const readings = wanted.map((place): Reading => ({ ...place, records: [], count: Infinity }));
    const consumer = kafka.consumer({
      groupId: `${groupId}.windows-${randomUUID()}`,
      maxBytesPerPartition: 8 * 1024 * 1024,
      maxWaitTimeInMs: 100,
      retry: { retries: 2, restartOnFailure: async () => false },
    });
    try {
      const done = new Promise<void>((resolve, reject) => {
        consumer.on(consumer.events.CRASH, ({ payload }) => reject(payload.error));
        consumer.on(consumer.events.GROUP_JOIN, ({ payload }) =>
          seekTo(consumer, topic, payload.memberAssignment[topic] ?? [], readings),
        );
        const eachBatch = async ({ batch }: EachBatchPayload) => {
          const ofPartition = readings.filter(({ partition }) => partition === batch.partition);
          for (const message of batch.messages) {
            for (const reading of ofPartition) take(reading, message, recordsOf);
          }
          const isOver = Number(batch.lastOffset()) + 1 >= Number(batch.highWatermark);
          for (const reading of isOver ? ofPartition : [])
            reading.count = Math.min(reading.count, reading.records.length);
          const isRead = (reading: Reading) => reading.records.length >= reading.count;
          if (ofPartition.every(isRead)) consumer.pause([{ topic, partitions: [batch.partition] }]);
          if (readings.every(isRead)) resolve();
        };
        consumer
          .connect()
          .then(() => consumer.subscribe({ topics: [topic], fromBeginning: true }))
          .then(() => consumer.run({ autoCommit: false, eachBatch }))
          .catch(reject);
      });
      if (!(await within(readWithinMs, done))) throw new Error(`${topic} was not read within ${readWithinMs} ms`);
    } finally {
      // Leaving the group takes its time, and nobody has to wait for it.
      consumer.disconnect().catch(() => undefined);
    }
    return new Map(readings.map(({ of, records }) => [of, records]));
  }

  async close(): Promise<void> {
    await Promise.race([this.producer.disconnect(), sleep(1_000, undefined, { ref: false })]);
  }
}

/** Only the partitions in which something is wanted are read, from the first record of it on. */
function seekTo(consumer: Consumer, topic: string, assigned: readonly number[], readings: readonly Reading[]): void {
  for (const partition of assigned) {
    const offsets = readings.filter((r) => r.partition === partition).map(({ offset }) => offset);
    if (offsets.length === 0) consumer.pause([{ topic, partitions: [partition] }]);
    else consumer.seek({ topic, partition, offset: String(Math.min(...offsets)) });
  }
}

function take(
  reading: Reading,
  { key, value, offset }: { key: Buffer | null; value: Buffer | null; offset: string },
  recordsOf: (record: Buffer) => number,
): void {
  const { of, slot, records, count } = reading;
  if (!key || !value || records.length >= count || Number(offset) < reading.offset) return;
  if (String(key) !== recordKey(of, slot, records.length)) return;
  if (records.length === 0) reading.count = recordsOf(value);
  records.push(value);
}

function hashOf(text: string): number {
  let hash = 0;
  for (let i = 0; i < text.length; i++) hash = (Math.imul(hash, 31) + text.charCodeAt(i)) >>> 0;
  return hash;
}
