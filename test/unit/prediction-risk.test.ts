/** Model loading, risk episodes and attribution: what is refused, what holds, what adds up. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import * as fc from 'fast-check';
import { CommitLedger } from '../../prediction/commit-ledger';
import { featureNames } from '../../prediction/feature-spec';
import { addShapleyValues, evaluate, parseForest, type Tree } from '../../prediction/forest';
import { Model } from '../../prediction/model';
import { advance, type RiskEpisode, type RiskReading } from '../../prediction/risk-episode';
import { cumulative, timeToFailure } from '../../prediction/score';
import { writeTinyModel } from '../support/tiny-model';

const policy = {
  prepare: { enter: 0.4, exit: 0.15, persistS: 2 },
  shift: { enter: 0.6, exit: 0.25, persistS: 2 },
  minTrust: 0.5,
};
const t0 = 1_795_328_800_000;
const reading = (probability: number, trust = 1, unknown = false): RiskReading => ({
  cell: 'a',
  probability,
  trust,
  unknown,
});

function play(readings: RiskReading[]) {
  let episode: RiskEpisode | null = null;
  return readings.map((r, i) => {
    const step = advance(episode, r, policy, t0 + i * 1000);
    episode = step.episode;
    return step;
  });
}
const levels = (readings: RiskReading[]) => play(readings).map((s) => s.level);

describe('Risk episode', () => {
  it('begins only after the probability has persisted, and is named by when it crossed', () => {
    const steps = play([0.1, 0.5, 0.5, 0.5].map((p) => reading(p)));
    expect(steps.map((s) => s.level)).to.deep.equal(['clear', 'clear', 'clear', 'prepare']);
    expect(steps[3]?.episodeId).to.equal(`a@${new Date(t0 + 1000).toISOString()}`);
    expect(steps.map((s) => s.changed)).to.deep.equal([false, false, false, true]);
  });

  it('does not begin from a blip, nor end by one', () => {
    expect(levels([0.9, 0.1, 0.9, 0.9, 0.1, 0.9].map((p) => reading(p))).every((l) => l === 'clear')).to.equal(true);
    expect(levels([0.9, 0.9, 0.9, 0.1, 0.9, 0.1].map((p) => reading(p))).slice(2)).to.deep.equal(
      Array(4).fill('shift'),
    );
  });

  it('grants nothing above prepare on telemetry that cannot be trusted, and takes nothing back on it either', () => {
    expect(levels(Array(6).fill(reading(0.95, 0.3)) as RiskReading[]).pop()).to.equal('prepare');
    const trusted = Array(3).fill(reading(0.95)) as RiskReading[];
    const doubtful = Array(9).fill(reading(0.01, 0.3)) as RiskReading[];
    expect(levels([...trusted, ...doubtful]).pop()).to.equal('shift');
  });

  it('holds while nothing is known: no change, and the silence counts towards no persistence', () => {
    const silence = Array(20).fill(reading(0, 0, true)) as RiskReading[];
    const risk = Array(3).fill(reading(0.95)) as RiskReading[];
    expect(
      play([...risk, ...silence])
        .slice(3)
        .every((s) => s.level === 'shift' && !s.changed),
    ).to.equal(true);
    expect(levels([reading(0.95), ...silence, reading(0.95)]).pop()).to.equal('clear');
  });

  it('changes level exactly when it says so, and names one episode from begin to end', () => {
    const any = fc.array(fc.record({ p: fc.double({ min: 0, max: 1, noNaN: true }), unknown: fc.boolean() }), {
      maxLength: 80,
    });
    fc.assert(
      fc.property(any, (course) => {
        const steps = play(course.map(({ p, unknown }) => reading(p, 1, unknown)));
        let level = 'clear';
        let id: string | null = null;
        for (const step of steps) {
          expect(step.changed).to.equal(step.level !== level);
          if (level !== 'clear') expect(step.episodeId).to.equal(id);
          if (step.level !== 'clear') expect(step.episodeId).to.be.a('string');
          ({ level } = step);
          id = step.episodeId;
        }
      }),
    );
  });
});

describe('Model', () => {
  let dir: string;
  beforeEach(() => (dir = mkdtempSync(join(tmpdir(), 'understudy-model-'))));
  afterEach(() => rmSync(dir, { recursive: true }));

  async function refusal(changes: Record<string, unknown>): Promise<string> {
    try {
      await Model.load(writeTinyModel(dir, changes));
    } catch (error) {
      return (error as Error).message;
    }
    return 'not refused';
  }

  it('runs rows in one batch, missing values included', async () => {
    const model = await Model.load(writeTinyModel(dir));
    const rows = model.rows(2).fill(NaN);
    rows[featureNames.length] = 0.95;
    const hazards = [...(await model.run(2))];
    expect(hazards[0]).to.be.lessThan(0.001);
    expect(hazards[4]).to.be.closeTo(1 / (1 + Math.exp(27 - 30 * 0.95)), 1e-6);
    await model.release();
  });

  it('is refused when the file, the features or the specification are not those of the manifest', async () => {
    expect(await refusal({ onnxSha256: '0'.repeat(64) })).to.match(/do not belong together/);
    expect(await refusal({ featureSpecSha256: '0'.repeat(64) })).to.match(/Train the model again/);
    expect(await refusal({ featureNames: ['other', ...featureNames.slice(1)] })).to.match(
      /first difference at 0: model other/,
    );
    expect(await refusal({ horizonsSteps: [5, 15] })).to.match(/does not take/);
    expect(await refusal({ horizonsSteps: [15, 5, 30, 60] })).to.match(/must ascend/);
    expect(await refusal({ onnx: 'absent.onnx' })).to.match(/cannot be read/);
  });
});

describe('Attribution', () => {
  const split = (feature: number, threshold: number, count: number, left: object, right: object) => ({
    split_feature: feature,
    threshold,
    decision_type: '<=',
    default_left: true,
    missing_type: 'NaN',
    internal_count: count,
    left_child: left,
    right_child: right,
  });
  const leaf = (value: number, count: number) => ({ leaf_value: value, leaf_count: count });
  // Feature 0 is split on twice on one path: the case in which the path is unwound.
  const root = split(
    0,
    0.5,
    100,
    leaf(1, 40),
    split(1, 0.2, 60, leaf(5, 20), split(0, 0.8, 40, leaf(-3, 10), split(2, 0, 30, leaf(2, 12), leaf(7, 18)))),
  );
  const dump = Buffer.from(JSON.stringify({ bins: [{ scale: 1, offset: 0, trees: [root] }] }));
  const tree = parseForest(dump, 1, 3, 'test').bins[0]?.trees[0] as Tree;

  /** Mean output when only the features in `known` are known, by the trees' cover. */
  function expected(index: number, row: Float32Array, known: ReadonlySet<number>): number {
    const feature = tree.feature[index] as number;
    if (feature < 0) return tree.value[index] as number;
    const [left, right] = [tree.left[index] as number, tree.right[index] as number];
    if (known.has(feature)) {
      const value = row[feature] as number;
      const goesLeft = Number.isNaN(value) ? tree.missingLeft[index] === 1 : value <= (tree.threshold[index] as number);
      return expected(goesLeft ? left : right, row, known);
    }
    const cover = (child: number) => (tree.cover[child] as number) / (tree.cover[index] as number);
    return cover(left) * expected(left, row, known) + cover(right) * expected(right, row, known);
  }

  it('is the exact Shapley value, as enumerating all orderings gives it', () => {
    const orders = [
      [0, 1, 2],
      [0, 2, 1],
      [1, 0, 2],
      [1, 2, 0],
      [2, 0, 1],
      [2, 1, 0],
    ];
    const value = fc.oneof(fc.constant(NaN), fc.float({ min: 0, max: 1, noNaN: true }));
    fc.assert(
      fc.property(fc.tuple(value, value, value), (values) => {
        const row = Float32Array.from(values);
        const brute = [0, 0, 0];
        for (const order of orders) {
          const known = new Set<number>();
          for (const feature of order) {
            const before = expected(0, row, known);
            known.add(feature);
            brute[feature] = (brute[feature] ?? 0) + (expected(0, row, known) - before) / orders.length;
          }
        }
        const fast = new Float64Array(3);
        addShapleyValues(tree, row, 0, 1, fast);
        brute.forEach((b, i) => expect(fast[i]).to.be.closeTo(b, 1e-9));
        const sum = fast.reduce((a, b) => a + b, 0);
        expect(sum).to.be.closeTo(evaluate(tree, row) - expected(0, row, new Set()), 1e-9);
      }),
    );
  });
});

