/** Tuning: the best of each family within the budget, and never a detector that exceeds it. */
import { expect } from 'chai';
import type { CellSeries, Detector } from '../../models/evaluation/contracts';
import { alertsOf, defaultRules, judge, summarize, type EventRules } from '../../models/evaluation/events';
import { peersOf, tuneDetector, tuneFamilies, tuneStack, watchBudget } from '../../models/evaluation/tuning';

const t0 = 1_795_328_800_000;
const stepMs = 1000;
const ticks = 3000;
const onset = 2000;
const rules: EventRules = { ...defaultRules, horizonTicks: 100 };

/** Deterministic noise in [0, 1). */
function noise(tick: number, stream: number): number {
  let x = Math.imul(tick + 1, 0x9e3779b1) ^ Math.imul(stream + 1, 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 15), 0x2c1b3c6d);
  return ((x ^ (x >>> 13)) >>> 0) / 2 ** 32;
}

const cells: CellSeries[] = Array.from({ length: 40 }, (_, i) => ({
  cell: `cell-${i}`,
  service: `service-${i % 8}`,
  stepMs,
  startMs: t0,
  ticks,
  values: new Map(),
  sloLatencyS: NaN,
  incidents: [
    {
      cell: `cell-${i}`,
      fault: i % 2 === 0 ? 'even' : 'odd',
      faultStartMs: t0 + (onset - 80) * stepMs,
      onsetMs: t0 + onset * stepMs,
      recoveredMs: t0 + (onset + 100) * stepMs,
      predictable: true,
    },
  ],
}));

const numberOf = (cell: CellSeries) => cells.indexOf(cell);

/** Noise with a hint of `strength` ahead of the onset in the cells that it has an eye for. */
const hinting = (name: string, family: string, strength: number, eyes: (cell: number) => boolean): Detector => ({
  name,
  family,
  score: (cell) =>
    Float32Array.from({ length: ticks }, (_, tick) => {
      const i = numberOf(cell);
      const warns = eyes(i) && tick >= onset - 60 && tick < onset;
      return noise(tick, i + 100 * name.length) + (warns ? strength : 0);
    }),
});

const task = { training: cells, rules, budget: watchBudget };

describe('Tuning to a false-alarm budget', () => {
  it('takes the best member of each family', () => {
    const strong = hinting('strong', 'hints', 2, (i) => i < 30);
    const weak = hinting('weaker', 'hints', 2, (i) => i < 10);
    const other = hinting('something else', 'other', 2, (i) => i === 3);
    const tuned = tuneFamilies([weak, strong, other], task);
    expect(tuned.map(({ family, detector }) => [family, detector.name])).to.deep.equal([
      ['hints', 'strong'],
      ['other', 'something else'],
    ]);
    expect(tuned[0]!.figures.caught).to.equal(30);
    expect(tuned[0]!.figures.falseAlarms).to.equal(0);
    // The budget leaves room for a lucky hit.
    expect(tuned[1]!.figures.caught).to.be.within(1, 3);
  });

  it('finds by persistence what a threshold alone cannot tell from noise', () => {
    const lasting: Detector = {
      name: 'lasting',
      family: 'lasting',
      score: (cell) =>
        Float32Array.from({ length: ticks }, (_, tick) => {
          const warns = tick >= onset - 60 && tick < onset;
          const peak = noise(tick, numberOf(cell));
          return warns ? 0.95 + 0.05 * peak : peak;
        }),
    };
    const { persist, figures } = tuneDetector(lasting, task);
    expect(persist).to.be.greaterThan(1);
    expect(figures.recall).to.equal(1);
    expect(figures.falseAlarmsPerCellDay).to.be.at.most(watchBudget.falseAlarmsPerCellDay);
    expect(figures.alarmTimeShare).to.be.at.most(watchBudget.alarmTimeShare);
  });

  it('promises exactly what judging the alerts at its threshold gives', () => {
    const detector = hinting('lasting', 'hints', 0.4, () => true);
    const { threshold, persist, figures } = tuneDetector(detector, task);
    const verdicts = cells.map((cell) => judge(cell, alertsOf(detector.score(cell, []), threshold, persist), rules));
    expect(summarize(verdicts)).to.deep.equal(figures);
  });

  it('lets noise, and an alarm that is always on, catch nothing much', () => {
    const chance = tuneDetector(
      hinting('chance', 'chance', 0, () => false),
      task,
    );
    expect(chance.figures.caught).to.be.at.most(4);
    const always: Detector = { name: 'always', family: 'always', score: () => new Float32Array(ticks).fill(1) };
    const tuned = tuneDetector(always, task);
    expect(tuned.threshold).to.equal(Infinity);
    expect(tuned.figures.caught).to.equal(0);
  });

  it('keeps silent detectors silent', () => {
    const silent: Detector = { name: 'silent', family: 'silent', score: () => new Float32Array(ticks).fill(NaN) };
    expect(tuneDetector(silent, task)).to.include({ threshold: Infinity, persist: 1 });
  });

  it('stacks families that see different failures, within one budget for all', () => {
    const even = hinting('even', 'even', 2, (i) => i % 2 === 0);
    const odd = hinting('odd', 'odd', 2, (i) => i % 2 === 1);
    const nothing = hinting('nothing', 'nothing', 0, () => false);
    const families = tuneFamilies([even, odd, nothing], task);
    expect(families.map(({ figures }) => figures.caught).slice(0, 2)).to.deep.equal([20, 20]);
    const stack = tuneStack(families, task);
    expect(stack.figures.caught).to.equal(40);
    expect(stack.figures.falseAlarmsPerCellDay).to.be.at.most(watchBudget.falseAlarmsPerCellDay);
    // It is a detector like any other: judged anew, it holds what it promised.
    const verdicts = cells.map((cell) => {
      const scores = stack.detector.score(cell, peersOf(cell, cells));
      return judge(cell, alertsOf(scores, stack.threshold, stack.persist), rules);
    });
    expect(summarize(verdicts)).to.deep.equal(stack.figures);
  });

  it('gives a detector the cells of the same service as peers', () => {
    const seen = new Set<number>();
    const curious: Detector = {
      name: 'curious',
      family: 'curious',
      score(cell, peers) {
        seen.add(peers.length);
        expect(peers.every((peer) => peer.service === cell.service && peer !== cell)).to.equal(true);
        return new Float32Array(ticks);
      },
    };
    tuneDetector(curious, task);
    expect([...seen]).to.deep.equal([4]);
  });
});
