import { expect } from 'chai';
import type { Policy } from '../../blueprints/schema';
import { World, contextOf, factsOf, policyOf, type RiskOptions } from '../support/failover-world';

const inHours: RiskOptions = { timeToFailureS: { p10: null, p50: null, p90: null } };
const concluded = (world: World) => () => world.failover.conclusion !== null;

function worldOf(policy: Partial<Policy> = {}): World {
  return new World(contextOf({ capacityBp: 8000, policy: policyOf(policy), fleet: factsOf() }));
}

function shifted(policy: Partial<Policy> = {}): World {
  const world = worldOf(policy);
  world.until(() => world.failover.evacuatedAtMs !== null, { risk: 'shift', ...inHours });
  return world;
}

describe('The label of a prediction', () => {
  it('is confirmed when the source fails after it, whoever carried the traffic by then', () => {
    const world = shifted();
    world.source = 'dead';
    world.until(concluded(world));
    expect(world.failover.label?.kind).to.equal('confirmed');
    expect(world.failover.label?.why).to.contain('shop-a was seen to fail');
  });

  it('is averted when the risk goes once the source is relieved', () => {
    const world = shifted();
    world.risk('clear');
    world.until(concluded(world));
    expect(world.failover.label?.kind).to.equal('averted');
  });

  it('is false when the source lives past the time predicted under its usual load', () => {
    const world = worldOf({ autonomy: 'approve' });
    for (let i = 0; i < 50; i++) world.risk('shift', inHours).advance();
    world.risk('clear');
    world.until(concluded(world));
    expect(world.failover.conclusion?.outcome).to.equal('drained');
    expect(world.failover.label?.kind).to.equal('false');
  });

  it('is unknown when it was over before the failure was due, or when relief hides the answer', () => {
    const early = worldOf({ autonomy: 'approve' });
    for (let i = 0; i < 8; i++) early.risk('shift', inHours).advance();
    early.risk('clear');
    early.until(concluded(early));
    expect(early.failover.label).to.include({ kind: 'unknown' });
    const relieved = shifted({ holdAtMostS: 120 });
    relieved.until(concluded(relieved), { risk: 'shift', ...inHours });
    expect(relieved.failover.label).to.include({ kind: 'unknown' });
    expect(relieved.failover.label?.why).to.contain('relieved');
  });

  it('is unknown where nothing ever justified moving traffic', () => {
    const world = worldOf();
    for (let i = 0; i < 8; i++) world.risk('prepare').advance();
    world.risk('clear');
    world.until(concluded(world));
    expect(world.failover.label?.kind).to.equal('unknown');
  });

  it('can be seen better where a residual share stays at the source', () => {
    const world = shifted({ residualBp: 100 });
    expect(world.sourceBp).to.equal(100);
    world.source = 'dead';
    world.until(concluded(world));
    expect(world.sourceBp, 'a death takes the rest as well').to.equal(0);
    expect(world.failover.label?.kind).to.equal('confirmed');
  });
});
