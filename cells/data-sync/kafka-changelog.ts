/**
 * Data sync by a log: the cell's state is what a compacted Kafka topic of one partition holds. A cell follows it from its
 * start, so there is nothing to copy. The one writer is fenced by Kafka itself: all cells of the service write with one
 * transactional id, and the new owner's initialisation of it makes the broker refuse every earlier producer for ever
 * (https://kafka.apache.org/documentation/#semantics, KIP-98), also one that comes back from a pause in mid-write.
 * How far the log goes is asked of Kafka, not of the cells.
 */
import { randomUUID } from 'node:crypto';
import { Kafka, logLevel, type Admin } from 'kafkajs';
import { z } from 'zod';
import { CellDataClient, DataUnreachableError, type DataCell, type TlsOf } from './contract';
import type { DataSync, Fenced, Lag, LagLimit, Ownership, Promoted } from './data-sync';

export interface KafkaChangelogOptions {
  tlsOf?: TlsOf | undefined;
  brokers: readonly string[];
  topic: string;
  path: string;
  limit: LagLimit;
}

/** What a cell writes when it becomes the owner; the rest of the log is the service's own affair. */
const ownerRecordSchema = z.object({
  kind: z.literal('owner'),
  owner: z.object({ cell: z.string(), epoch: z.number().int() }),
});

const orderTimeoutMs = 15_000;
/** A source that is to be fenced and is slow to say so is fenced by Kafka. */
const fenceTimeoutMs = 2_000;
const readBackWithinMs = 15_000;
/** Where the claim is looked for first; a busy log may have gone further, and then all of it is read. */
const recentRecords = 2_000;

export class KafkaChangelog implements DataSync {
  readonly kind = 'kafka-changelog';
  readonly livesInCells = false;
  readonly limit: LagLimit;
  private readonly kafka: Kafka;
  private admin: Promise<Admin> | undefined;
  private readonly cells: CellDataClient;
  private readonly fencing: CellDataClient;

  constructor(private readonly options: KafkaChangelogOptions) {
    this.limit = options.limit;
    this.cells = new CellDataClient(options.path, orderTimeoutMs, options.tlsOf);
    this.fencing = new CellDataClient(options.path, fenceTimeoutMs, options.tlsOf);
    this.kafka = new Kafka({
      clientId: 'understudy-data-sync',
      brokers: [...options.brokers],
      logLevel: logLevel.NOTHING,
      connectionTimeout: 2_000,
      retry: { initialRetryTime: 50, maxRetryTime: 500, retries: 5 },
    });
  }

  async lag(cell: DataCell, owner: DataCell): Promise<Lag> {
    const isWritten = await this.isWriting(owner);
    // The end first: what is written between the two looks must not make the cell seem further than it is.
    const end = await this.endOfLog();
    const { position, newestMs } = await this.fencing.state(cell);
    // Each transaction ends in a marker that no reader is shown: a cell that has everything stands one before the end.
    const behind = Math.max(0, end - 1 - position);
    if (behind === 0) return { behind, unit: 'records', seconds: 0 };
    // Without a living writer the newest record only grows older, and an unfinished transaction stays at the end.
    const seconds = newestMs === null || !isWritten ? null : Math.max(0, Date.now() - newestMs) / 1000;
    return { behind, unit: 'records', seconds };
  }

  /** A cell of this kind follows the log from its start. */
  async follow(): Promise<void> {}

  async isFollowing(): Promise<boolean> {
    return true;
  }

  /** What is acknowledged is in the log, and the log is nobody's. */
  async secure(): Promise<void> {}

  async release(): Promise<void> {}

  async forget(): Promise<void> {}

  async fence(owner: DataCell, to: DataCell, epoch: number): Promise<Fenced> {
    try {
      const { position, role } = await this.fencing.order(owner, { what: 'fence', epoch });
      return { acknowledged: position, how: `${owner.name} stopped at record ${position} (${role})` };
    } catch (error) {
      if (!(error instanceof DataUnreachableError)) throw error;
      const how = `${owner.name} does not answer; Kafka refuses its writes once ${to.name} has initialised the writer`;
      return { acknowledged: null, how };
    }
  }

