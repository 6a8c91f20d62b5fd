/** Where scores and dead letters go. */
import type { Kafka, Producer } from 'kafkajs';
import type { Score } from './contracts';
import type { RecordHeaders } from './decode/decoder';

export interface DeadLetter {
  reason: string;
  detail: string;
  topic: string;
  partition: number;
  offset: number;
  decoder: string;
  seenAtMs: number;
  key: Buffer | null;
  value: Buffer | null;
  headers: RecordHeaders;
}

export interface ScorePublisher {
  scores(scores: readonly Score[]): Promise<void>;
  deadLetters(letters: readonly DeadLetter[]): Promise<void>;
}

export interface KafkaPublisherOptions {
  kafka: Kafka;
  scoresTopic: string;
  deadLetterTopic: string;
}

/** A record that was too large to be read is too large to be written with headers: its beginning has to do. */
const largestLetterBytes = 900_000;

export class KafkaPublisher implements ScorePublisher {
  private readonly producer: Producer;
  private connecting: Promise<void> | undefined;

  constructor(private readonly options: KafkaPublisherOptions) {
    this.producer = options.kafka.producer({ allowAutoTopicCreation: false, idempotent: true, maxInFlightRequests: 1 });
  }

  disconnect(): Promise<void> {
    return this.producer.disconnect();
  }

  /** At the first use, and again after a failure: the broker may come later than we. */
  private async connect(): Promise<void> {
    this.connecting ??= this.producer.connect();
    try {
      await this.connecting;
    } catch (error) {
      this.connecting = undefined;
      throw error;
    }
  }

  async scores(scores: readonly Score[]): Promise<void> {
    await this.connect();
    const messages = scores.map((score) => ({ key: score.cell, value: JSON.stringify(score) }));
    await this.producer.send({ topic: this.options.scoresTopic, acks: -1, messages });
  }

  async deadLetters(letters: readonly DeadLetter[]): Promise<void> {
    await this.connect();
    // One at a time: a hundred large ones together would exceed what a request may hold.
    for (const letter of letters) {
      const truncated = (letter.value?.length ?? 0) > largestLetterBytes;
      const headers = {
        ...letter.headers,
        'understudy-reason': letter.reason,
        'understudy-detail': letter.detail,
        'understudy-topic': letter.topic,
        'understudy-partition': String(letter.partition),
        'understudy-offset': String(letter.offset),
        'understudy-decoder': letter.decoder,
        'understudy-seen-at': new Date(letter.seenAtMs).toISOString(),
        ...(truncated ? { 'understudy-truncated-from-bytes': String(letter.value?.length) } : {}),
      };
      const value = truncated ? (letter.value?.subarray(0, largestLetterBytes) ?? null) : letter.value;
      await this.producer.send({
        topic: this.options.deadLetterTopic,
        acks: -1,
        messages: [{ key: letter.key, value, headers }],
      });
    }
  }
}
