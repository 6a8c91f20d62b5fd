/** Drift watch and shadow scoring: shifted data is noticed, a challenger is heard by nobody but its topic. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { pino } from 'pino';
import { policySchema } from '../../blueprints/schema';
import type { CellDirectory } from '../../prediction/cell-directory';
import { CellScoring, type ScoringModel } from '../../prediction/cell-scoring';
import type { RiskEvent } from '../../prediction/contracts';
import { Counters } from '../../prediction/counters';
import { DriftWatch, poissonChance, psi } from '../../prediction/drift';
import { Model } from '../../prediction/model';
import { Shadow } from '../../prediction/shadow';
import { SideChannel, type ModelHealth } from '../../prediction/side-channel';
import { writeTinyModel } from '../support/tiny-model';

const t0 = 1_795_328_800_000;

/** Ten bins of equal share over [0, 1). */
const reference = (feature: string) => ({
  feature,
  edges: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
  shares: new Array<number>(10).fill(0.1),
  missing: 0.1,
});

describe('Drift watch', () => {
  const names = ['steady', 'shifted', 'gone'];
  const watch = () =>
    new DriftWatch({ references: names.map(reference), featureNames: names, windowRows: 1_000, every: 2 });

  it('names the features that are spread otherwise than in training, and only those', () => {
    const drift = watch();
    for (let i = 0; i < 2_000; i++) {
      // Two rows in twenty have no value, as in training.
      const missing = i % 20 < 2;
      const value = missing ? NaN : ((i * 7) % 1000) / 1000;
      drift.row(Float32Array.of(value, missing ? NaN : value * 0.3, NaN), 0, 0.001, 0);
    }
    const report = drift.report(t0);
    expect(report?.rows).to.equal(1_000);
    expect(
      report?.worst
        .filter((w) => w.psi > 0.2)
        .map((w) => w.feature)
        .sort(),
    ).to.deep.equal(['gone', 'shifted']);
    expect(report?.shifted).to.equal(2);
    expect(drift.report(t0), 'said once').to.equal(undefined);
  });

  it('notices that the scores have shifted since the first window', () => {
    const drift = watch();
    const fill = (probability: number) => {
      for (let i = 0; i < 2_000; i++) drift.row(Float32Array.of(0.5, 0.5, 0.5), 0, i % 10 === 0 ? 0.5 : probability, 0);
      return drift.report(t0)?.scoreShift;
    };
    expect(fill(0.002)).to.equal(null);
    expect(fill(0.002)).to.be.closeTo(0, 0.001);
    expect(fill(0.2)).to.be.greaterThan(0.2);
  });

  it('says how unlikely the failures seen are by the failures expected', () => {
    const drift = watch();
    for (let i = 0; i < 2_000; i++) drift.row(Float32Array.of(0.5, 0.5, 0.5), 0, 0.01, 0.001);
    for (let i = 0; i < 9; i++) drift.failed();
    const failures = drift.report(t0)?.failures;
    expect(failures).to.include({ observed: 9, expected: 2 });
    expect(failures?.chance).to.be.below(0.001);
    expect(poissonChance(2, 2)).to.equal(1);
    expect(poissonChance(0, 0)).to.equal(1);
    expect(poissonChance(1, 0)).to.equal(0);
    expect(poissonChance(0, 10)).to.be.closeTo(2 * Math.exp(-10), 1e-9);
  });

  it('measures no shift between equal spreads, and a finite one where a bin is empty', () => {
    expect(psi(Float64Array.of(50, 50), [0.5, 0.5])).to.equal(0);
    expect(psi(Float64Array.of(100, 0), [0.5, 0.5])).to.be.within(1, 10);
    expect(psi(Float64Array.of(0, 0), [0.5, 0.5])).to.equal(0);
  });

  it('warns in the log and publishes the state of the model when a window is full', async () => {
    const drift = watch();
    for (let i = 0; i < 2_000; i++) drift.row(Float32Array.of(0.05, 0.05, 0.05), 0, 0.01, 0);
    const said: { level: number; msg: string }[] = [];
    const log = pino(
      { level: 'info' },
      { write: (line) => void said.push(JSON.parse(line) as { level: number; msg: string }) },
    );
    const published: ModelHealth[] = [];
    const publisher = {
      scores: async () => undefined,
      deadLetters: async () => undefined,
      modelHealth: async (health: ModelHealth) => void published.push(health),
    };
    const channel = new SideChannel(publisher, new Counters(), log, 'tiny 1', drift, undefined);
    channel.modelHealth(t0);
    channel.modelHealth(t0 + 1000);
    expect(said.map(({ level }) => level)).to.deep.equal([40]);
    expect(said[0]?.msg).to.match(/3 of 3 features of tiny 1 are spread otherwise/);
    expect(published.map(({ model, ts }) => [model, ts])).to.deep.equal([['tiny 1', new Date(t0).toISOString()]]);
  });
});

