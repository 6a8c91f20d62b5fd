import { expect } from 'chai';
import { bootstrap, pairedDifference, shareInterval } from '../../models/evaluation/bootstrap';
import { hitAt, metricsOfFault } from '../../models/evaluation/fault-metrics';
import {
  calibration,
  equalMassBins,
  labelledRows,
  populationStability,
  precisionRecall,
  quantile,
} from '../../models/evaluation/figures';
import { seededRandom } from '../../lab/random';

describe('Row figures', () => {
  it('give the average precision of a known ranking', () => {
    // Precision at each hit: 1/1, 2/3, 3/4.
    const rows = labelledRows([
      [0.9, true],
      [0.8, false],
      [0.7, true],
      [0.6, true],
      [0.5, false],
    ]);
    const { area, baseRate } = precisionRecall(rows);
    expect(area).to.be.closeTo((1 + 2 / 3 + 3 / 4) / 3, 1e-12);
    expect(baseRate).to.equal(0.6);
  });

  it('give a score that says nothing the base rate, not more', () => {
    const rows = labelledRows(Array.from({ length: 1000 }, (_, i) => [0.3, i % 50 === 0]));
    expect(precisionRecall(rows).area).to.be.closeTo(0.02, 1e-12);
    expect(precisionRecall(labelledRows([[0.3, false]])).area).to.be.NaN;
  });

  it('find a calibrated forecast calibrated, and an overconfident one not', () => {
    const random = seededRandom(7);
    const truth = Array.from({ length: 40_000 }, () => {
      const p = random() ** 3;
      return [p, random() < p] as const;
    });
    const good = calibration(labelledRows(truth));
    expect(good.ece).to.be.below(0.01);
    expect(good.slope).to.be.closeTo(1, 0.05);
    expect(good.intercept).to.be.closeTo(0, 0.05);
    expect(good.brierSkill).to.be.within(0.2, 0.9);
    // Twice the log-odds: the slope that mends it is a half.
    const sharpened = truth.map(([p, f]) => [p ** 2 / (p ** 2 + (1 - p) ** 2), f] as const);
    expect(calibration(labelledRows(sharpened)).slope).to.be.closeTo(0.5, 0.05);
    expect(calibration(labelledRows(sharpened)).ece).to.be.above(0.03);
  });

  it('have a Brier skill of zero for the base rate and one for certainty', () => {
    const outcome = [true, false, false, false];
    expect(calibration(labelledRows(outcome.map((f) => [0.25, f]))).brierSkill).to.be.closeTo(0, 1e-12);
    expect(calibration(labelledRows(outcome.map((f) => [f ? 1 : 0, f]))).brierSkill).to.equal(1);
  });

  it('bin rows by equal mass, none lost', () => {
    const bins = equalMassBins(labelledRows(Array.from({ length: 103 }, (_, i) => [i / 103, false])), 10);
    expect(bins.map((b) => b.rows).reduce((a, b) => a + b)).to.equal(103);
    expect(Math.max(...bins.map((b) => b.rows)) - Math.min(...bins.map((b) => b.rows))).to.be.at.most(1);
  });

  it('find no drift in the same distribution, and a shift in a moved one', () => {
    const random = seededRandom(3);
    const values = Array.from({ length: 5000 }, () => random());
    const edges = [0.25, 0.5, 0.75];
    expect(populationStability(values, edges, [0.25, 0.25, 0.25, 0.25])).to.be.below(0.01);
    expect(
      populationStability(
        values.map((v) => v + 0.4),
        edges,
        [0.25, 0.25, 0.25, 0.25],
      ),
    ).to.be.above(0.2);
    expect(populationStability([NaN], edges, [0.25, 0.25, 0.25, 0.25])).to.be.NaN;
  });

  it('take quantiles between ranks', () => {
    expect(quantile([3, 1, 2, NaN], 0.5)).to.equal(2);
    expect(quantile([0, 10], 0.1)).to.be.closeTo(1, 1e-12);
    expect(quantile([], 0.5)).to.be.NaN;
  });
});

describe('Intervals', () => {
  const outcomes = Array.from({ length: 80 }, (_, i) => i % 4 !== 0);

  it('are the same for the same seed and hold the value', () => {
    const first = shareInterval(outcomes, 5);
    expect(first).to.deep.equal(shareInterval(outcomes, 5));
    expect(first.value).to.equal(0.75);
    // Normal approximation: 1.96 * sqrt(.75 * .25 / 80) = .095.
    expect(first.low).to.be.closeTo(0.655, 0.03);
    expect(first.high).to.be.closeTo(0.845, 0.03);
  });

  it('of a paired difference are narrower than those of either side where both agree on most', () => {
    const other = outcomes.map((caught, i) => caught && i % 16 !== 1);
    const difference = pairedDifference(outcomes, other);
    expect(difference.value).to.be.closeTo(5 / 80, 1e-12);
    expect(difference.high - difference.low).to.be.below(0.12);
    expect(difference.low).to.be.above(0);
  });

  it('of nothing are no numbers', () => {
    expect(bootstrap([], () => NaN).low).to.be.NaN;
  });
});

describe('Drivers', () => {
  it('hit when one of the first two is a metric of the fault', () => {
    const drivers = [{ metric: 'http.latency_p99_s' }, { metric: 'heap.used_bytes' }, { metric: 'fd.used' }];
    expect(hitAt(2, drivers, 'memory-leak')).to.equal(true);
    expect(hitAt(2, drivers, 'fd-exhaustion')).to.equal(false);
    expect(hitAt(2, drivers, 'a fault of somebody else')).to.equal(undefined);
  });

  it('are checked against at least one metric that exists, for each fault of the table', () => {
    for (const fault of ['cpu-saturation', 'pool-leak', 'queue-backlog', 'network-creep']) {
      expect(metricsOfFault(fault)?.size, fault).to.be.above(0);
    }
  });
});
