/** The whole way on a real Kafka: samples per second from record bytes to committed scores, and the way back after a restart. */
import { Session, type Profiler } from 'node:inspector/promises';
import { Kafka, logLevel, type Admin, type Producer } from 'kafkajs';
import { pino } from 'pino';
import { settingsSchema } from '../blueprints/settings';
import { untilTopicsAreLed } from '../local/kafka';
import type { Stack } from '../local/stack';
import { waitUntil } from '../local/wait';
import { ScoringEngine } from '../prediction/engine';
import { historySteps } from '../prediction/feature-spec';
import { KafkaSource } from '../prediction/kafka-source';
import type { Model } from '../prediction/model';
import { KafkaPublisher } from '../prediction/publisher';
import { KafkaWindowStore } from '../prediction/window-store';
import { atLeast, atMost, cpuMs, plain, type Figure } from './figures';
import { cellName, metricsPerCell, otlpRecordOf, recordOf } from './telemetry';
import { directory } from './ticks';

const log = pino({ level: 'silent' });
const partitions = 4;
const recordsPerSend = 1_000;

interface Topics {
  telemetry: string;
  scores: string;
  letters: string;
  windows: string;
}

async function createTopics(admin: Admin, name: string): Promise<Topics> {
  const topics = {
    telemetry: `${name}.telemetry`,
    scores: `${name}.scores`,
    letters: `${name}.dead`,
    windows: `${name}.windows`,
  };
  const names = Object.values(topics);
  await admin.createTopics({
    waitForLeaders: false,
    topics: names.map((topic) => ({ topic, numPartitions: partitions, replicationFactor: 1 })),
  });
  await untilTopicsAreLed(admin, names);
  return topics;
}

type WriteRecord = (cell: number, second: number, atMs: number) => string;

/** Writes so many seconds of so many cells that end now. Answers the time of the last. */
async function fill(kafka: Kafka, topic: string, cells: number, seconds: number, write: WriteRecord): Promise<number> {
  const producer = kafka.producer({ maxInFlightRequests: 4 });
  await producer.connect();
  const endMs = Math.floor(Date.now() / 1000) * 1000;
  let messages: { key: string; value: string; timestamp: string }[] = [];
  const send = async () => {
    await producer.send({ topic, acks: 1, messages });
    messages = [];
  };
  for (let second = 0; second < seconds; second++) {
    const atMs = endMs - (seconds - 1 - second) * 1000;
    for (let cell = 0; cell < cells; cell++) {
      messages.push({ key: cellName(cell), value: write(cell, second, atMs), timestamp: String(atMs) });
      if (messages.length >= recordsPerSend) await send();
    }
  }
  if (messages.length > 0) await send();
  await producer.disconnect();
  return endMs;
}

class Run {
  readonly engine: ScoringEngine;
  private readonly publisher: KafkaPublisher;
  private readonly windows: KafkaWindowStore;

  constructor(stack: Stack, kafka: Kafka, model: Model, topics: Topics) {
    const settings = settingsSchema.parse({
      ...stack.settings,
      kafka: { ...stack.settings.kafka, telemetry: [{ topic: topics.telemetry, decoder: 'detect' }] },
      scoring: { ...stack.settings.scoring, maxSampleAgeS: 3_600 },
    });
    const source = new KafkaSource({
      kafka,
      groupId: `${topics.telemetry}.group`,
      topics: [topics.telemetry],
      rebuildMs: historySteps * 1000,
      log,
    });
    this.publisher = new KafkaPublisher({ kafka, scoresTopic: topics.scores, deadLetterTopic: topics.letters });
    const notifier = { notify: async () => undefined };
    const { publisher } = this;
    const windows = new KafkaWindowStore({ kafka, topic: topics.windows, groupId: `${topics.telemetry}.group` });
    this.windows = windows;
    this.engine = new ScoringEngine({ settings, source, model, directory, publisher, notifier, windows, log });
  }

