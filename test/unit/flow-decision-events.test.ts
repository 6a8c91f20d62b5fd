/** What the outside is told of a failover: each decision once, in the order of time, as a CloudEvent. */
import { expect } from 'chai';
import { decisionEvent, decisionEventSchema } from '../../blueprints/decision-events';
import { considerationsBetween, decisionsBetween, type Decision } from '../../workflows/decisions';
import type { Failover } from '../../workflows/failover';
import { begin } from '../../workflows/failover';
import { hearRisk } from '../../workflows/hear';
import { contextOf, factsOf, policyOf, riskEvent, risingCell, startMs, World } from '../support/failover-world';

/** As the workflow tells them: after every step. */
function lifeOf(world: World, steps: number): Decision[] {
  let told: Failover | null = null;
  const decisions: Decision[] = [];
  for (let i = 0; i < steps; i++) {
    decisions.push(...decisionsBetween(told, world.failover));
    told = world.failover;
    if (i === 12) world.order({ action: 'hold' }).order({ action: 'hold' });
    if (i === 16) world.order({ action: 'resume' });
    if (i === 60) world.risk('clear', { episode: 1 });
    if (i < 60 && world.next().kind !== 'finish') world.risk('shift');
    if (world.next().kind !== 'finish') world.advance();
  }
  return decisions;
}

describe('Decisions of a failover', () => {
  const decisions = lifeOf(new World().risk('shift'), 400);

  it('are one for each phase, override and outcome, none twice', () => {
    expect(new Set(decisions.map((d) => d.id)).size).to.equal(decisions.length);
    const phases = decisions.filter((d) => d.kind === 'phase').map((d) => d.data.phase);
    expect(phases.slice(0, 5)).to.deep.equal(['assessing', 'provisioning', 'warming', 'armed', 'canary']);
    expect(phases).to.include('draining');
    const overrides = decisions.filter((d) => d.kind === 'override').map((d) => d.data.accepted);
    expect(overrides, 'a second hold is refused and told as refused').to.deep.equal([true, false, true]);
    expect(decisions.filter((d) => d.kind === 'outcome').map((d) => d.data.outcome)).to.deep.equal(['drained']);
  });

  it('are two where two people order the same in one moment, also when each order is told at once', () => {
    const world = new World().risk('shift');
    const before = world.failover;
    const first = decisionsBetween(before, world.order({ action: 'hold' }).failover);
    const between = world.failover;
    const second = decisionsBetween(between, world.order({ action: 'hold' }).failover);
    const ids = [...first, ...second].map((d) => d.id);
    expect(ids.length).to.equal(2);
    expect(new Set(ids).size).to.equal(2);
    expect(decisionsBetween(before, world.failover).map((d) => d.id)).to.deep.equal(ids);
  });

  it('are the same when the failover is told about for the first time late', () => {
    const world = new World().risk('shift');
    world.until((step) => step.kind === 'watch', { risk: 'shift' });
    const atOnce = decisionsBetween(null, world.failover).map((d) => d.id);
    expect(atOnce.length).to.be.at.least(4);
    expect(decisions.map((d) => d.id)).to.include.members(atOnce);
  });

  it('are CloudEvents by the published schema, and name their source as a URI', () => {
    for (const decision of decisions) decisionEventSchema.parse(decisionEvent(decision));
    const event = decisionEvent({ ...decisions[0]!, by: 'failover/shop/a b' });
    expect(event.source).to.equal('/understudy/failover/shop/a%20b');
    expect(event.subject).to.equal('shop/shop-a');
  });
});

