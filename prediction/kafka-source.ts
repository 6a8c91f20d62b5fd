/** Telemetry from Kafka by kafkajs: commits by hand, windows rebuilt by seeking back, a consumer made anew when it dies or stalls. */
import type { Admin, Consumer, ConsumerEndBatchProcessEvent, EachBatchPayload, Kafka, KafkaMessage } from 'kafkajs';
import type { Logger } from 'pino';
import { registerCompression } from './compression';
import { within } from './insist';
import type {
  PartitionId,
  PartitionStart,
  Position,
  SnapshotPlace,
  TelemetryReader,
  TelemetryRecord,
  TelemetrySource,
} from './telemetry-source';

export interface KafkaSourceOptions {
  kafka: Kafka;
  groupId: string;
  topics: readonly string[];
  /** How far back windows reach, in ms: reading begins there, also behind the committed offset. */
  rebuildMs: number;
  /** No fetch for this long means the consumer has stalled silently. @default 30,000 */
  stalledAfterMs?: number;
  log: Logger;
  now?: () => number;
}

const recordsPerCall = 500;
const beatWhileWaitingMs = 1_000;

/** What kafkajs tells of a batch when it is over. */
type EndedBatch = Omit<ConsumerEndBatchProcessEvent['payload'], 'firstOffset'> & { firstOffset: string | null };

export class KafkaSource implements TelemetrySource {
  private reader: TelemetryReader | undefined;
  private consumer: Consumer | undefined;
  private admin: Admin | undefined;
  private stopping = false;
  private problem: string | undefined = 'not started';
  /** Settles when the present assignment's seeks are done; batches wait for it. */
  private ready: Promise<void> = Promise.resolve();
  private assignment = 0;
  private lastFetchMs = 0;
  private endConsumer: (reason: string) => void = () => undefined;
  private supervision: Promise<void> | undefined;
  private readonly now: () => number;

  constructor(private readonly options: KafkaSourceOptions) {
    this.now = options.now ?? Date.now;
    registerCompression();
  }

  async start(reader: TelemetryReader): Promise<void> {
    this.reader = reader;
    this.supervision = this.supervise();
  }

  async stop(): Promise<void> {
    this.stopping = true;
    this.endConsumer('stopping');
    await this.supervision;
  }

  trouble(): string | undefined {
    return this.problem;
  }

  pause({ topic, partition }: PartitionId): void {
    this.consumer?.pause([{ topic, partitions: [partition] }]);
  }

  resume({ topic, partition }: PartitionId): void {
    this.consumer?.resume([{ topic, partitions: [partition] }]);
  }

  async commit(positions: readonly Position[]): Promise<void> {
    if (!this.consumer) throw new Error('Nothing can be committed: there is no consumer at the moment.');
    await this.consumer.commitOffsets(
      positions.map(({ topic, partition, offset, tickMs, windows }) => ({
        topic,
        partition,
        offset: String(offset),
        metadata: JSON.stringify(windows ? { tickMs, windows } : { tickMs }),
      })),
    );
  }

