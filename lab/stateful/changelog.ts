/**
 * A compacted Kafka topic of one partition as the log of a service's state: read from its beginning by every cell, and
 * written by one at a time, which Kafka itself sees to. All writers share one transactional id: whoever initialises it
 * gets a higher producer epoch, and from then on the broker refuses what any earlier one sends, be it late by an hour.
 */
import { randomUUID } from 'node:crypto';
import net from 'node:net';
import { Kafka, logLevel, type Consumer, type ISocketFactory, type Message, type Producer } from 'kafkajs';
import type { Change } from './register-state';

export interface Owner {
  cell: string;
  address: string;
  port: number;
  epoch: number;
}

/** A record of the log. The key decides what compaction keeps: every append, each register's last value, one owner. */
export type LogRecord =
  | { kind: 'change'; change: Change }
  | { kind: 'owner'; owner: Owner }
  /** Nothing, but once it is committed its writer was not fenced before. */
  | { kind: 'barrier' };

export interface ChangelogOptions {
  brokers: string[];
  topic: string;
  /** The same for every cell of the service. */
  transactionalId: string;
  clientId: string;
  /** Connect to this port of 127.0.0.1 whatever address the broker gives: a proxy that can cut the line. */
  viaPort?: number;
}

/** How long one call to Kafka may take before its outcome counts as unknown. */
const requestTimeoutMs = 3_000;

export class Changelog {
  private readonly kafka: Kafka;
  private consumer: Consumer | undefined;
  private producer: Producer | undefined;
  private closed = false;
  /** Offset after the last record that was applied. */
  position = 0;
  /** When that record was written, in milliseconds since 1970 by its writer's clock. */
  newestMs: number | null = null;
  private readonly waiting = new Set<{ position: number; resolve: () => void }>();

  constructor(
    private readonly options: ChangelogOptions,
    private readonly apply: (record: LogRecord) => void,
  ) {
    this.kafka = new Kafka({
      clientId: options.clientId,
      brokers: options.brokers,
      logLevel: logLevel.NOTHING,
      connectionTimeout: 2_000,
      requestTimeout: requestTimeoutMs,
      retry: { initialRetryTime: 50, maxRetryTime: 500, retries: 8 },
      ...(options.viaPort !== undefined && { socketFactory: through(options.viaPort) }),
    });
  }

  /** Begins to apply the log from its beginning, and goes on for as long as the process lives. */
  async follow(): Promise<void> {
    const { topic, clientId } = this.options;
    // A group of its own: every cell reads everything. What it holds is in memory, so each life begins anew.
    const groupId = `${topic}.${clientId}.${randomUUID()}`;
    const consumer = this.kafka.consumer({
      groupId,
      sessionTimeout: 10_000,
      heartbeatInterval: 1_000,
      maxWaitTimeInMs: 500,
      // Also after errors that kafkajs takes for final: a follower that has given up would never be caught up again.
      retry: { initialRetryTime: 50, maxRetryTime: 500, retries: 8, restartOnFailure: async () => !this.closed },
    });
    this.consumer = consumer;
    await consumer.connect();
    await consumer.subscribe({ topics: [topic], fromBeginning: true });
    await consumer.run({
      eachBatchAutoResolve: true,
      autoCommitInterval: 1_000,
      eachBatch: async (payload) => {
        for (const { offset, value, timestamp } of payload.batch.messages) {
          if (value) this.apply(JSON.parse(value.toString()) as LogRecord);
          this.advance(Number(offset) + 1, Number(timestamp));
        }
        await payload.heartbeat();
      },
    });
  }

  /** Fences whoever wrote before. What they had begun and not committed is aborted, what they had committed stays. */
  async initialiseWriter(): Promise<void> {
    await this.dropWriter();
    const producer = this.kafka.producer({
      transactionalId: this.options.transactionalId,
      maxInFlightRequests: 1,
      transactionTimeout: 10_000,
      allowAutoTopicCreation: false,
      // Waits for an earlier writer's transaction to be aborted: the broker asks for patience until it is.
      retry: { initialRetryTime: 50, maxRetryTime: 500, retries: 20 },
    });
    this.producer = producer;
    await producer.connect();
    // Beginning the first transaction is what initialises the id; without records its end costs nothing.
    await (await producer.transaction()).abort();
  }

  /**
   * Commits the records together and answers the offset after the last one. If it throws, the outcome is unknown: the
   * writer must be initialised anew, which settles it, and the log be read to its end.
   */
  async commit(records: readonly LogRecord[]): Promise<number> {
    const { producer } = this;
    if (!producer) throw new Error('no writer');
    const transaction = await producer.transaction();
    const messages = records.map((record): Message => ({
      key: keyOf(record),
      value: JSON.stringify(record),
      partition: 0,
    }));
    const [sent] = await transaction.send({ topic: this.options.topic, acks: -1, messages });
    await transaction.commit();
    return Number(sent?.baseOffset ?? 0) + records.length;
  }

  /** Resolves once everything before the position has been applied. */
  async reached(position: number, withinMs: number): Promise<void> {
    if (this.position >= position) return;
    let waiter: { position: number; resolve: () => void } | undefined;
    let timer: NodeJS.Timeout | undefined;
    try {
      await new Promise<void>((resolve, reject) => {
        waiter = { position, resolve };
        this.waiting.add(waiter);
        const give = () =>
          reject(new Error(`the log is applied up to ${this.position}, not to ${position}, after ${withinMs} ms`));
        timer = setTimeout(give, withinMs);
      });
    } finally {
      clearTimeout(timer);
      if (waiter) this.waiting.delete(waiter);
    }
  }

  async dropWriter(): Promise<void> {
    const { producer } = this;
    this.producer = undefined;
    await producer?.disconnect().catch(() => undefined);
  }

  async close(): Promise<void> {
    this.closed = true;
    await this.dropWriter();
    await this.consumer?.disconnect().catch(() => undefined);
  }

  private advance(position: number, writtenMs: number): void {
    // After a rebalance the last few records come again; they change nothing.
    if (position <= this.position) return;
    this.position = position;
    this.newestMs = writtenMs;
    if (this.waiting.size > 0) for (const waiter of this.waiting) if (position >= waiter.position) waiter.resolve();
  }
}

function keyOf(record: LogRecord): string {
  if (record.kind !== 'change') return record.kind;
  const { change } = record;
  return change.kind === 'append' ? `append ${change.list} ${change.value}` : `set ${change.register}`;
}

function through(port: number): ISocketFactory {
  return ({ onConnect }) => {
    const socket = net.connect({ host: '127.0.0.1', port }, onConnect);
    socket.setKeepAlive(true);
    return socket;
  };
}
