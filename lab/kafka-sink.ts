/** Sends telemetry records to Kafka without ever standing in the way: what cannot go out now is dropped and counted. */
import type { Producer } from 'kafkajs';

const maxSendsInFlight = 4;
const firstReconnectMs = 500;
const longestReconnectMs = 5000;

export interface SinkCounters {
  sent: number;
  dropped: number;
}

export class KafkaSink {
  readonly counters: SinkCounters = { sent: 0, dropped: 0 };
  private producer: Producer | undefined;
  private inFlight = 0;
  private stopped = false;
  private reconnectTimer: NodeJS.Timeout | undefined;

  /** Begins to connect in the background, again and again while Kafka is away. */
  constructor(
    private readonly brokers: string[],
    private readonly clientId: string,
    private readonly topic: string,
  ) {
    this.connect(firstReconnectMs);
  }

  /** Sends one record, or drops it if Kafka is away or slow. Returns at once. */
  send(key: string, value: Buffer | string): void {
    this.sendAll([{ key, value }]);
  }

  /** Sends the records in one request, or drops them all. Returns at once. */
  sendAll(messages: { key: string; value: Buffer | string }[]): void {
    if (messages.length === 0) return;
    if (!this.producer || this.inFlight >= maxSendsInFlight) {
      this.counters.dropped += messages.length;
      return;
    }
    this.inFlight++;
    this.producer
      .send({ topic: this.topic, acks: 1, timeout: 2000, messages })
      .then(
        () => (this.counters.sent += messages.length),
        () => (this.counters.dropped += messages.length),
      )
      .finally(() => this.inFlight--);
  }

  async stop(): Promise<void> {
    this.stopped = true;
    clearTimeout(this.reconnectTimer);
    await this.producer?.disconnect().catch(() => undefined);
  }

  private connect(retryInMs: number): void {
    void this.tryToConnect().catch(() => {
      if (this.stopped) return;
      this.reconnectTimer = setTimeout(() => this.connect(Math.min(2 * retryInMs, longestReconnectMs)), retryInMs);
    });
  }

  private async tryToConnect(): Promise<void> {
    // Loaded late: the service must answer before its telemetry is ready.
    const { Kafka, Partitioners, logLevel } = await import('kafkajs');
    const kafka = new Kafka({
      clientId: this.clientId,
      brokers: this.brokers,
      logLevel: logLevel.NOTHING,
      connectionTimeout: 2000,
      requestTimeout: 3000,
      retry: { retries: 1, initialRetryTime: 200 },
    });
    const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner });
    await producer.connect();
    if (this.stopped) await producer.disconnect();
    else this.producer = producer;
  }
}
