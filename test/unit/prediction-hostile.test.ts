/** Telemetry that lies, floods or breaks: it is bounded and counted, and the healthy cells' scores stay the same to the bit. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import * as fc from 'fast-check';
import { pino } from 'pino';
import { policySchema } from '../../blueprints/schema';
import { settingsSchema } from '../../blueprints/settings';
import type { CellDirectory } from '../../prediction/cell-directory';
import { CellScoring } from '../../prediction/cell-scoring';
import type { Sample, Score } from '../../prediction/contracts';
import { Counters } from '../../prediction/counters';
import type { DeadLetter } from '../../prediction/dead-letter';
import { ScoringEngine } from '../../prediction/engine';
import { metricNames, type MetricName } from '../../prediction/metrics';
import { Model } from '../../prediction/model';
import type { TelemetryRecord } from '../../prediction/telemetry-source';
import { writeTinyModel } from '../support/tiny-model';

const topic = 'telemetry';
const t0 = 1_795_328_800_000;
const seconds = 40;
const policy = policySchema.parse({ autonomy: 'observe' });
const service = { service: 'checkout', policy, sloLatencyMs: 250, sloErrorRatio: 0.05, synthetic: false };
/** The hostile cell is of another service: its peers would rightly feel it. */
const known = new Map([
  ['cell-a', service],
  ['cell-b', service],
  ['cell-evil', { ...service, service: 'other' }],
]);

interface Body {
  cell: string;
  instance?: string;
  atMs: number;
  metrics: Record<string, unknown>;
  /** When it was written. */
  writtenMs?: number;
}

const usual = (s: number) => ({
  'heap.used_bytes': 20e6 + (s % 7) * 1e5,
  'heap.limit_bytes': 64e6,
  'http.latency_p99_s': 0.04 + (s % 5) * 0.001,
  'http.request_rate': 100,
});
const healthyAt = (s: number): Body[] =>
  ['cell-a', 'cell-b'].map((cell) => ({ cell, atMs: t0 + s * 1000, metrics: usual(s) }));

function bytesOf({ cell, instance = `${cell}-1`, atMs, metrics }: Body): Buffer {
  const ts = new Date(atMs).toISOString();
  // JSON has no NaN and no infinities; a broken producer writes what its language prints.
  const text = JSON.stringify(
    { schema: 'understudy.telemetry/v1', cell, instance, ts, metrics },
    (_key, value: unknown) => (typeof value === 'number' && !Number.isFinite(value) ? `#${value}#` : value),
  );
  return Buffer.from(
    text.replace(/"#(-?Infinity|NaN)#"/g, (_all, word: string) =>
      word === 'NaN' ? 'NaN' : word.replace('Infinity', '1e999'),
    ),
  );
}