  /** Ends without a last commit. */
  async kill(): Promise<void> {
    await this.engine.stop({ commit: false });
    await Promise.all([this.publisher.disconnect(), this.windows.close()]);
  }

  async stop(): Promise<void> {
    await this.engine.stop({ commit: true });
    await Promise.all([this.publisher.disconnect(), this.windows.close()]);
  }
}

/** Share of the CPU's time by part of the way, from a sampling profile. */
function shares(profile: Profiler.Profile): Figure[] {
  const parts: [name: string, is: (url: string, fn: string) => boolean][] = [
    ['kafkajs', (url) => url.includes('kafkajs')],
    ['decoding', (url) => url.includes('/prediction/decode/') || url.includes('/prediction/intake')],
    [
      'features and windows',
      (url) =>
        /prediction\/(features|track|trend|baseline|cell-window|cohort|cross-f|metric-f|unit-w|step-b)/.test(url),
    ],
    ['ONNX', (url) => url.includes('onnxruntime')],
    ['scores and ticks', (url) => url.includes('/prediction/')],
    ['garbage collection', (_url, fn) => fn === '(garbage collector)'],
    ['waiting', (_url, fn) => fn === '(idle)'],
  ];
  const byPart = new Map<string, number>();
  const byId = new Map(profile.nodes.map((node) => [node.id, node.callFrame]));
  let total = 0;
  profile.samples?.forEach((id, i) => {
    const frame = byId.get(id);
    const part = parts.find(([, is]) => frame && is(frame.url, frame.functionName))?.[0] ?? 'the rest';
    const us = profile.timeDeltas?.[i] ?? 0;
    if (part === 'waiting') return;
    total += us;
    byPart.set(part, (byPart.get(part) ?? 0) + us);
  });
  return [...byPart]
    .sort(([, a], [, b]) => b - a)
    .map(([part, us]) => plain(`  of it ${part}`, (100 * us) / Math.max(1, total), '%'));
}

async function throughput(
  stack: Stack,
  kafka: Kafka,
  admin: Admin,
  model: Model,
  format: string,
  write: WriteRecord,
): Promise<Figure[]> {
  const cells = 1_000;
  const seconds = 60;
  const topics = await createTopics(admin, `bench.${format}`);
  const endMs = await fill(kafka, topics.telemetry, cells, seconds, write);
  const samples = cells * seconds * metricsPerCell;
  const run = new Run(stack, kafka, model, topics);
  const { engine } = run;
  await engine.start();
  await waitUntil(() => engine.counters.get('records') > 0, { withinMs: 60_000, what: 'telemetry is read' });
  const session = new Session();
  session.connect();
  await session.post('Profiler.enable');
  await session.post('Profiler.start');
  const readBefore = engine.counters.get('samples');
  const startedCpu = cpuMs();
  const started = performance.now();
  const isDone = () => engine.counters.get('samples') >= samples && (engine.progress().lastTickMs ?? 0) >= endMs;
  await waitUntil(isDone, { withinMs: 300_000, everyMs: 20, what: 'all telemetry is scored' });
  const groupId = `${topics.telemetry}.group`;
  const committed = async () => {
    const [topic] = await admin.fetchOffsets({ groupId, topics: [topics.telemetry] });
    return (topic?.partitions ?? []).reduce((n, { offset }) => n + Math.max(0, Number(offset)), 0);
  };
  const isCommitted = async () => (await committed()) >= cells * seconds;
  await waitUntil(isCommitted, { withinMs: 30_000, everyMs: 50, what: 'all is committed' });
  const usedMs = cpuMs() - startedCpu;
  const tookMs = performance.now() - started;
  const { profile } = await session.post('Profiler.stop');
  session.disconnect();
  await run.stop();
  const read = samples - readBefore;
  return [
    atLeast(`${format}: samples from Kafka to committed score`, (read * 1000) / usedMs, '/s of CPU', 100_000),
    plain(`${format}: the same by the clock`, (read * 1000) / tookMs, '/s'),
    ...shares(profile),
  ];
}

