import { expect } from 'chai';
import { drillSchema } from '../../blueprints/schema';
import { drillPermit, type DrillFacts } from '../../workflows/drill-permit';

/** A Sunday. */
const noon = Date.parse('2026-11-22T12:00:00Z');

function permit(change: Partial<DrillFacts> = {}, drill: object = {}) {
  const cells = ['shop-a', 'shop-b'].map((name) => ({ name, load: 0.6, errorRatio: 0, shareBp: 5000 }));
  const base = {
    autonomy: 'act' as const,
    nowMs: noon,
    underWay: [],
    cells,
    maxErrorRatio: 0.02,
    minSourceLoad: 0.02,
    standIns: [],
  };
  return drillPermit({ ...base, drill: drillSchema.parse(drill), ...change });
}
const why = (...args: Parameters<typeof permit>) => ((p) => (p.go ? 'it may' : p.why))(permit(...args));
const a = { name: 'shop-a', load: 0.6, errorRatio: 0, shareBp: 5000 };

describe('A drill', () => {
  it('may begin where every cell has room and nothing is under way', () => expect(permit().go).to.equal(true));

  it('takes each cell in turn, or the one that was named', () => {
    const turns = [0, 1, 2, 3].map((n) => permit({ nowMs: noon + n * 168 * 3_600_000 }));
    expect(new Set(turns.map((p) => p.go && p.cell))).to.deep.equal(new Set(['shop-a', 'shop-b']));
    expect(permit({}, { cell: 'shop-b' })).to.deep.equal({ go: true, cell: 'shop-b' });
    expect(why({}, { cell: 'shop-c' })).to.contain('no cell carries enough');
  });

  it('does not begin under a policy that moves no traffic', () => {
    expect(why({ autonomy: 'observe' })).to.match(/autonomy observe .* set policy\.autonomy to /);
  });

  it('does not begin while a failover is open, or what an earlier one left still carries', () => {
    expect(why({ underWay: ['failover/shop/shop-b'] })).to.contain('failover/shop/shop-b');
    expect(why({ standIns: ['shop-a-understudy-1'] })).to.contain('shop-a-understudy-1');
  });

  it('does not begin without room at every cell, without load reports, or beside errors', () => {
    expect(why({ cells: [a, { ...a, name: 'shop-b', load: 0.85 }] })).to.contain('shop-b has 1500 bp');
    expect(why({ cells: [{ ...a, load: null }] })).to.contain('load reports');
    expect(why({ cells: [{ ...a, errorRatio: 0.5 }] })).to.contain('50.0 %');
  });

  it('does not begin where there are too few requests for anything to move', () => {
    const quiet = { ...a, load: 0.012 };
    expect(why({ cells: [quiet, { ...quiet, name: 'shop-b' }] })).to.match(
      /too few requests.*shop-a 1\.2 %.*minSourceLoad/,
    );
    expect(permit({ cells: [quiet, { ...a, name: 'shop-b' }] })).to.deep.equal({ go: true, cell: 'shop-b' });
  });

  const windows: [string, object, string, boolean][] = [
    ['inside', { from: '11:00', to: '13:00' }, '12:00', true],
    ['at its end', { from: '11:00', to: '12:00' }, '12:00', false],
    ['on another day', { days: ['mon'], from: '11:00', to: '13:00' }, '12:00', false],
    ['before midnight, over midnight', { days: ['sun'], from: '22:00', to: '06:00' }, '23:00', true],
    ['after midnight, of the day before', { days: ['sat'], from: '22:00', to: '06:00' }, '05:00', true],
    ['after midnight, of this day', { days: ['sun'], from: '22:00', to: '06:00' }, '05:00', false],
  ];
  for (const [what, window, clock, blocked] of windows) {
    it(`is ${blocked ? 'blocked' : 'free'} ${what} of a blocked window`, () => {
      const nowMs = Date.parse(`2026-11-22T${clock}:00Z`);
      expect(why({ nowMs }, { blocked: [window] }).includes('blocked')).to.equal(blocked);
    });
  }
});
