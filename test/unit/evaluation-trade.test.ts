import { expect } from 'chai';
import type { CellSeries } from '../../models/evaluation/contracts';
import { defaultRules } from '../../models/evaluation/events';
import { tradeOf } from '../../models/evaluation/trade';

const rules = { ...defaultRules, horizonTicks: 60 };
const ticks = 8640;

function cellWith(onsets: readonly number[]): CellSeries {
  const incidents = onsets.map((onset) => ({
    cell: 'a',
    fault: 'memory-leak',
    faultStartMs: (onset - 50) * 1000,
    onsetMs: onset * 1000,
    recoveredMs: (onset + 20) * 1000,
    predictable: true,
  }));
  return { cell: 'a', service: 's', stepMs: 1000, startMs: 0, ticks, values: new Map(), sloLatencyS: NaN, incidents };
}

/** Quiet, but for what is raised: [tick, length, score]. */
function scoresWith(raised: readonly (readonly [number, number, number])[]): Float32Array {
  const scores = Float32Array.from({ length: ticks }, (_, i) => 0.01 + 1e-6 * i);
  for (const [at, length, score] of raised) scores.fill(score, at, at + length);
  return scores;
}

describe('Recall at other budgets', () => {
  it('grows with the false alarms that are allowed, and is that of the best threshold', () => {
    // The sure failure stands alone at the top; the doubtful one beside two false alarms.
    const scores = scoresWith([
      [970, 25, 0.9],
      [3970, 25, 0.5],
      [6000, 10, 0.6],
      [7000, 10, 0.6],
    ]);
    const recalls = tradeOf([cellWith([1000, 4000])], [scores], rules, 1).map(({ budget, recall }) => [budget, recall]);
    expect(recalls).to.deep.equal([
      [0.1, 0.5],
      [0.3, 0.5],
      [1, 0.5],
      [3, 1],
      [10, 1],
    ]);
  });

  it('is nothing where no threshold keeps the budget, and says so', () => {
    const scores = scoresWith([[2000, 10, 0.9]]);
    const [strict] = tradeOf([cellWith([4000])], [scores], rules, 1);
    expect(strict).to.deep.include({ recall: 0, falseAlarmsPerCellDay: 0, threshold: null });
  });
});
