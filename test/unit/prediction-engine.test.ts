/** The scoring loop over a source made for the test: what it pauses, how it stops, what holds its ticks back. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect } from 'chai';
import { pino } from 'pino';
import { policySchema } from '../../blueprints/schema';
import { settingsSchema } from '../../blueprints/settings';
import { waitUntil } from '../../local/wait';
import type { RiskEvent } from '../../prediction/contracts';
import { Counters } from '../../prediction/counters';
import { ScoringEngine, type EngineOptions } from '../../prediction/engine';
import { Model } from '../../prediction/model';
import { RiskOutbox } from '../../prediction/risk-outbox';
import type { PartitionId, Position, TelemetryRecord } from '../../prediction/telemetry-source';
import { writeTinyModel } from '../support/tiny-model';

const log = pino({ level: 'silent' });
const topic = 'telemetry';
const t0 = 1_795_328_800_000;
const settings: EngineOptions['settings'] = {
  kafka: settingsSchema.shape.kafka.parse({ brokers: ['unused:9092'], telemetry: [{ topic, decoder: 'detect' }] }),
  scoring: settingsSchema.shape.scoring.parse({}),
};
const policy = policySchema.parse({ autonomy: 'observe' });
const known = { service: 'checkout', policy, sloLatencyMs: 250, sloErrorRatio: 0.05, synthetic: false };

function record(offset: number, atMs: number, cell = 'cell-a'): TelemetryRecord {
  const ts = new Date(atMs).toISOString();
  const metrics = { 'fd.used': 1 };
  const value = JSON.stringify({ schema: 'understudy.telemetry/v1', cell, instance: 'x', ts, metrics });
  return { offset, timestampMs: atMs, key: null, value: Buffer.from(value), headers: {} };
}
/** A record a second, from an offset on. */
const seconds = (from: number, to: number, cell?: string) =>
  Array.from({ length: to - from }, (_, i) => record(from + i, t0 + (from + i) * 1000, cell));