describe('Failure probability', () => {
  it('ascends with the horizon, and the quantiles of the time to failure follow it', () => {
    const hazards = fc.array(fc.float({ min: 0, max: 1, noNaN: true }), { minLength: 4, maxLength: 4 });
    fc.assert(
      fc.property(hazards, (h) => {
        const failure = cumulative(Float32Array.from(h), 0, 4);
        for (let k = 1; k < 4; k++) expect(failure[k]).to.be.at.least(failure[k - 1] ?? 0);
        const { p10, p50, p90 } = timeToFailure(failure, [5, 15, 30, 60]);
        expect(p10 ?? 61).to.be.at.most(p50 ?? 61);
        expect(p50 ?? 61).to.be.at.most(p90 ?? 61);
      }),
    );
  });
});

describe('Commit ledger', () => {
  it('never passes a record whose ticks are not done, whatever the order of samples', () => {
    const ticks = fc.array(fc.oneof(fc.constant(undefined), fc.nat(20)), { minLength: 1, maxLength: 50 });
    fc.assert(
      fc.property(ticks, fc.nat(20), (needs, done) => {
        const ledger = new CommitLedger(0);
        needs.forEach((tick, offset) => ledger.read(offset, tick));
        const blocked = needs.findIndex((tick) => tick !== undefined && tick > done);
        expect(ledger.advance(done) ?? 0).to.equal(blocked < 0 ? needs.length : blocked);
      }),
    );
  });
});