describe('A challenger in the shadow', () => {
  let dir: string;
  let model: Model;
  const policy = policySchema.parse({ autonomy: 'act' });
  const directory: CellDirectory = {
    find: () => ({ service: 'shop', policy, sloLatencyMs: 250, sloErrorRatio: 0.05, synthetic: false }),
    refresh: async () => undefined,
  };

  before(async () => {
    dir = mkdtempSync(join(tmpdir(), 'understudy-shadow-'));
    model = await Model.load(writeTinyModel(dir));
  });
  after(async () => {
    await model?.release();
    rmSync(dir, { recursive: true, force: true });
  });

  /** A challenger that says the same of every cell. */
  function challenger(hazard: number, fails = false): ScoringModel {
    const input = new Float32Array(10_000);
    const { manifest, bins, forest } = model;
    return {
      id: 'challenger 2',
      manifest,
      bins,
      forest,
      rows: () => input,
      run: async (count) => {
        if (fails) throw new Error('broken');
        return new Float32Array(count * bins).fill(hazard);
      },
    };
  }

  async function play(shadowModel: ScoringModel | undefined) {
    const counters = new Counters();
    const shadow = shadowModel && new Shadow(shadowModel, 1000, counters);
    const scoring = new CellScoring({ model, directory, stepMs: 1000, riskChangedEveryMs: 2000, counters, shadow });
    const events: RiskEvent[] = [];
    const scored = [];
    for (let s = 0; s < 20; s++) {
      const atMs = t0 + s * 1000;
      scoring.met('a', 'p/0', 0);
      scoring.observe({ cell: 'a', instance: '1', atMs, metric: 'heap.used_bytes', value: 20e6 });
      scoring.observe({ cell: 'a', instance: '1', atMs, metric: 'heap.limit_bytes', value: 64e6 });
      for (const cell of await scoring.tick(atMs)) {
        scored.push(cell);
        if (cell.event) events.push(cell.event);
      }
    }
    return { scored, events, counters, shadow };
  }

  it('changes no score and begins no episode, however loudly it cries', async () => {
    const alone = await play(undefined);
    const beside = await play(challenger(0.99));
    expect(beside.scored.map(({ score }) => score)).to.deep.equal(alone.scored.map(({ score }) => score));
    expect(beside.events).to.deep.equal([]);
    expect(beside.counters.get('shadow.diverged')).to.equal(20);
    expect(beside.shadow?.divergence()).to.include({ model: 'challenger 2', rows: 20, disagreed: 20 });
    expect(beside.shadow?.divergence().mean).to.be.greaterThan(0.9);
    const last = beside.scored.at(-1)?.shadow;
    expect(last).to.include({ cell: 'a', model: 'challenger 2', champion: model.id });
    expect(last?.champion_probability).to.deep.equal(beside.scored.at(-1)?.score.probability);
    expect(last?.probability['60']).to.be.greaterThan(0.99);
  });

  it('is left out when it fails, and the champion goes on', async () => {
    const { scored, counters } = await play(challenger(0.5, true));
    expect(scored.length).to.equal(20);
    expect(scored.every(({ shadow }) => shadow === undefined)).to.equal(true);
    expect(counters.get('shadow.failed')).to.equal(20);
  });

  it('is published apart, and dropped rather than queued while the broker is slow', async () => {
    const { scored } = await play(challenger(0.5));
    const scores = scored.flatMap(({ shadow }) => shadow ?? []);
    let sent = 0;
    let release: () => void = () => undefined;
    const publisher = {
      scores: async () => undefined,
      deadLetters: async () => undefined,
      shadowScores: () => {
        sent += 1;
        return new Promise<void>((resolve) => (release = resolve));
      },
    };
    const counters = new Counters();
    const channel = new SideChannel(publisher, counters, pino({ level: 'silent' }), model.id, undefined, undefined);
    channel.shadowScores(scores);
    channel.shadowScores(scores);
    expect(sent).to.equal(1);
    expect(counters.get('shadow.dropped')).to.equal(scores.length);
    release();
    await new Promise((resolve) => setImmediate(resolve));
    channel.shadowScores(scores);
    expect(sent).to.equal(2);
    expect(counters.get('shadow.scores')).to.equal(scores.length);
    release();
  });
});