  /** One consumer after another until stopped. */
  private async supervise(): Promise<void> {
    for (let pauseMs = 250; !this.stopping; pauseMs = Math.min(pauseMs * 2, 5_000)) {
      const startedMs = this.now();
      const reason = await this.runConsumer();
      if (this.stopping) return;
      this.problem = reason;
      this.options.log.warn({ reason }, `the telemetry consumer ended (${reason}); another one is made`);
      if (this.now() - startedMs > 30_000) pauseMs = 250;
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
  }

  /** Runs a consumer until it crashes, stalls or is stopped; answers why. Never throws. */
  private async runConsumer(): Promise<string> {
    const { kafka, groupId, topics, stalledAfterMs = 30_000 } = this.options;
    const consumer = kafka.consumer({
      groupId,
      // A dead member is noticed after this long; the broker accepts no less by default.
      sessionTimeout: 6_000,
      heartbeatInterval: 1_500,
      rebalanceTimeout: 30_000,
      maxWaitTimeInMs: 100,
      maxBytesPerPartition: 1_048_576,
      // Restarts are ours: a consumer that cannot go on is replaced whole.
      retry: { retries: 5, restartOnFailure: async () => false },
    });
    const admin = kafka.admin();
    let watchdog: NodeJS.Timeout | undefined;
    try {
      const ended = new Promise<string>((resolve) => (this.endConsumer = resolve));
      const { CRASH, END_BATCH_PROCESS, FETCH, GROUP_JOIN } = consumer.events;
      consumer.on(CRASH, ({ payload }) => this.endConsumer(payload.error.message));
      consumer.on(FETCH, () => (this.lastFetchMs = this.now()));
      consumer.on(END_BATCH_PROCESS, ({ payload }) => this.passed(payload));
      consumer.on(GROUP_JOIN, ({ payload }) => this.joined(consumer, payload.memberAssignment));
      await admin.connect();
      await consumer.connect();
      await consumer.subscribe({ topics: [...topics], fromBeginning: true });
      this.consumer = consumer;
      this.admin = admin;
      await consumer.run({ autoCommit: false, eachBatchAutoResolve: false, eachBatch: (batch) => this.batch(batch) });
      this.lastFetchMs = this.now();
      watchdog = setInterval(
        () => {
          const silentMs = this.now() - this.lastFetchMs;
          if (silentMs > stalledAfterMs) this.endConsumer(`no fetch for ${Math.round(silentMs / 1000)} s`);
        },
        Math.min(1_000, stalledAfterMs),
      );
      return await ended;
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    } finally {
      clearInterval(watchdog);
      this.consumer = undefined;
      this.admin = undefined;
      await consumer.disconnect().catch(() => undefined);
      await admin.disconnect().catch(() => undefined);
    }
  }

  private joined(consumer: Consumer, assigned: Record<string, number[]>): void {
    const mine = ++this.assignment;
    this.ready = this.prepare(consumer, assigned, mine).catch((error: unknown) => {
      const reason = error instanceof Error ? error.message : String(error);
      this.endConsumer(`the new assignment could not be prepared: ${reason}`);
      throw error;
    });
    // Whoever awaits `ready` sees the rejection; without a batch nobody does.
    this.ready.catch(() => undefined);
  }

  /** Looks up where each partition begins, tells the reader and seeks there. */
  private async prepare(consumer: Consumer, assigned: Record<string, number[]>, mine: number): Promise<void> {
    const admin = this.admin;
    if (!admin || !this.reader) throw new Error('the source has been stopped');
    const starts: PartitionStart[] = [];
    const topics = Object.keys(assigned).filter((topic) => (assigned[topic] ?? []).length > 0);
    const committed = await admin.fetchOffsets({ groupId: this.options.groupId, topics });
    for (const topic of topics) {
      const ends = await admin.fetchTopicOffsets(topic);
      const since = await admin.fetchTopicOffsetsByTimestamp(topic, this.now() - this.options.rebuildMs);
      for (const partition of assigned[topic] ?? []) {
        const bounds = ends.find((e) => e.partition === partition);
        const end = Number(bounds?.high ?? 0);
        const low = Number(bounds?.low ?? 0);
        const found = Number(since.find((s) => s.partition === partition)?.offset ?? end);
        const known = committed.find((c) => c.topic === topic)?.partitions.find((p) => p.partition === partition);
        const next = Number(known?.offset ?? -1);
        starts.push({
          topic,
          partition,
          from: Math.min(end, Math.max(low, found < 0 ? end : found)),
          committed: next < 0 ? null : next,
          ...toldWithCommit(known?.metadata),
          end,
          low,
        });
      }
    }
    if (mine !== this.assignment) return;
    const restored = await this.reader.assigned(starts);
    for (const { topic, partition, from } of starts) {
      const wanted = restored.find((r) => r.topic === topic && r.partition === partition)?.from ?? from;
      consumer.seek({ topic, partition, offset: String(wanted) });
    }
    this.problem = undefined;
    this.options.log.info(
      { partitions: starts.length, restored: restored.length },
      `reads ${starts.length} partitions: ${restored.length} from where their snapshots stand, ` +
        `${starts.length - restored.length} from ${Math.round(this.options.rebuildMs / 1000)} s back to rebuild windows`,
    );
  }

  private async batch(payload: EachBatchPayload): Promise<void> {
    // Restoring windows may take longer than the group waits for a member that does not beat.
    while (!(await within(beatWhileWaitingMs, this.ready))) await payload.heartbeat();
    const { batch } = payload;
    const id = { topic: batch.topic, partition: batch.partition };
    const end = Number(batch.highWatermark);
    for (let i = 0; i < batch.messages.length; i += recordsPerCall) {
      // After a seek or a rebalance these records are no longer ours to read.
      if (!payload.isRunning() || payload.isStale() || this.stopping) return;
      const chunk = batch.messages.slice(i, i + recordsPerCall);
      await this.reader?.records(id, chunk.map(recordOf), end);
      payload.resolveOffset(chunk[chunk.length - 1]?.offset ?? batch.lastOffset());
      await payload.heartbeat();
    }
    const newest = batch.messages[batch.messages.length - 1];
    const next = Number(batch.lastOffset()) + 1;
    // Behind the last record may lie what kafkajs keeps to itself: a partition's end can be such a marker for ever.
    if (newest && Number(newest.offset) + 1 < next) await this.reader?.passed(id, Number(newest.offset) + 1, next, end);
  }

  /** A batch of nothing but markers or aborted records is never handed over; the reader has to hear that it is over. */
  private passed({ topic, partition, batchSize, firstOffset, lastOffset, highWatermark }: EndedBatch): void {
    if (batchSize > 0 || firstOffset === null || this.stopping) return;
    this.reader
      ?.passed({ topic, partition }, Number(firstOffset), Number(lastOffset) + 1, Number(highWatermark))
      .catch((error: unknown) => this.options.log.warn({ reason: String(error) }, 'passed offsets were not noted'));
  }
}

function recordOf(message: KafkaMessage): TelemetryRecord {
  return {
    offset: Number(message.offset),
    timestampMs: Number(message.timestamp),
    key: message.key,
    value: message.value,
    headers: message.headers ?? {},
  };
}

/** What this project's commits say beside the offset; anything else says nothing. */
function toldWithCommit(metadata: string | null | undefined): Pick<PartitionStart, 'committedTickMs' | 'windows'> {
  try {
    const { tickMs, windows } = JSON.parse(metadata ?? '') as { tickMs?: unknown; windows?: unknown };
    return {
      committedTickMs: typeof tickMs === 'number' && Number.isFinite(tickMs) ? tickMs : null,
      windows: isPlace(windows) ? windows : null,
    };
  } catch {
    return { committedTickMs: null, windows: null };
  }
}

function isPlace(told: unknown): told is SnapshotPlace {
  if (typeof told !== 'object' || told === null) return false;
  const { partition, offset, slot } = told as Partial<SnapshotPlace>;
  return Number.isInteger(partition) && Number.isInteger(offset) && (slot === 0 || slot === 1);
}
