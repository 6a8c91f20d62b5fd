/** Carries recorded decisions to Kafka, in order, each again until the broker has it. Any number of workers may. */
import { Kafka, logLevel, type Producer } from 'kafkajs';
import type { Logger } from 'pino';
import { decisionEvent } from '../blueprints/decision-events';
import type { ConfigurationStore } from '../blueprints/store';
import type { Decision } from '../workflows/decisions';

const pollMs = 500;
/** With Kafka or Postgres away. */
const longestPauseMs = 10_000;
/** A send that takes longer has failed: the transaction around it must not stay open. */
const sendWithinMs = 10_000;

export interface DecisionPublisher {
  stop(): Promise<void>;
}

export function startDecisionPublisher(
  store: Pick<ConfigurationStore, 'publishDecisions'>,
  { brokers, topic }: { brokers: string[]; topic: string },
  log: Logger,
): DecisionPublisher {
  const kafka = new Kafka({
    clientId: 'understudy-decisions',
    brokers,
    logLevel: logLevel.NOTHING,
    connectionTimeout: 2_000,
    retry: { retries: 1 },
  });
  const producer = kafka.producer({ allowAutoTopicCreation: false, idempotent: true, maxInFlightRequests: 1 });
  const stopping = new AbortController();
  const running = publishUntil(stopping.signal, store, producer, topic, log);
  return {
    stop: async () => {
      stopping.abort();
      await running;
      await producer.disconnect().catch(() => undefined);
    },
  };
}

async function publishUntil(
  stopping: AbortSignal,
  store: Pick<ConfigurationStore, 'publishDecisions'>,
  producer: Producer,
  topic: string,
  log: Logger,
): Promise<void> {
  let pauseMs = pollMs;
  let isConnected = false;
  const publish = async (decisions: Decision[]): Promise<void> => {
    if (!isConnected) await producer.connect();
    isConnected = true;
    const messages = decisions.map((decision) => ({
      key: `${decision.service}/${decision.cell}`,
      value: JSON.stringify(decisionEvent(decision)),
      headers: { 'content-type': 'application/cloudevents+json; charset=UTF-8' },
    }));
    await producer.send({ topic, acks: -1, timeout: sendWithinMs, messages });
  };
  while (!stopping.aborted) {
    try {
      const published = await store.publishDecisions(publish);
      if (pauseMs > pollMs) log.info('decisions are published again');
      pauseMs = pollMs;
      if (published > 0) continue;
    } catch (error) {
      if (pauseMs === pollMs) log.warn(`decisions wait to be published: ${(error as Error).message}`);
      isConnected = false;
      pauseMs = Math.min(longestPauseMs, pauseMs * 2);
    }
    await pause(pauseMs, stopping);
  }
}

function pause(ms: number, stopping: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      stopping.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    stopping.addEventListener('abort', done);
    if (stopping.aborted) done();
  });
}