describe('Hostile telemetry', () => {
  let dir: string;
  let model: Model;
  let untouched: Map<string, string>;

  before(async () => {
    dir = mkdtempSync(join(tmpdir(), 'understudy-hostile-'));
    model = await Model.load(writeTinyModel(dir));
    untouched = (await play(() => [])).healthy;
    expect(untouched.size).to.be.greaterThan(2 * (seconds - 3));
  });
  after(async () => {
    await model?.release();
    rmSync(dir, { recursive: true, force: true });
  });

  /** The healthy cells' telemetry with something hostile before it at each second. */
  async function play(hostileAt: (s: number) => Body[]) {
    let nowMs = t0;
    let refreshes = 0;
    const letters: DeadLetter[] = [];
    const scores: Score[] = [];
    const directory: CellDirectory = {
      find: (cell) => known.get(cell),
      refresh: async () => void (refreshes += 1),
    };
    const engine = new ScoringEngine({
      settings: {
        kafka: settingsSchema.shape.kafka.parse({
          brokers: ['unused:9092'],
          telemetry: [{ topic, decoder: 'detect' }],
        }),
        scoring: settingsSchema.shape.scoring.parse({}),
      },
      model,
      directory,
      publisher: {
        scores: async (more) => void scores.push(...more),
        deadLetters: async (more) => void letters.push(...more),
      },
      notifier: { notify: async () => undefined },
      log: pino({ level: 'silent' }),
      now: () => nowMs,
      source: {
        start: async () => undefined,
        stop: async () => undefined,
        commit: async () => undefined,
        pause: () => undefined,
        resume: () => undefined,
        trouble: () => undefined,
      },
    });
    await engine.assigned([
      { topic, partition: 0, from: 0, committed: null, committedTickMs: null, end: 1, low: 0, windows: null },
    ]);
    let offset = 0;
    for (let s = 0; s < seconds; s++) {
      nowMs = t0 + s * 1000 + 100;
      const records = [...hostileAt(s), ...healthyAt(s)].map((body): TelemetryRecord => ({
        offset: offset++,
        timestampMs: body.writtenMs ?? nowMs,
        key: null,
        value: bytesOf(body),
        headers: {},
      }));
      await engine.records({ topic, partition: 0 }, records, offset);
    }
    const progress = engine.progress();
    await engine.stop({ commit: false });
    const healthy = new Map(
      scores
        .filter(({ cell }) => cell !== 'cell-evil')
        .map((score) => [`${score.cell} ${score.ts}`, JSON.stringify(score)]),
    );
    const evil = scores.filter(({ cell }) => cell === 'cell-evil');
    return { healthy, evil, letters, refreshes, progress, counters: engine.counters };
  }

  const evilAt = (s: number, metrics: Record<string, unknown>, more: Partial<Body> = {}): Body => ({
    cell: 'cell-evil',
    atMs: t0 + s * 1000,
    metrics,
    ...more,
  });

  it('refuses what is no number, infinite, negative or no share, with the reason, and guesses at nothing', async () => {
    for (const [metrics, reason] of [
      [{ 'heap.used_bytes': Infinity }, 'bad-value'],
      [{ 'heap.used_bytes': -Infinity }, 'bad-value'],
      [{ 'heap.used_bytes': NaN }, 'not-json'],
      [{ 'heap.used_bytes': 'much' }, 'bad-value'],
      [{ 'heap.used_bytes': -5e6 }, 'out-of-range'],
      [{ 'http.error_ratio': -3 }, 'out-of-range'],
      [{ 'cpu.utilization': 7 }, 'out-of-range'],
      [{ 'http.latency_p99_s': 1e300 }, 'out-of-range'],
    ] as const) {
      const { healthy, letters, evil, counters } = await play((s) => [evilAt(s, metrics)]);
      expect(healthy, reason).to.deep.equal(untouched);
      expect(evil, 'nothing to score').to.deep.equal([]);
      expect(letters[0]?.reason, JSON.stringify(metrics)).to.equal(reason);
      expect(counters.get(`problem.${reason}`)).to.equal(seconds);
    }
  });

  it('takes time that runs backwards, duplicates and the future for what they are, and counts them', async () => {
    const backwards = await play((s) => [evilAt(s, usual(s), { atMs: t0 + (seconds - s) * 1000 - 60_000 })]);
    expect(backwards.healthy).to.deep.equal(untouched);
    const twice = await play((s) => [evilAt(s, usual(s)), evilAt(s, usual(s))]);
    expect(twice.healthy).to.deep.equal(untouched);
    expect(twice.counters.get('samples.ignored')).to.be.greaterThan(3 * (seconds - 3));
    const once = await play((s) => [evilAt(s, usual(s))]);
    expect(twice.evil, 'a duplicate changes nothing').to.deep.equal(once.evil);
    const future = await play((s) => [evilAt(s, usual(s), { atMs: t0 + s * 1000 + 3_600_000 })]);
    expect(future.healthy).to.deep.equal(untouched);
    expect(future.counters.get('samples.future')).to.equal(4 * seconds);
    expect(future.evil).to.deep.equal([]);
  });

  it('ignores five thousand metrics it does not know', async () => {
    const metrics = Object.fromEntries(Array.from({ length: 5_000 }, (_, i) => [`vendor.metric_${i}`, i]));
    const { healthy, counters, letters } = await play((s) => [evilAt(s, { ...metrics, ...usual(s) })]);
    expect(healthy).to.deep.equal(untouched);
    expect(counters.get('samples')).to.equal(3 * 4 * seconds);
    expect(letters).to.deep.equal([]);
  }).timeout(60_000);

  it('keeps nothing of a hundred thousand cells that do not exist: few letters, few looks at the configuration', async () => {
    const perSecond = 2_500;
    const { healthy, letters, refreshes, progress, counters } = await play((s) =>
      Array.from({ length: perSecond }, (_, i) => evilAt(s, { 'fd.used': 1 }, { cell: `ghost-${s * perSecond + i}` })),
    );
    expect(healthy).to.deep.equal(untouched);
    expect(counters.get('problem.unknown-cell')).to.equal(100_000);
    expect(letters.length).to.be.within(200, 200 + 50 * seconds);
    expect(counters.get('dead-letters.suppressed') + letters.length).to.equal(100_000);
    expect(refreshes, 'at most one a second').to.be.at.most(seconds + 1);
    expect(progress.cells).to.equal(2);
    expect(progress.heldSamples).to.be.at.most(24);
  }).timeout(120_000);

  it('hears of ten thousand instances of one cell no more than 64', async () => {
    const { healthy, counters, evil } = await play((s) =>
      Array.from({ length: 250 }, (_, i) => evilAt(s, { 'fd.used': 10 }, { instance: `x-${s * 250 + i}` })),
    );
    expect(healthy).to.deep.equal(untouched);
    expect(counters.get('samples.ignored')).to.be.greaterThan(9_000);
    expect(evil.length).to.be.greaterThan(0);
  }).timeout(60_000);

  it('doubts bytes that become MiB: they are not used, the trust falls, and no risk is made of them', async () => {
    const sane = await play((s) => [evilAt(s, usual(s))]);
    const changed = (s: number) => {
      const metrics = usual(s);
      if (s >= 25) metrics['heap.used_bytes'] /= 1024 ** 2;
      return [evilAt(s, metrics)];
    };
    const { healthy, evil, counters } = await play(changed);
    expect(healthy).to.deep.equal(untouched);
    expect(counters.get('samples.unit-doubted')).to.be.greaterThan(10);
    const last = evil.at(-1);
    expect(last?.trust).to.be.below(0.5);
    for (const [horizon, p] of Object.entries(last?.probability ?? {})) {
      expect(p, horizon).to.be.at.most(sane.evil.at(-1)?.probability[horizon] ?? 0);
    }
    expect(sane.evil.at(-1)?.trust).to.equal(1);
  });

  it('lets a latency that jumps a thousandfold be seen, but not be trusted to move traffic', async () => {
    const { evil, counters } = await play((s) => {
      const metrics = usual(s);
      if (s >= 25) metrics['http.latency_p99_s'] *= 1000;
      return [evilAt(s, metrics)];
    });
    expect(counters.get('samples.unit-doubted')).to.be.greaterThan(10);
    expect(evil.at(-1)?.trust).to.be.below(0.5);
    expect(evil.at(-1)?.health).to.be.at.most(20);
  });
});

