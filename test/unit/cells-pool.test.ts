/** How many cells wait idle follows from what an outage costs and what waiting costs. */
import { expect } from 'chai';
import fc from 'fast-check';
import { policySchema } from '../../blueprints/schema';
import { decidePool, poolText, type PoolQuestion } from '../../cells/pool-economics';

const question = (change: Partial<PoolQuestion> = {}, prices: object = {}): PoolQuestion => ({
  service: 'shop',
  cells: 3,
  predictions: 3,
  observedH: 720,
  quietH: 24,
  outageMinutes: 15,
  budgetHours: 48,
  prices: policySchema.parse({ pool: prices }).pool,
  ...change,
});
const keep = (change: Partial<PoolQuestion> = {}, prices: object = {}) => decidePool(question(change, prices)).keep;

describe('The number of idle cells', () => {
  it('is none where an outage is cheap or waiting is dear, and one where it is the other way round', () => {
    expect(keep({}, { outageCostPerMinute: 0 })).to.equal(0);
    expect(keep({}, { outageCostPerMinute: 0.01 })).to.equal(0);
    expect(keep({}, { cellCostPerHour: 100 })).to.equal(0);
    expect(keep({}, { outageCostPerMinute: 100 })).to.equal(1);
  });

  it('is bounded by what may wait at most and by the budget, and says which', () => {
    const dear = { outageCostPerMinute: 1e6, lateShare: 1 };
    expect(decidePool(question({}, dear))).to.include({ keep: 1, boundBy: 'mostIdle' });
    expect(decidePool(question({ budgetHours: 23 }, dear))).to.include({ keep: 0, boundBy: 'budget' });
    expect(keep({ budgetHours: 240 }, { ...dear, mostIdle: 3 })).to.equal(3);
  });

  it('follows recent failures: soon after one more is expected than after a quiet month', () => {
    const perHour = (quietH: number | null) => decidePool(question({ quietH })).predictionsPerHour;
    expect(perHour(1)).to.be.greaterThan(3 * perHour(500));
    expect(perHour(null)).to.be.lessThan(perHour(24));
  });

  it('never falls when failures grow likelier or outages dearer, and is the cheapest of its sums', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 200 }),
        fc.double({ min: 0.1, max: 700, noNaN: true }),
        fc.double({ min: 0, max: 1000, noNaN: true }),
        (predictions, quietH, outageCostPerMinute) => {
          const prices = { outageCostPerMinute, mostIdle: 16 };
          const asked = question({ predictions, quietH, budgetHours: 1e6 }, prices);
          const { keep: kept, sums } = decidePool(asked);
          expect(sums[kept]!.totalCost).to.equal(Math.min(...sums.map(({ totalCost }) => totalCost)));
          const more = question({ predictions: predictions + 10, quietH, budgetHours: 1e6 }, prices);
          expect(decidePool(more).keep).to.be.at.least(kept);
          const dearer = { ...prices, outageCostPerMinute: outageCostPerMinute * 2 };
          expect(keep({ predictions, quietH, budgetHours: 1e6 }, dearer)).to.be.at.least(kept);
        },
      ),
      { numRuns: 200 },
    );
  });

  it('can be read with its sum', () => {
    const rest = { how: 'stopped', why: 'auto: the last start was ready after 0.40 s' } as const;
    const text = poolText(question({ rest }), decidePool(question()));
    expect(text).to.contain('\n  idle cells rest stopped: auto: the last start was ready after 0.40 s\n');
    expect(text).to.match(/^shop: keep 1 idle: .*\n {2}3 cells, 3 predictions in 30\.0 days \(the last 24\.0 h ago\)/);
    expect(text).to.match(/one too late costs 15 min x 10 = 150/);
    expect(text.split('\n')).to.have.length(11);
  });
});
