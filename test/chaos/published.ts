/** Reads from Kafka which decisions of a service have been published. */
import { randomUUID } from 'node:crypto';
import { Kafka, logLevel } from 'kafkajs';
import { decisionEventSchema } from '../../blueprints/decision-events';
import { waitUntil } from '../../local/wait';
import type { Bench } from './bench';

/** Throws unless every one of them is there in the end. */
export async function untilPublished({ stack }: Bench, ids: readonly string[]): Promise<void> {
  const kafka = new Kafka({ brokers: [stack.addresses.kafka], logLevel: logLevel.NOTHING });
  const consumer = kafka.consumer({ groupId: randomUUID() });
  const missing = new Set(ids);
  await consumer.connect();
  try {
    await consumer.subscribe({ topic: stack.settings.kafka.decisionsTopic, fromBeginning: true });
    await consumer.run({
      eachMessage: async ({ message }) => {
        missing.delete(decisionEventSchema.parse(JSON.parse(message.value!.toString())).id);
      },
    });
    await waitUntil(() => missing.size === 0, { withinMs: 90_000, what: `${missing.size} decisions are published` });
  } finally {
    await consumer.disconnect();
  }
}
