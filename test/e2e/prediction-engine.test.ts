/** The scoring loop on a real Kafka: scores out, dead letters with reasons, no commit before the signal, same scores after a restart. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { Kafka, logLevel, type Admin, type Producer } from 'kafkajs';
import { pino } from 'pino';
import { policySchema } from '../../blueprints/schema';
import { settingsSchema } from '../../blueprints/settings';
import { untilTopicsAreLed } from '../../local/kafka';
import { startStack, type Stack } from '../../local/stack';
import { waitUntil } from '../../local/wait';
import type { CellDirectory } from '../../prediction/cell-directory';
import type { RiskEvent, Score } from '../../prediction/contracts';
import { ScoringEngine } from '../../prediction/engine';
import { historySteps } from '../../prediction/feature-spec';
import { KafkaSource } from '../../prediction/kafka-source';
import { Model } from '../../prediction/model';
import { KafkaPublisher } from '../../prediction/publisher';
import { KafkaWindowStore } from '../../prediction/window-store';
import { writeTinyModel } from '../support/tiny-model';

const policy = policySchema.parse({ autonomy: 'act' });
const directory: CellDirectory = {
  find: (cell) =>
    cell.startsWith('cell-')
      ? { service: 'checkout', policy, sloLatencyMs: 250, sloErrorRatio: 0.05, synthetic: cell === 'cell-synthetic' }
      : undefined,
  refresh: async () => undefined,
};
const log = pino({ level: 'silent' });

describe('Scoring engine on Kafka', function () {
  this.timeout(120_000);
  let stack: Stack;
  let dir: string;
  let kafka: Kafka;
  let producer: Producer;
  let admin: Admin;
  let model: Model;
  let run = 0;
  const engines: { engine: ScoringEngine; publisher: KafkaPublisher }[] = [];

  before(async () => {
    dir = mkdtempSync(join(tmpdir(), 'understudy-engine-'));
    stack = await startStack({ parts: ['kafka'] });
    kafka = new Kafka({ brokers: stack.settings.kafka.brokers, logLevel: logLevel.NOTHING });
    // What is written twice would be counted twice.
    producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 });
    admin = kafka.admin();
    await producer.connect();
    await admin.connect();
    model = await Model.load(writeTinyModel(dir));
  });

  afterEach(async () => {
    for (const { engine, publisher } of engines.splice(0)) {
      await engine.stop({ commit: false });
      await publisher.disconnect();
    }
  });

  after(async () => {
    await producer?.disconnect();
    await admin?.disconnect();
    await model?.release();
    await stack?.stop();
    rmSync(dir, { recursive: true, force: true });
  });

  async function freshTopics() {
    const name = `t${++run}`;
    const topics = {
      telemetry: `${name}.json`,
      scores: `${name}.scores`,
      letters: `${name}.dead`,
      windows: `${name}.windows`,
      group: `${name}.group`,
    };
    const names = [topics.telemetry, topics.scores, topics.letters, topics.windows];
    await admin.createTopics({
      waitForLeaders: false,
      topics: names.map((topic) => ({ topic, numPartitions: 2, replicationFactor: 1 })),
    });
    await untilTopicsAreLed(admin, names);
    return topics;
  }
  type Topics = Awaited<ReturnType<typeof freshTopics>>;

  async function startEngine(
    topics: Topics,
    notify: (event: RiskEvent) => Promise<void>,
    { isKeeping = false, maxFutureS = 5 } = {},
  ): Promise<ScoringEngine> {
    const settings = settingsSchema.parse({
      ...stack.settings,
      scoring: { ...stack.settings.scoring, maxFutureS, snapshotEverySteps: 3 },
      kafka: { ...stack.settings.kafka, telemetry: [{ topic: topics.telemetry, decoder: 'detect' }] },
    });
    const source = new KafkaSource({
      kafka,
      groupId: topics.group,
      topics: [topics.telemetry],
      rebuildMs: historySteps * 1000,
      log,
    });
    const publisher = new KafkaPublisher({ kafka, scoresTopic: topics.scores, deadLetterTopic: topics.letters });
    const windows = isKeeping
      ? new KafkaWindowStore({ kafka, topic: topics.windows, groupId: topics.group })
      : undefined;
    const notifier = { notify };
    const engine = new ScoringEngine({ settings, source, model, directory, publisher, notifier, windows, log });
    engines.push({ engine, publisher });
    await engine.start();
    return engine;
  }

  /** A minute of a leaking cell that ended just now; heap from 40 % to 97 % of its limit. */
  async function leak(topics: Topics, cell: string, endMs: number): Promise<void> {
    const messages = Array.from({ length: 60 }, (_, s) => {
      const atMs = endMs - (59 - s) * 1000;
      const heap = 64e6 * (0.4 + (0.57 * s) / 59);
      const metrics = { 'heap.used_bytes': heap, 'heap.limit_bytes': 64e6, 'http.request_rate': 100 };
      const ts = new Date(atMs).toISOString();
      const value = JSON.stringify({ schema: 'understudy.telemetry/v1', cell, instance: `${cell}-1`, ts, metrics });
      return { key: cell, value, timestamp: String(atMs) };
    });
    await producer.send({ topic: topics.telemetry, messages });
  }

  async function readAll(topic: string): Promise<{ value: string; headers: Record<string, string> }[]> {
    const found: { value: string; headers: Record<string, string> }[] = [];
    const ends = await admin.fetchTopicOffsets(topic);
    const expected = ends.reduce((n, { low, high }) => n + Number(high) - Number(low), 0);
    const consumer = kafka.consumer({ groupId: `reader-${Date.now()}-${Math.random()}` });
    await consumer.connect();
    await consumer.subscribe({ topics: [topic], fromBeginning: true });
    await consumer.run({
      eachMessage: async ({ message }) => {
        const headers = Object.entries(message.headers ?? {}).map(([k, v]) => [k, String(v)] as const);
        found.push({ value: String(message.value), headers: Object.fromEntries(headers) });
      },
    });
    await waitUntil(() => found.length >= expected, { withinMs: 20_000, what: `${topic} is read` });
    await consumer.disconnect();
    return found;
  }

  /** Scores by tick, up to `untilMs`. */
  async function scoresOf(topics: Topics, cell: string, untilMs: number): Promise<Map<string, Score[]>> {
    const byTick = new Map<string, Score[]>();
    for (const { value } of await readAll(topics.scores)) {
      const score = JSON.parse(value) as Score;
      if (score.cell !== cell || Date.parse(score.ts) > untilMs) continue;
      byTick.set(score.ts, [...(byTick.get(score.ts) ?? []), score]);
    }
    return byTick;
  }

  const committed = async (topics: Topics): Promise<number> => {
    const [topic] = await admin.fetchOffsets({ groupId: topics.group, topics: [topics.telemetry] });
    return (topic?.partitions ?? []).reduce((n, { offset }) => n + Math.max(0, Number(offset)), 0);
  };

  const membersOf = async (topics: Topics): Promise<number> => {
    const { groups } = await admin.describeGroups([topics.group]);
    return groups[0]?.members.length ?? 0;
  };

  it('scores a leak higher and higher, and tells of the risk with its level', async () => {
    const topics = await freshTopics();
    const events: RiskEvent[] = [];
    const endMs = Math.floor(Date.now() / 1000) * 1000;
    await leak(topics, 'cell-a', endMs);
    await leak(topics, 'cell-synthetic', endMs);
    await startEngine(topics, async (event) => void events.push(event));
    await waitUntil(() => events.some((e) => e.level === 'shift'), { withinMs: 30_000, what: 'the risk is told' });
    await waitUntil(async () => (await committed(topics)) === 120, { withinMs: 20_000, what: 'all is committed' });
    expect(
      events.every((e) => e.cell === 'cell-a' && e.service === 'checkout'),
      'no event for a synthetic cell',
    ).to.equal(true);
    expect(new Set(events.map((e) => e.episodeId)).size).to.equal(1);
    expect(new Set(events.map((e) => e.eventId)).size).to.equal(events.length);
    const scores = await scoresOf(topics, 'cell-a', endMs);
    const at = (ms: number) => scores.get(new Date(ms).toISOString())?.[0]?.probability['60'] ?? NaN;
    expect(at(endMs - 50_000)).to.be.lessThan(0.05);
    expect(at(endMs)).to.be.greaterThan(0.9);
    expect((await scoresOf(topics, 'cell-synthetic', endMs)).size).to.equal(60);
  });

  it('dead-letters what it cannot use, with the reason and the original bytes, and goes on', async () => {
    const topics = await freshTopics();
    const record = (cell: string, atMs: number) =>
      JSON.stringify({
        schema: 'understudy.telemetry/v1',
        cell,
        instance: 'x',
        ts: new Date(atMs).toISOString(),
        metrics: { 'fd.used': 1 },
      });
    const bad = [
      'rubbish',
      '{"hello":1}',
      record('nobody', Date.now()),
      record('cell-a', Date.now() - 3_600_000),
      record('cell-a', Date.now() + 3_600_000),
    ];
    await producer.send({ topic: topics.telemetry, messages: bad.map((value) => ({ value })) });
    await producer.send({ topic: topics.telemetry, messages: [{ value: 'x'.repeat(500) + '{'.padEnd(1) }] });
    const engine = await startEngine(topics, async () => undefined);
    await waitUntil(() => engine.counters.get('dead-letters') >= 6, { withinMs: 30_000, what: 'all are refused' });
    await waitUntil(async () => (await committed(topics)) === 6, { withinMs: 20_000, what: 'all is committed' });
    const letters = await readAll(topics.letters);
    const reasonOf = (value: string) => letters.find((l) => l.value === value)?.headers['understudy-reason'];
    expect(bad.map(reasonOf).slice(1)).to.deep.equal(['unknown-format', 'unknown-cell', 'stale', 'future']);
    expect(reasonOf('rubbish')).to.be.a('string');
    expect(letters.every((l) => l.headers['understudy-topic'] === topics.telemetry)).to.equal(true);
  });

  it('dead-letters a record that is itself as large as the broker takes', async () => {
    const topics = await freshTopics();
    const large = Buffer.alloc(1_040_000, 120);
    for (const message of [
      { key: large, value: 'key' },
      { value: 'headers', headers: { h: large } },
      { value: large },
    ]) {
      await producer.send({ topic: topics.telemetry, messages: [{ ...message, partition: 0 }] });
    }
    await startEngine(topics, async () => undefined);
    await waitUntil(async () => (await committed(topics)) === 3, { withinMs: 30_000, what: 'all is committed' });
    const letters = await readAll(topics.letters);
    // A record that is read again before it is committed leaves another letter.
    const offsets = new Set(letters.map(({ headers }) => headers['understudy-offset']));
    expect([...offsets].sort()).to.deep.equal(['0', '1', '2']);
    expect(letters.every((l) => l.headers['understudy-topic'] === topics.telemetry)).to.equal(true);
  });

  it('goes on ticking when telemetry written in transactions falls silent', async () => {
    const topics = await freshTopics();
    const options = { transactionalId: topics.group, idempotent: true, maxInFlightRequests: 1 };
    const transactional = kafka.producer(options);
    await transactional.connect();
    const endMs = Math.floor(Date.now() / 1000) * 1000;
    const ts = new Date(endMs).toISOString();
    const metrics = { 'fd.used': 1 };
    const value = JSON.stringify({ schema: 'understudy.telemetry/v1', cell: 'cell-a', instance: 'x', ts, metrics });
    const good = await transactional.transaction();
    await good.send({ topic: topics.telemetry, messages: [{ key: 'cell-a', value }] });
    await good.commit();
    // An aborted one behind it: a batch of which nothing is handed over.
    const bad = await transactional.transaction();
    await bad.send({ topic: topics.telemetry, messages: [{ key: 'cell-a', value }] });
    await bad.abort();
    await transactional.disconnect();
    const engine = await startEngine(topics, async () => undefined);
    const lastTick = () => engine.progress().lastTickMs ?? 0;
    await waitUntil(() => lastTick() > endMs + 5_000, { withinMs: 40_000, what: 'ticks follow the clock' });
  });

  it('commits nothing past a risk that nobody has accepted, and everything once it is', async () => {
    const topics = await freshTopics();
    let isAway = true;
    let refused = 0;
    await leak(topics, 'cell-a', Math.floor(Date.now() / 1000) * 1000);
    const engine = await startEngine(topics, async () => {
      if (!isAway) return;
      refused += 1;
      throw new Error('away');
    });
    await waitUntil(() => refused >= 3 && engine.counters.get('ticks') >= 60, {
      withinMs: 30_000,
      what: 'tries are made',
    });
    expect(await committed(topics)).to.be.lessThan(60);
    isAway = false;
    await waitUntil(async () => (await committed(topics)) === 60, { withinMs: 20_000, what: 'all is committed' });
  });

  it('gives the same scores when a restarted engine reads the telemetry again', async () => {
    const topics = await freshTopics();
    const endMs = Math.floor(Date.now() / 1000) * 1000;
    await leak(topics, 'cell-a', endMs);
    const never = () => Promise.reject(new Error('away'));
    const first = await startEngine(topics, never);
    await waitUntil(() => first.counters.get('ticks') >= 60, { withinMs: 30_000, what: 'the first has scored' });
    for (const { engine, publisher } of engines.splice(0)) {
      await engine.stop({ commit: false });
      await publisher.disconnect();
    }
    const second = await startEngine(topics, async () => undefined);
    const done = () => second.counters.get('ticks') + second.counters.get('ticks.rebuilt') >= 60;
    await waitUntil(done, { withinMs: 30_000, what: 'the second has scored' });
    await waitUntil(async () => (await committed(topics)) === 60, { withinMs: 20_000, what: 'all is committed' });
    const scores = await scoresOf(topics, 'cell-a', endMs);
    expect(scores.size).to.equal(60);
    const twice = [...scores.values()].filter((s) => s.length > 1);
    expect(twice).to.not.be.empty;
    for (const [one, other] of twice) expect(other).to.deep.equal(one);
  });

  it('goes on from its window snapshots after a kill and in a group that grows, with the scores of one that never stopped', async () => {
    const topics = await freshTopics();
    const reference = { ...topics, scores: topics.letters, group: `${topics.group}.reference` };
    const cells = ['cell-a', 'cell-b'];
    const beginMs = Math.floor(Date.now() / 1000) * 1000 - 60_000;
    /** Each cell in a partition of its own. */
    const write = async (fromS: number, toS: number) => {
      const messages = cells.flatMap((cell, partition) =>
        Array.from({ length: toS - fromS }, (_, i) => {
          const s = fromS + i;
          const atMs = beginMs + s * 1000;
          const metrics = { 'heap.used_bytes': 20e6 + (s % 7) * 1e5 * (partition + 1), 'heap.limit_bytes': 64e6 };
          const ts = new Date(atMs).toISOString();
          const value = JSON.stringify({ schema: 'understudy.telemetry/v1', cell, instance: cell, ts, metrics });
          return { key: cell, partition, value, timestamp: String(atMs) };
        }),
      );
      await producer.send({ topic: topics.telemetry, messages });
    };
    const quiet = async () => undefined;
    const told = async () => {
      const [topic] = await admin.fetchOffsets({ groupId: topics.group, topics: [topics.telemetry] });
      return (topic?.partitions ?? []).filter(({ metadata }) => metadata?.includes('"windows"')).length;
    };
    // A part lies ahead of the clock: it waits for its ticks while the snapshot is taken.
    await write(0, 150);
    const first = await startEngine(topics, quiet, { isKeeping: true, maxFutureS: 300 });
    await waitUntil(async () => (await told()) === 2, { withinMs: 30_000, what: 'a snapshot is told of' });
    await first.stop({ commit: false });
    // Or the second would share the partitions with one that has ended, and restore twice.
    await waitUntil(async () => (await membersOf(topics)) === 0, { withinMs: 30_000, what: 'the first has left' });
    await write(150, 200);
    const second = await startEngine(topics, quiet, { isKeeping: true, maxFutureS: 300 });
    await waitUntil(() => second.counters.get('ticks') >= 3, { withinMs: 30_000, what: 'the second scores' });
    expect(second.counters.get('windows.restored')).to.equal(2);
    expect(second.counters.get('windows.refused')).to.equal(0);
    expect(second.counters.get('records'), 'only what lies behind the snapshot').to.be.below(2 * 150);
    const third = await startEngine(topics, quiet, { isKeeping: true, maxFutureS: 300 });
    const restored = () => third.counters.get('windows.restored');
    await waitUntil(() => restored() >= 1 && third.counters.get('ticks') >= 3, {
      withinMs: 30_000,
      what: 'the third scores its part',
      instead: () => JSON.stringify(third.progress()),
    });
    const untilMs = (third.progress().lastTickMs ?? 0) - 1_000;
    for (const { engine, publisher } of engines.splice(0)) {
      await engine.stop({ commit: true });
      await publisher.disconnect();
    }
    const never = await startEngine(reference, quiet, { maxFutureS: 300 });
    await waitUntil(() => (never.progress().lastTickMs ?? 0) >= untilMs, { withinMs: 30_000, what: 'all is scored' });
    for (const cell of cells) {
      const expected = await scoresOf(reference, cell, untilMs);
      const said = await scoresOf(topics, cell, untilMs);
      expect([...said.keys()].sort()).to.deep.equal([...expected.keys()].sort());
      for (const [ts, scores] of said) {
        for (const score of scores) expect(score, ts).to.deep.equal(expected.get(ts)?.[0]);
      }
    }
  });
});