describe('What a failover considers', () => {
  /** Told after every step, as the workflow does it. */
  function considered(world: World, steps: number, beforeEach: (i: number) => void): Decision[] {
    let told: Failover | null = null;
    const decisions: Decision[] = [];
    for (let i = 0; i < steps; i++) {
      beforeEach(i);
      world.risk('shift').advance();
      decisions.push(...considerationsBetween(told, world.failover));
      told = world.failover;
    }
    return decisions;
  }
  const kinds = (decisions: Decision[]) => decisions.map((d) => d.kind);

  it('is told when the plan changes, not when its figures do', () => {
    const world = new World(contextOf({ fleet: factsOf(), capacityBp: 10_000 }));
    const decisions = considered(world, 30, () => (world.requestsPerSecond += 1));
    const plans = decisions.filter((d) => d.kind === 'plan').map((d) => d.data.plan);
    expect(plans.length).to.be.within(1, 4);
    expect(plans.every((plan, i) => plan !== plans[i - 1])).to.equal(true);
    expect(decisions[0]!.what).to.match(/^shop\/shop-a: plan [a-z-]+; .* to the failure/);
  });

  it('is told when a guard holds it back, when the reason changes and when it is gone, and who is called', () => {
    const rising = ['b', 'c', 'd'].map((name) => risingCell(`other-${name}`, { blueprint: 'shop@1' }));
    const world = new World(contextOf({ fleet: factsOf({ rising }), capacityBp: 10_000 }));
    const decisions = considered(world, 40, (i) => {
      // More cells of the same cause are the same reason with another figure.
      if (i === 15) world.facts = factsOf({ rising: [...rising, risingCell('other-e', { blueprint: 'shop@1' })] });
      if (i === 25) world.order({ action: 'approve' });
    });
    const guards = decisions.filter((d) => d.kind === 'guard');
    expect(guards.map((d) => d.data.guard)).to.deep.equal(['breaker', null]);
    expect(guards[0]!.what).to.contain('limited to nothing (breaker)');
    expect(kinds(decisions).filter((kind) => kind === 'page')).to.deep.equal(['page']);
    for (const decision of decisions) decisionEventSchema.parse(decisionEvent(decision));
  });

  it('is told once while the load balancer refuses one change after another for the same reason', () => {
    const world = new World(contextOf({ fleet: factsOf(), capacityBp: 10_000 }));
    world.refusals = (n) => `source load 0.0${n} is below 0.02`;
    const decisions = considered(world, 60, () => undefined);
    expect(world.changes.length).to.be.above(3);
    expect(decisions.filter((d) => d.data.guard === 'split').length).to.equal(1);
    // A night of attempts must not push out what the dossier has to tell.
    const told = world.failover.entries.filter(({ what }) => what.includes('the split was not changed'));
    expect(told.map(({ what }) => what)).to.deep.equal([
      'the split was not changed (canary): source load 0.01 is below 0.02',
    ]);
  });
});

describe('A drill', () => {
  const drill = { id: 'drill-1', shareBp: 100 };
  const practice = { ...riskEvent('shift', startMs), drill: 'drill-1', eventId: 'practice' };
  const context = contextOf({
    policy: policyOf({ canaryBp: 100, stepBp: 100 }),
    drill: { maxShareBp: 100, realPolicy: policyOf({ autonomy: 'approve' }) },
  });

  function drilled(): Failover {
    const f = begin({ service: 'shop', cell: 'shop-a', drill }, 'run-1', startMs);
    return { ...hearRisk(f, practice, startMs), context };
  }

  it('is marked in every decision', () => {
    expect(decisionsBetween(null, drilled()).every((d) => d.drill)).to.equal(true);
  });

  it('never takes more than its share', () => {
    const world = new World(context);
    world.failover = { ...world.failover, drill };
    for (let i = 0; i < 60; i++) {
      world.failover = hearRisk(world.failover, { ...practice, eventId: `${i}`, at: iso(world.nowMs) }, world.nowMs);
      world.advance();
      expect(world.syntheticBp).to.be.at.most(100);
    }
    expect(world.syntheticBp).to.equal(100);
  });

  it('becomes a real failover, under the real policy, as soon as a real prediction comes', () => {
    const real = hearRisk(drilled(), riskEvent('prepare', startMs + 1), startMs + 1);
    expect(real.drill).to.equal(null);
    expect(real.context?.drill).to.equal(undefined);
    expect(real.context?.policy.autonomy).to.equal('approve');
    expect(real.risk?.first.drill).to.equal(undefined);
    const after = hearRisk(real, { ...practice, eventId: 'late', level: 'clear' }, startMs + 2);
    expect(after.risk?.last.level, 'the practice has no say any more').to.equal('prepare');
  });

  it('does not end because a real risk that nobody acted on has cleared', () => {
    const after = hearRisk(drilled(), riskEvent('clear', startMs + 1), startMs + 1);
    expect(after.risk?.last.level).to.equal('shift');
    expect(after.drill).to.deep.equal(drill);
  });

  it('means nothing to a real failover', () => {
    const f = hearRisk(begin({ service: 'shop', cell: 'shop-a' }, 'run-1', startMs), practice, startMs);
    expect(f.risk).to.equal(null);
  });

  function iso(ms: number): string {
    return new Date(ms).toISOString();
  }
});