describe('Scoring engine', () => {
  let dir: string;
  let model: Model;
  let nowMs: number;
  let paused: Set<number>;
  let commits: Position[];
  let stop: (() => Promise<void>) | undefined;

  before(async () => {
    dir = mkdtempSync(join(tmpdir(), 'understudy-engine-'));
    model = await Model.load(writeTinyModel(dir));
  });
  beforeEach(() => {
    nowMs = t0 + 1_000_000;
    paused = new Set();
    commits = [];
  });
  afterEach(async () => {
    await stop?.();
    stop = undefined;
  });
  after(async () => {
    await model?.release();
    rmSync(dir, { recursive: true, force: true });
  });

  async function begin(ends: number[], options: Partial<EngineOptions> = {}): Promise<ScoringEngine> {
    const engine = new ScoringEngine({
      settings,
      model,
      directory: { find: () => known, refresh: async () => undefined },
      publisher: { scores: async () => undefined, deadLetters: async () => undefined },
      notifier: { notify: async () => undefined },
      log,
      now: () => nowMs,
      source: {
        start: async () => undefined,
        stop: async () => undefined,
        commit: async (positions) => void commits.push(...positions),
        pause: ({ partition }: PartitionId) => void paused.add(partition),
        resume: ({ partition }: PartitionId) => void paused.delete(partition),
        trouble: () => undefined,
      },
      ...options,
    });
    stop = () => engine.stop({ commit: false });
    await engine.start();
    await engine.assigned(
      ends.map((end, partition) => ({
        topic,
        partition,
        from: 0,
        committed: null,
        committedTickMs: null,
        end,
        low: 0,
        windows: null,
      })),
    );
    return engine;
  }

  it('pauses the partition that is ahead, never the one that all wait for, whichever that is at the time', async () => {
    const engine = await begin([200, 200], { maxHeldSamples: 20 });
    const read = (partition: number, from: number, to: number) =>
      engine.records({ topic, partition }, seconds(from, to, `cell-${partition}`), 200);
    await read(1, 0, 1);
    await read(0, 0, 60);
    expect([...paused]).to.deep.equal([0]);
    await read(1, 1, 30);
    expect([...paused]).to.deep.equal([0]);
    await read(1, 30, 120);
    expect([...paused], 'the other one is behind now').to.deep.equal([1]);
  });

  it('waits for no partition that is empty', async () => {
    const engine = await begin([0, 200], { maxHeldSamples: 20 });
    await engine.records({ topic, partition: 1 }, seconds(0, 60), 200);
    expect([...paused]).to.deep.equal([]);
  });

  it('reads on once what it held is scored, also if nothing more is delivered', async () => {
    const engine = await begin([60], { maxHeldSamples: 20 });
    nowMs = t0;
    const atOnce = Array.from({ length: 60 }, (_, offset) => record(offset, t0));
    await engine.records({ topic, partition: 0 }, atOnce, 60);
    expect([...paused]).to.deep.equal([0]);
    nowMs = t0 + 120_000;
    await waitUntil(() => paused.size === 0, { withinMs: 5_000, what: 'the partition is read again' });
  });

  it('goes on ticking by the clock when a partition ends with the marker of a transaction', async () => {
    const engine = await begin([11]);
    await engine.records({ topic, partition: 0 }, seconds(0, 10), 11);
    const waits = engine.progress().lastTickMs ?? 0;
    expect(waits).to.be.below(t0 + 10_000);
    await engine.passed({ topic, partition: 0 }, 10, 11, 11);
    nowMs = t0 + 60_000;
    const lastTick = () => engine.progress().lastTickMs ?? 0;
    await waitUntil(() => lastTick() > t0 + 50_000, { withinMs: 5_000, what: 'ticks follow the clock' });
  });

  it('is told of markers from ahead of a seek and still reads what lies before them', async () => {
    const engine = await begin([11]);
    await engine.passed({ topic, partition: 0 }, 10, 11, 11);
    await engine.records({ topic, partition: 0 }, seconds(0, 10), 11);
    expect(engine.counters.get('samples')).to.equal(10);
  });

  it('stops although its scores or dead letters can never be published, and commits none of their records', async () => {
    const never = () => new Promise<void>(() => undefined);
    const away = () => Promise.reject(new Error('away'));
    for (const publisher of [
      { scores: never, deadLetters: never },
      { scores: away, deadLetters: away },
    ]) {
      const engine = await begin([11], { publisher });
      const rubbish = { ...record(10, t0 + 10_000), value: Buffer.from('rubbish') };
      void engine.records({ topic, partition: 0 }, [...seconds(0, 10), rubbish], 11);
      await engine.stop({ commit: true });
      expect(commits).to.deep.equal([]);
    }
  }).timeout(15_000);

  it('commits what is done when it is asked to stop', async () => {
    const engine = await begin([10]);
    await engine.records({ topic, partition: 0 }, seconds(0, 10), 10);
    await engine.stop({ commit: true });
    expect(commits.pop()).to.include({ partition: 0, offset: 10 });
  });
});

describe('Risk outbox', () => {
  it('delivers an event that comes at whatever moment the one before is done', async () => {
    const event = (eventId: string) => ({ eventId, cell: 'a', at: new Date(t0).toISOString() }) as RiskEvent;
    for (let microtasks = 0; microtasks < 12; microtasks++) {
      const told: string[] = [];
      const notifier = { notify: async ({ eventId }: RiskEvent) => void told.push(eventId) };
      const outbox = new RiskOutbox(notifier, new Counters(), log);
      outbox.put(event('first'), t0);
      for (let i = 0; i < microtasks; i++) await Promise.resolve();
      outbox.put(event('second'), t0);
      await nextTurn();
      expect(told.pop(), `after ${microtasks} microtasks`).to.equal('second');
      expect(outbox.oldestWaitingTickMs()).to.equal(Infinity);
    }
  });
});