  async promote(to: DataCell, epoch: number): Promise<Promoted> {
    const since = performance.now();
    const { position, role, epoch: claimed } = await this.cells.order(to, { what: 'promote', epoch });
    if (role !== 'owner' || claimed !== epoch)
      throw new Error(`${to.name} was promoted to epoch ${epoch} and says that it is ${role} in epoch ${claimed}`);
    return { position, tookMs: performance.now() - since };
  }

  async readBack(to: DataCell, epoch: number): Promise<string> {
    const end = await this.endOfLog();
    const found = (await this.newestOwner(Math.max(0, end - recentRecords), end)) ?? (await this.newestOwner(0, end));
    if (found?.cell !== to.name || found.epoch !== epoch) {
      const words = found ? `${found.cell} in epoch ${found.epoch}` : 'nobody';
      throw new Error(`the log says that ${words} owns it, not ${to.name} in epoch ${epoch}`);
    }
    return `the log names ${to.name} its owner in epoch ${epoch}`;
  }

  isWriting(owner: DataCell): Promise<boolean> {
    return this.fencing.isOwner(owner);
  }

  async ownership(cells: readonly DataCell[]): Promise<Ownership> {
    const answers = await Promise.allSettled(cells.map((cell) => this.fencing.state(cell)));
    const states = answers.flatMap((answer) => (answer.status === 'fulfilled' ? [answer.value] : []));
    // One that has not read the log yet knows nobody: that proves nothing while another cannot be asked.
    const isUnknown = states.length < answers.length && states.every(({ epoch }) => epoch === 0);
    if (isUnknown)
      throw new DataUnreachableError(
        `who owns ${this.options.topic} is not known: not every cell answers, and no other knows`,
      );
    if (states.length === 0) return { epoch: 0, owner: null };
    const newest = states.reduce((a, b) => (b.epoch > a.epoch ? b : a));
    return { epoch: newest.epoch, owner: newest.owner?.cell ?? null };
  }

  async close(): Promise<void> {
    await (await this.admin)?.disconnect();
  }

  private async endOfLog(): Promise<number> {
    const admin = await (this.admin ??= this.connectAdmin());
    const [partition, ...more] = await admin.fetchTopicOffsets(this.options.topic);
    if (!partition || more.length > 0)
      throw new Error(
        `topic ${this.options.topic} has ${more.length + (partition ? 1 : 0)} partitions; a changelog has one`,
      );
    return Number(partition.high);
  }

  private async connectAdmin(): Promise<Admin> {
    const admin = this.kafka.admin();
    try {
      await admin.connect();
      return admin;
    } catch (error) {
      this.admin = undefined;
      throw error;
    }
  }

  /** The last claim among the committed records from `begin` to `end`. */
  private async newestOwner(begin: number, end: number): Promise<{ cell: string; epoch: number } | undefined> {
    const { topic } = this.options;
    const consumer = this.kafka.consumer({ groupId: `understudy-read-back-${randomUUID()}`, maxWaitTimeInMs: 200 });
    let newest: { cell: string; epoch: number } | undefined;
    let timer: NodeJS.Timeout | undefined;
    try {
      await consumer.connect();
      await consumer.subscribe({ topics: [topic], fromBeginning: true });
      await new Promise<void>((resolve, reject) => {
        timer = setTimeout(() => reject(new Error(`${topic} could not be read to its end`)), readBackWithinMs);
        const eachBatch = async ({
          batch,
        }: {
          batch: { messages: { key: Buffer | null; value: Buffer | null; offset: string }[] };
        }) => {
          for (const { key, value, offset } of batch.messages) {
            if (key?.toString() === 'owner') {
              const record = ownerRecordSchema.safeParse(JSON.parse(value?.toString() ?? 'null'));
              if (record.success) newest = record.data.owner;
            }
            // The last offset is the marker of a transaction.
            if (Number(offset) >= end - 2) resolve();
          }
        };
        consumer
          .run({ autoCommit: false, eachBatch })
          .then(() => consumer.seek({ topic, partition: 0, offset: String(begin) }), reject);
      });
      return newest;
    } finally {
      clearTimeout(timer);
      await consumer.disconnect().catch(() => undefined);
    }
  }
}
