/** The specification's shiftTraffic, whatever it is asked for. */
import { expect } from 'chai';
import fc from 'fast-check';
import type { CellShare } from '../../blueprints/records';
import { reduceTraffic, shiftTraffic } from '../../envoy/shift-traffic';

const splitArbitrary = fc.tuple(fc.nat(10_000), fc.nat(10_000), fc.nat(10_000)).map((cuts): CellShare[] => {
  const [x, y] = [...cuts].sort((a, b) => a - b) as [number, number, number];
  const shares = { source: x, third: y - x, synthetic: 10_000 - y };
  return Object.entries(shares).map(([cell, shareBp]) => ({ cell, shareBp, coverInstances: 1 }));
});
const share = (split: CellShare[], cell: string): number => split.find((s) => s.cell === cell)?.shareBp ?? 0;
const sum = (split: CellShare[]): number => split.reduce((total, s) => total + s.shareBp, 0);

describe('shiftTraffic', () => {
  const bp = fc.integer({ min: -100, max: 12_000 });

  it('keeps the shares at 10,000, gives no more than asked for or carried, and takes from the source alone', () => {
    fc.assert(
      fc.property(
        splitArbitrary,
        bp,
        bp,
        fc.double({ min: 0, max: 1.5, noNaN: true }),
        (split, requestedBp, capacity, load) => {
          const shift = shiftTraffic({
            split,
            source: 'source',
            synthetic: 'synthetic',
            requestedBp,
            sourceLoad: load,
            highThreshold: 0.5,
            syntheticCapacityBp: capacity,
          });
          expect(sum(shift.split)).to.equal(10_000);
          expect(share(shift.split, 'third')).to.equal(share(split, 'third'));
          expect(shift.shiftedBp).to.be.at.least(0).and.at.most(Math.max(0, requestedBp));
          expect(share(shift.split, 'synthetic')).to.equal(share(split, 'synthetic') + shift.shiftedBp);
          if (shift.shiftedBp > 0) {
            expect(share(shift.split, 'synthetic')).to.be.at.most(capacity);
            expect(load).to.be.above(0.5);
          }
          expect(shift.split.every((s) => s.shareBp >= 0)).to.equal(true);
        },
      ),
    );
  });

  const split: CellShare[] = [
    { cell: 'source', shareBp: 6000, coverInstances: 0 },
    { cell: 'third', shareBp: 4000, coverInstances: 0 },
    { cell: 'synthetic', shareBp: 0, coverInstances: 2 },
  ];
  const order = {
    split,
    source: 'source',
    synthetic: 'synthetic',
    requestedBp: 500,
    sourceLoad: 0.6,
    highThreshold: 0.1,
  };

  it('moves the requested share, keeps some instances as cover, and says so', () => {
    const shift = shiftTraffic({ ...order, syntheticCapacityBp: 5000, coverInstances: 1 });
    expect(shift.split[2]).to.deep.equal({ cell: 'synthetic', shareBp: 500, coverInstances: 1 });
    expect(shift.reason).to.equal('traffic shifted from source to synthetic (500 bp)');
  });

  it('moves nothing from an idle source, nor to a full synthetic cell, and says why', () => {
    const idle = shiftTraffic({ ...order, syntheticCapacityBp: 5000, sourceLoad: 0.05 });
    expect(idle).to.include({ shiftedBp: 0, split });
    expect(idle.reason).to.contain('source carries 5 % of its capacity');
    const nearlyIdle = shiftTraffic({ ...order, syntheticCapacityBp: 5000, sourceLoad: 0.001 });
    expect(nearlyIdle.reason).to.contain('source carries 0.1 % of its capacity');
    expect(shiftTraffic({ ...order, syntheticCapacityBp: 0 }).reason).to.contain('synthetic has no room');
  });

  it('gives traffic back step by step until nothing is left, never beyond what the source can carry', () => {
    fc.assert(
      fc.property(splitArbitrary, fc.integer({ min: 1, max: 5000 }), fc.nat(10_000), (start, reductionBp, capacity) => {
        let now = start;
        for (let step = 0; step < 10_000; step += 1) {
          const back = reduceTraffic({
            split: now,
            source: 'source',
            synthetic: 'synthetic',
            reductionBp,
            sourceHealthy: true,
            sourceCapacityBp: capacity,
          });
          expect(sum(back.split)).to.equal(10_000);
          expect(back.shiftedBp).to.be.at.most(reductionBp);
          expect(share(back.split, 'third')).to.equal(share(start, 'third'));
          now = back.split;
          if (back.shiftedBp === 0) break;
        }
        const room = Math.max(0, capacity - share(start, 'source'));
        expect(share(now, 'synthetic')).to.equal(Math.max(0, share(start, 'synthetic') - room));
      }),
    );
  });

  it('gives nothing back to a source that is not healthy', () => {
    const carried = shiftTraffic({ ...order, syntheticCapacityBp: 5000 }).split;
    const back = reduceTraffic({ ...order, split: carried, reductionBp: 500, sourceHealthy: false });
    expect(back).to.include({ shiftedBp: 0, split: carried });
  });
});
