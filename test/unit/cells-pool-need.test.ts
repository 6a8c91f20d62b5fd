/** What an idle pool lacks, and when nothing is made for it. */
import { expect } from 'chai';
import { poolNeed, type PooledCell, type PoolFacts } from '../../cells/pool-need';

const now = { name: 'shop', version: 2 };
const old = { name: 'shop', version: 1 };
const failover = 'failover/shop/shop-a';

const cell = (name: string, change: Partial<PooledCell> = {}): PooledCell => ({
  name,
  state: 'idle',
  owner: null,
  blueprint: now,
  ...change,
});
const facts = (change: Partial<PoolFacts> = {}): PoolFacts => ({
  service: 'shop',
  autonomy: 'act',
  stop: null,
  keep: 1,
  declared: ['shop-a', 'shop-b'].map((name) => ({ name, blueprint: now, isByCost: true })),
  synthetic: [],
  open: [],
  ...change,
});
const source = (change: Partial<PoolFacts>) => poolNeed(facts(change)).source;

describe('An idle pool', () => {
  it('gets a cell where fewer wait than are worth it, and none beyond', () => {
    expect(poolNeed(facts())).to.deep.include({
      source: 'shop-a',
      why: '1 worth keeping, 0 idle, 0 to come: one is made after shop-a',
    });
    expect(source({ synthetic: [cell('u1')] })).to.equal(null);
    expect(source({ synthetic: [cell('u1')], keep: 2 })).to.equal('shop-a');
    expect(source({ keep: 0 })).to.equal(null);
  });

  it('gets none where the service is only observed or advised, the fleet is stopped, or cells are kept by time', () => {
    for (const autonomy of ['observe', 'advise'] as const)
      expect(poolNeed(facts({ autonomy }))).to.deep.include({
        source: null,
        why: `1 worth keeping, 0 idle, 0 to come: none is made, for under autonomy ${autonomy} nothing is made`,
      });
    expect(source({ autonomy: 'approve' })).to.equal('shop-a');
    expect(source({ stop: { by: 'ada', reason: 'storm' } })).to.equal(null);
    expect(source({ declared: [{ name: 'shop-a', blueprint: now, isByCost: false }] })).to.equal(null);
  });

  it('counts what a failover is going to give back, but not what has moved there for good', () => {
    const held = cell('u1', { state: 'serving', owner: failover });
    expect(source({ synthetic: [held], open: [{ failover, phase: 'shifting' }] })).to.equal(null);
    expect(source({ synthetic: [held], open: [] })).to.equal('shop-a');
  });

  it('lets a failover go first that is about to want a cell', () => {
    expect(source({ open: [{ failover, phase: 'assessing' }] })).to.equal(null);
    expect(source({ open: [{ failover, phase: null }] })).to.equal(null);
    // One that has its cell already wants no other.
    const held = cell('u1', { state: 'armed', owner: failover });
    expect(source({ keep: 2, synthetic: [held], open: [{ failover, phase: 'armed' }] })).to.equal('shop-a');
  });

  it('is filled one at a time', () => {
    const made = cell('u1', { state: 'warming', owner: 'pool/shop' });
    expect(poolNeed(facts({ keep: 3, synthetic: [made] })).why).to.contain('one is made at a time');
  });

  it('counts no cell of an older blueprint, idle or to come, and says which they are', () => {
    const need = poolNeed(
      facts({ synthetic: [cell('u1', { blueprint: old }), cell('u2', { blueprint: old, owner: failover })] }),
    );
    expect(need).to.deep.include({ source: 'shop-a', idle: [], coming: [], outdated: ['u1'] });
  });

  it('goes to the blueprint that has the most declared cells for each cell that waits', () => {
    const other = { name: 'other', version: 1 };
    const declared = [
      { name: 'shop-a', blueprint: now, isByCost: true },
      { name: 'shop-b', blueprint: now, isByCost: true },
      { name: 'shop-c', blueprint: other, isByCost: true },
    ];
    expect(source({ declared, keep: 3 })).to.equal('shop-a');
    expect(source({ declared, keep: 3, synthetic: [cell('u1')] })).to.equal('shop-a');
    expect(source({ declared, keep: 3, synthetic: [cell('u1'), cell('u2')] })).to.equal('shop-c');
  });
});
