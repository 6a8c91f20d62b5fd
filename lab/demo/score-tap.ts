/** Listens to the published scores, as any user of the topic could. */
import { Kafka, logLevel, type Consumer } from 'kafkajs';
import type { Score } from '../../prediction/contracts';

export class ScoreTap {
  private readonly listeners = new Map<string, Set<(score: Score) => void>>();

  private constructor(private readonly consumer: Consumer) {}

  static async open(brokers: string[], topic: string): Promise<ScoreTap> {
    const kafka = new Kafka({ clientId: 'understudy-demo', brokers, logLevel: logLevel.NOTHING });
    const tap = new ScoreTap(
      kafka.consumer({ groupId: `understudy-demo-${process.pid}-${Date.now()}`, maxWaitTimeInMs: 200 }),
    );
    await tap.consumer.connect();
    await tap.consumer.subscribe({ topic, fromBeginning: true });
    await tap.consumer.run({
      autoCommit: false,
      eachMessage: async ({ message }) => {
        if (!message.value) return;
        const score = JSON.parse(message.value.toString()) as Score;
        for (const listener of tap.listeners.get(score.cell) ?? []) listener(score);
      },
    });
    return tap;
  }

  /** Calls the listener with each new score of the cell; returns how to stop. */
  subscribe(cell: string, listener: (score: Score) => void): () => void {
    const set = this.listeners.get(cell) ?? new Set();
    this.listeners.set(cell, set.add(listener));
    return () => void set.delete(listener);
  }

  async close(): Promise<void> {
    await this.consumer.disconnect();
  }
}
