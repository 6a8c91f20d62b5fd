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

  describe('is looked for past the time predicted, as long as the failover stays open,', () => {
    const ended = (world: World) => () => world.next().kind === 'finish';
    /** How often the dossier was kept. */
    const kept = (world: World) => world.taken.filter((t) => t.step.kind === 'save').length;

    it('so that a source that dies after it got its traffic back confirms it', () => {
      const world = shifted();
      world.risk('clear');
      world.until(concluded(world));
      expect(world.failover.label?.kind).to.equal('averted');
      world.until((step) => step.kind === 'watch' && step.phase === 'cooldown');
      world.source = 'dead';
      world.until(ended(world));
      expect(world.failover.label?.kind).to.equal('confirmed');
      expect(world.failover.entries.map((e) => e.what).join('\n')).to.contain('the prediction, in the end: confirmed');
      expect(kept(world), 'what was kept is kept anew').to.equal(2);
    });

    it('so that a failover that was over too early to say is told as false in the end', () => {
      const world = worldOf({ autonomy: 'approve' });
      for (let i = 0; i < 8; i++) world.risk('shift', inHours).advance();
      world.risk('clear');
      world.until(concluded(world));
      expect(world.failover.label?.kind).to.equal('unknown');
      const dueMs = world.failover.evidence!.dueAtMs!;
      world.until(ended(world));
      expect(world.failover.label?.kind).to.equal('false');
      expect(Date.parse(world.failover.label!.watchedTo!)).to.be.at.least(dueMs);
    });

    it('and no longer than that: without a cooldown it is given at once', () => {
      const world = worldOf({ autonomy: 'approve', cooldownS: 0 });
      for (let i = 0; i < 8; i++) world.risk('shift', inHours).advance();
      world.risk('clear');
      world.until(ended(world));
      expect(world.failover.label?.kind).to.equal('unknown');
      expect(kept(world)).to.equal(1);
    });
  });

  it('is false when an evacuated source lives past the time predicted under copies of its requests', () => {
    const context = contextOf({ capacityBp: 8000, policy: policyOf({ holdAtMostS: 120 }), fleet: factsOf() });
    const world = new World({ ...context, mirrorBp: 5000 });
    world.until(concluded(world), { risk: 'shift', ...inHours });
    expect(world.sourceBp).to.equal(0);
    expect(world.failover.label).to.include({ kind: 'false' });
    expect(world.failover.label?.why).to.contain('in part copies of requests');
    // The copies end with the watch.
    world.until((step) => step.kind === 'finish');
    expect(world.taken.map((t) => t.step.kind)).to.include('label');
  });
});
