/** A queue of jobs on Kafka whose sender is also the one who consumes them: from sending to the end of the work. */
import { connect } from 'node:net';
import { Kafka, Partitioners, logLevel, type Consumer, type EachBatchPayload, type Producer } from 'kafkajs';
import { untilTopicsAreLed } from '../../local/kafka';
import type { Peer } from '../contract';

export interface JobQueueOptions {
  broker: Peer;
  topic: string;
  /** Who sends; jobs of other senders on the topic are passed over. */
  sender: string;
  /** Jobs worked on at once. */
  slots: number;
  work(key: number): Promise<void>;
}

interface Job {
  sentAt: number;
  done: () => void;
  failed: (error: Error) => void;
}

/** Jobs sent within this time go to Kafka in one message set. */
const lingerMs = 5;
/** Messages are only worth something while their sender lives. */
const retentionMs = 600_000;
/** A backlog is never larger than callers who gave up have left; beyond that new jobs are refused. */
const mostPending = 5000;

export class JobQueue {
  /** Sent and not done, oldest first. */
  private readonly pending = new Map<number, Job>();
  private outbox: { key: string; value: string }[] = [];
  private next = 0;
  private free: number;
  private readonly waitingForSlot: (() => void)[] = [];
  private readonly kafka: Kafka;
  private readonly producer: Producer;
  private readonly consumer: Consumer;
  /** Of this life of the sender: what an earlier one left is nobody's. */
  private readonly name: string;

  constructor(private readonly options: JobQueueOptions) {
    const { broker, sender } = options;
    this.free = options.slots;
    this.name = `${sender}/${process.pid}-${Date.now()}`;
    this.kafka = new Kafka({
      clientId: sender,
      brokers: [`${broker.host}:${broker.port}`],
      logLevel: logLevel.NOTHING,
      connectionTimeout: 2000,
      requestTimeout: 5000,
      retry: { retries: 3, initialRetryTime: 100, maxRetryTime: 1000 },
      // Kafka names its own address in its answers; every connection has to go to the one that was given.
      socketFactory: ({ onConnect }) => connect({ host: broker.host, port: broker.port }, onConnect),
    });
    this.producer = this.kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner });
    this.consumer = this.kafka.consumer({
      groupId: `lab-${this.name}`,
      maxWaitTimeInMs: 1000,
      sessionTimeout: 20_000,
      heartbeatInterval: 3000,
    });
  }

  get depth(): number {
    return this.pending.size;
  }

  /** Age in seconds of the oldest job that is not done; 0 if there is none. */
  get oldestAgeS(): number {
    const [oldest] = this.pending.values();
    return oldest ? (performance.now() - oldest.sentAt) / 1000 : 0;
  }

  /** Resolves after the first fetch: it has fixed the offset to begin at, so jobs sent from then on are seen. */
  async start(): Promise<void> {
    const admin = this.kafka.admin();
    const configEntries = [{ name: 'retention.ms', value: String(retentionMs) }];
    try {
      await admin.connect();
      await admin.createTopics({
        waitForLeaders: false,
        topics: [{ topic: this.options.topic, numPartitions: 1, replicationFactor: 1, configEntries }],
      });
      await untilTopicsAreLed(admin, [this.options.topic]);
    } finally {
      await admin.disconnect();
    }
    await this.producer.connect();
    await this.consumer.connect();
    await this.consumer.subscribe({ topic: this.options.topic, fromBeginning: false });
    const fetched = new Promise<void>((resolve) => this.consumer.on(this.consumer.events.FETCH, () => resolve()));
    await this.consumer.run({
      autoCommitInterval: 2000,
      eachBatchAutoResolve: false,
      eachBatch: (payload) => this.consume(payload),
    });
    await fetched;
  }

  async stop(): Promise<void> {
    await Promise.allSettled([this.consumer.disconnect(), this.producer.disconnect()]);
  }

  /** Resolves when the job has been worked on, or rejects if it could not be sent. */
  send(key: number): Promise<void> {
    if (this.pending.size >= mostPending) return Promise.reject(new Error(`${mostPending} jobs are waiting already.`));
    const number = this.next++;
    const done = new Promise<void>((resolve, reject) => {
      this.pending.set(number, { sentAt: performance.now(), done: resolve, failed: reject });
    });
    if (this.outbox.length === 0) setTimeout(() => void this.flush(), lingerMs);
    this.outbox.push({ key: this.name, value: `${number} ${key}` });
    return done;
  }

  private async flush(): Promise<void> {
    const messages = this.outbox;
    this.outbox = [];
    try {
      await this.producer.send({ topic: this.options.topic, acks: 1, messages });
    } catch (error) {
      for (const { value } of messages) {
        const number = Number.parseInt(value, 10);
        this.pending.get(number)?.failed(error as Error);
        this.pending.delete(number);
      }
    }
  }

  /** Begins a job whenever a slot is free; the batch is not done with before its last job has begun. */
  private async consume(payload: EachBatchPayload): Promise<void> {
    for (const { key, value, offset } of payload.batch.messages) {
      if (!payload.isRunning()) return;
      if (key?.toString() === this.name && value) await this.begin(value.toString());
      payload.resolveOffset(offset);
      await payload.heartbeat();
    }
    await payload.commitOffsetsIfNecessary();
  }

  private async begin(text: string): Promise<void> {
    const [number = 0, key = 0] = text.split(' ').map(Number);
    const job = this.pending.get(number);
    // Delivered a second time, after a rebalance.
    if (!job) return;
    if (this.free > 0) this.free--;
    else await new Promise<void>((enter) => this.waitingForSlot.push(enter));
    void this.options
      .work(key)
      .then(job.done, job.failed)
      .finally(() => {
        this.pending.delete(number);
        const next = this.waitingForSlot.shift();
        if (next) next();
        else this.free++;
      });
  }
}