describe('Scores of any telemetry', () => {
  let dir: string;
  let model: Model;

  before(async () => {
    dir = mkdtempSync(join(tmpdir(), 'understudy-any-'));
    model = await Model.load(writeTinyModel(dir));
  });
  after(async () => {
    await model?.release();
    rmSync(dir, { recursive: true, force: true });
  });

  async function scoresOf(samples: readonly Sample[], ticks: number): Promise<Score[]> {
    const directory: CellDirectory = { find: () => service, refresh: async () => undefined };
    const counters = new Counters();
    const scoring = new CellScoring({ model, directory, stepMs: 1000, riskChangedEveryMs: 2000, counters });
    const scores: Score[] = [];
    for (let s = 0; s <= ticks; s++) {
      const atMs = t0 + s * 1000;
      for (const sample of samples) {
        if (sample.atMs > atMs || sample.atMs <= atMs - 1000) continue;
        scoring.met(sample.cell, 'p/0', 0);
        scoring.observe(sample);
      }
      const scored = await scoring.tick(atMs);
      const cells = scored.map(({ score }) => score.cell);
      expect(new Set(cells).size, 'one score per cell').to.equal(cells.length);
      scores.push(...scored.map(({ score }) => score));
    }
    return scores;
  }

  const anySample = fc.record({
    cell: fc.constantFrom('a', 'b', 'c'),
    instance: fc.constantFrom('1', '2'),
    atMs: fc.integer({ min: t0 - 900, max: t0 + 30_000 }),
    metric: fc.constantFrom<MetricName[]>(...metricNames),
    value: fc.oneof(fc.double({ min: 0, max: 1 }), fc.double({ noNaN: true, noDefaultInfinity: true })),
  });

  it('ascend with the horizon and stay within their bounds, and come the same again when replayed in another order', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(anySample, { maxLength: 300 }), async (samples) => {
        const live = await scoresOf(samples, 32);
        for (const { probability, health, trust, novelty } of live) {
          const ascending = Object.entries(probability).sort(([a], [b]) => Number(a) - Number(b));
          let below = 0;
          for (const [, p] of ascending) {
            expect(p).to.be.within(below, 1);
            below = p;
          }
          if (health !== 'unknown') expect(health).to.be.within(0, 100);
          expect(trust).to.be.within(0, 1);
          expect(novelty).to.be.within(0, 1);
        }
        expect(await scoresOf(samples, 32), 'replay').to.deep.equal(live);
      }),
      { numRuns: 25 },
    );
  }).timeout(60_000);

  it("never rise by novelty alone: whatever the z of a metric, the probability is the model's", async () => {
    const course = (jump: number): Sample[] =>
      Array.from({ length: 60 }, (_, s) =>
        (
          [
            ['heap.used_bytes', 20e6],
            ['heap.limit_bytes', 64e6],
            ['queue.depth', s < 50 ? 5 : 5 * jump],
          ] as const
        ).map(([metric, value]): Sample => ({ cell: 'a', instance: '1', atMs: t0 + s * 1000, metric, value })),
      ).flat();
    const usualScore = (await scoresOf(course(1), 59)).at(-1);
    const novel = (await scoresOf(course(80), 59)).at(-1);
    expect(novel?.novelty).to.be.greaterThan(usualScore?.novelty ?? 1);
    expect(novel?.probability, 'the tiny model looks at the heap only').to.deep.equal(usualScore?.probability);
    expect(novel?.health).to.be.below(usualScore?.health as number);
  });
});
