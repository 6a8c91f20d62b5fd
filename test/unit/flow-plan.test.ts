import { expect } from 'chai';
import type { Policy } from '../../blueprints/schema';
import type { FleetFacts } from '../../workflows/fleet';
import { planOf, stepMs } from '../../workflows/plan';
import { World, contextOf, factsOf, policyOf, type RiskOptions } from '../support/failover-world';

function failing(p10: number | null, p50: number | null = p10): RiskOptions {
  return { timeToFailureS: { p10, p50, p90: null } };
}

function worldOf(facts: Partial<FleetFacts> = {}, policy: Partial<Policy> = {}): World {
  return new World(contextOf({ capacityBp: 8000, policy: policyOf(policy), fleet: factsOf(facts) }));
}

function planned(world: World, options: RiskOptions) {
  world.risk('shift', options).advance();
  world.risk('shift', { ...options, eventId: 'again' });
  return planOf(world.failover, world.nowMs)!;
}

/** Armed while the failure was far away. */
function armed(facts: Partial<FleetFacts> = {}, policy: Partial<Policy> = {}): World {
  const world = worldOf(facts, policy);
  world.until(() => world.failover.phase === 'armed', { risk: 'prepare', ...failing(null) });
  world.nowMs += 1000;
  return world;
}

describe('The plan by lead time', () => {
  it('takes the long road where the early guess leaves time for it', () => {
    expect(planned(worldOf(), failing(null)).kind).to.equal('full-canary');
    expect(planned(worldOf(), failing(300, 600)).kind).to.equal('full-canary');
  });

  it('shortens the canary where it does not, and takes the rest in one step', () => {
    const world = worldOf();
    world.until(() => world.syntheticBp === 5000, { risk: 'shift', ...failing(8, 60) });
    expect(world.failover.plan?.kind).to.equal('short-canary');
    expect(world.changes.map((s) => s.purpose)).to.deep.equal(['canary', 'step']);
  });

  it('arms as cover what would not be ready in time, and plans anew once it is', () => {
    const world = worldOf();
    expect(planned(world, failing(1, 2)).kind).to.equal('arm-only');
    for (let i = 0; i < 10; i++) world.risk('shift', failing(1, 2)).advance();
    expect(world.failover.entries.map((e) => e.what).join('\n')).to.match(/plan arm-only[^]*plan emergency-shift/);
    expect(world.changes[0]).to.include({ purpose: 'emergency', targetBp: 5000 });
  });

  it('shifts at once only when even the middle guess leaves no time for proof, and judges afterwards', () => {
    const world = armed();
    world.risk('shift', failing(0.5, 1)).advance();
    expect(world.changes[0]?.purpose).to.equal('emergency');
    expect(world.failover.judgement).to.include({ of: 'synthetic', verdict: 'open' });
    const careful = armed();
    careful.risk('shift', failing(0.5, 60)).advance();
    expect(careful.changes[0]?.purpose, 'a middle guess of 60 s').to.equal('canary');
  });

  it('moves nothing without a canary where the policy forbids it, or where nothing is measured', () => {
    const leadTime = { ...policyOf().leadTime, emergencyShift: false };
    for (const world of [armed({}, { leadTime }), armed({ requestsPerSecond: null })]) {
      for (let i = 0; i < 20; i++) world.risk('shift', failing(0.5, 1)).advance();
      expect(world.changes).to.deep.equal([]);
      expect(world.failover.plan?.kind).to.equal('arm-only');
    }
  });

  it('moves at the first word of the risk although the load was measured only after the failover had begun', () => {
    const world = new World(contextOf({ capacityBp: null, fleet: factsOf() }));
    world.until(() => world.failover.phase === 'armed', { risk: 'prepare', ...failing(null) });
    world.facts = factsOf({ capacityBp: 8000 });
    world.nowMs += 60_000;
    world.risk('shift', failing(null));
    expect([world.advance(), world.advance()].map((s) => s.kind)).to.deep.equal(['survey', 'shift']);
  });

  it('gives an unproven cell back when the emergency shift turns out badly', () => {
    const world = armed();
    world.syntheticErrorRatio = 0.3;
    world.until((s) => s.kind === 'finish', { risk: 'shift', ...failing(0.5, 1) });
    expect(world.failover.conclusion?.outcome).to.equal('compensated');
    expect(world.sourceBp).to.equal(5000);
  });

  it('is made anew as time passes, and each change of it is told with its reason', () => {
    const world = armed();
    world.risk('shift', failing(40, 80));
    const kinds = [0, 15_000, 30_000, 60_000, 79_000].map((ms) => planOf(world.failover, world.nowMs + ms)?.kind);
    expect(kinds[0]).to.equal('full-canary');
    expect(kinds.at(-1)).to.equal('emergency-shift');
    expect(kinds).to.include('short-canary');
    world.advance();
    const { what, evidence } = world.failover.entries.find((e) => e.what.startsWith('plan'))!;
    expect(what).to.contain('40 s to the failure at the earliest, 80 s probably');
    expect(evidence).to.have.nested.property('needs.fullMs');
  });

  it('gives the canary the share that its requests need in the time there is', () => {
    const shareAt = (requestsPerSecond: number, p10: number) =>
      planned(armed({ requestsPerSecond }), failing(p10, 600)).canaryBp;
    expect(shareAt(10_000, 300), 'many requests: the usual share').to.equal(500);
    expect(shareAt(100, 300), 'few requests: more').to.be.within(501, 1500);
    expect(shareAt(1, 300), 'never more than the largest').to.equal(1500);
    expect(shareAt(300, 15), 'less time: more').to.be.above(shareAt(300, 300));
  });

  it('believes measured durations once there are enough, and until then the larger of what was said and seen', () => {
    expect(stepMs({}, 'ensure', 15)).to.equal(15_000);
    expect(stepMs({ ensure: [400] }, 'ensure', 15)).to.equal(15_000);
    expect(stepMs({ ensure: [400, 90_000] }, 'ensure', 15)).to.equal(90_000);
    const twenty = Array.from({ length: 20 }, (_, i) => (i + 1) * 100);
    expect(stepMs({ ensure: twenty }, 'ensure', 15), 'p95 of 20').to.equal(1900);
  });

  it('keeps how long its own steps took, for later plans', () => {
    const world = armed();
    expect(world.failover.took).to.deep.include({ step: 'ensure', ms: 1500 });
    expect(world.failover.took).to.deep.include({ step: 'warm', ms: 1000 });
  });
});
