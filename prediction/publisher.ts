/** Where scores and dead letters go. */
import type { Kafka, Producer } from 'kafkajs';
import type { Score } from './contracts';
import { bareLetterRecord, letterRecord, type DeadLetter } from './dead-letter';
import type { ShadowScore } from './shadow';
import type { ModelHealth } from './side-channel';

export interface ScorePublisher {
  scores(scores: readonly Score[]): Promise<void>;
  deadLetters(letters: readonly DeadLetter[]): Promise<void>;
  /** What a challenger says; nobody decides by it. */
  shadowScores?(scores: readonly ShadowScore[]): Promise<void>;
  modelHealth?(health: ModelHealth): Promise<void>;
}

export interface KafkaPublisherOptions {
  kafka: Kafka;
  scoresTopic: string;
  deadLetterTopic: string;
  /** Without a topic, that is not published. */
  shadowScoresTopic?: string | undefined;
  modelHealthTopic?: string | undefined;
}

/** So many scores, even with drivers and long names, stay below what the broker takes at once. */
const scoresPerSend = 500;

/** Answers of the broker that stay the same however often the same bytes are sent. */
const contentRefusals = new Set(['MESSAGE_TOO_LARGE', 'RECORD_LIST_TOO_LARGE', 'INVALID_RECORD']);

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

  scores(scores: readonly Score[]): Promise<void> {
    return this.byCell(this.options.scoresTopic, scores);
  }

  async shadowScores(scores: readonly ShadowScore[]): Promise<void> {
    const { shadowScoresTopic } = this.options;
    if (shadowScoresTopic !== undefined) await this.byCell(shadowScoresTopic, scores);
  }

  async modelHealth(health: ModelHealth): Promise<void> {
    const { modelHealthTopic: topic } = this.options;
    if (topic === undefined) return;
    await this.connect();
    await this.producer.send({ topic, acks: -1, messages: [{ key: health.model, value: JSON.stringify(health) }] });
  }

  private async byCell(topic: string, scores: readonly (Score | ShadowScore)[]): Promise<void> {
    await this.connect();
    for (let i = 0; i < scores.length; i += scoresPerSend) {
      const some = scores.slice(i, i + scoresPerSend);
      const messages = some.map((score) => ({ key: score.cell, value: JSON.stringify(score) }));
      await this.producer.send({ topic, acks: -1, messages });
    }
  }

  async deadLetters(letters: readonly DeadLetter[]): Promise<void> {
    await this.connect();
    const topic = this.options.deadLetterTopic;
    // One at a time: a hundred large ones together would exceed what a request may hold.
    for (const letter of letters) {
      try {
        await this.producer.send({ topic, acks: -1, messages: [letterRecord(letter)] });
      } catch (error) {
        // Tried again, it would be refused again, and all scoring would wait for this one record.
        if (!isContentRefused(error)) throw error;
        await this.producer.send({ topic, acks: -1, messages: [bareLetterRecord(letter)] });
      }
    }
  }
}

/** Whether these bytes can never be written, in contrast to a broker that is away or does not let us write now. */
export function isContentRefused(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  // What kafkajs cannot encode.
  if (error instanceof TypeError || error instanceof RangeError) return true;
  const { type } = error as { type?: unknown };
  return (typeof type === 'string' && contentRefusals.has(type)) || isContentRefused(error.cause);
}