/** Writes a record per cell each second, until stopped. */
function feed(producer: Producer, topic: string, cells: number, fromMs: number): () => Promise<void> {
  let nextMs = fromMs;
  let sending = Promise.resolve();
  const send = async () => {
    for (; nextMs <= Date.now(); nextMs += 1000) {
      const messages = Array.from({ length: cells }, (_, cell) => ({
        key: cellName(cell),
        value: recordOf(cell, nextMs / 1000, nextMs),
        timestamp: String(nextMs),
      }));
      await producer.send({ topic, acks: 1, messages });
    }
  };
  const timer = setInterval(() => void (sending = sending.then(send)), 200);
  return async () => {
    clearInterval(timer);
    await sending;
  };
}

/** Kills a worker that scores live telemetry, and waits until another one scores ticks that nobody has scored. */
async function restart(stack: Stack, kafka: Kafka, admin: Admin, model: Model): Promise<Figure[]> {
  const cells = 1_000;
  const topics = await createTopics(admin, 'bench.restart');
  const endMs = await fill(kafka, topics.telemetry, cells, historySteps, recordOf);
  const producer = kafka.producer();
  await producer.connect();
  const stopFeed = feed(producer, topics.telemetry, cells, endMs + 1000);
  const first = new Run(stack, kafka, model, topics);
  await first.engine.start();
  const isLive = () => (first.engine.progress().lastTickMs ?? 0) >= Date.now() - 3_000;
  await waitUntil(isLive, { withinMs: 300_000, everyMs: 50, what: 'the worker has caught up' });
  const { counters } = first.engine;
  const takenBefore = counters.get('windows.cells');
  const bytesBefore = counters.get('windows.bytes');
  // The worst moment to be killed: just before the next snapshot counts.
  const snapshots = counters.get('windows.snapshots') + 1;
  const isNext = () => counters.get('windows.snapshots') > snapshots;
  await waitUntil(isNext, { withinMs: 120_000, everyMs: 20, what: 'two snapshots are written' });
  const bytesPerCell = (counters.get('windows.bytes') - bytesBefore) / (counters.get('windows.cells') - takenBefore);
  await first.kill();
  const second = new Run(stack, kafka, model, topics);
  const startedMs = Date.now();
  const startedCpu = cpuMs();
  await second.engine.start();
  // Back in service: it scores ticks that nobody has scored, and is as near to the present as it was.
  const isBack = () =>
    second.engine.counters.get('scores') >= cells && (second.engine.progress().lastTickMs ?? 0) >= Date.now() - 3_000;
  await waitUntil(isBack, { withinMs: 300_000, everyMs: 20, what: 'scores come again' });
  const read = second.engine.counters.get('records') / cells;
  const restored = second.engine.counters.get('windows.restored');
  const figures = [
    atMost(`restart with ${cells} cells, killed`, (Date.now() - startedMs) / 1000, 's', 10),
    plain('  of it CPU', (cpuMs() - startedCpu) / 1000, 's'),
    plain('  cells that went on from a snapshot', restored, ''),
    plain('  telemetry read again or for the first time', read, 's'),
    plain('  snapshot per cell, compressed', bytesPerCell / 1024, 'KiB'),
  ];
  await second.stop();
  await stopFeed();
  await producer.disconnect();
  return figures;
}

/** Tells the figures of each part as soon as they are there. */
export async function benchEngine(
  stack: Stack,
  model: Model,
  only: string | undefined,
  tell: (figures: Figure[]) => void,
): Promise<void> {
  const kafka = new Kafka({ brokers: stack.settings.kafka.brokers, logLevel: logLevel.NOTHING });
  const admin = kafka.admin();
  await admin.connect();
  try {
    if (only !== 'restart') tell(await throughput(stack, kafka, admin, model, 'JSON', recordOf));
    if (only !== 'restart') tell(await throughput(stack, kafka, admin, model, 'OTLP', otlpRecordOf));
    if (only !== 'engine') tell(await restart(stack, kafka, admin, model));
  } finally {
    await admin.disconnect();
  }
}
