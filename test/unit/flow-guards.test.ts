import { expect } from 'chai';
import type { Policy } from '../../blueprints/schema';
import { policySchema } from '../../blueprints/schema';
import { endOfWindow, limitsOn, reachOf } from '../../workflows/guards';
import { answer } from '../../workflows/override';
import type { FleetFacts } from '../../workflows/fleet';
import { World, contextOf, factsOf, policyOf, risingCell, startMs, type RiskOptions } from '../support/failover-world';

/** Hours to the failure: these tests are not about the plan. */
const inHours: RiskOptions = { timeToFailureS: { p10: null, p50: null, p90: null } };
const hourMs = 3_600_000;

function worldOf(facts: Partial<FleetFacts> = {}, policy: Partial<Policy> = {}): World {
  return new World(contextOf({ capacityBp: 8000, policy: policyOf(policy), fleet: factsOf(facts) }));
}

/** Told of a risk that justifies moving traffic, for so many steps. */
function pressed(world: World, steps = 30, options: RiskOptions = {}): World {
  for (let i = 0; i < steps; i++) world.risk('shift', { ...inHours, ...options }).advance();
  return world;
}

const kindsOf = (world: World) => world.taken.map((t) => t.step.kind);
const toldBy = (world: World) => world.failover.entries.map((e) => e.what).join('\n');

describe('Guards of a failover', () => {
  it('limit nothing in a quiet fleet', () => {
    const world = pressed(worldOf(), 60);
    expect(limitsOn(world.failover, world.nowMs)).to.deep.equal([]);
    expect(world.syntheticBp).to.equal(5000);
  });

  it('give every default a service can live with: a policy that says nothing observes only', () => {
    const policy = policySchema.parse({});
    expect(policy.autonomy).to.equal('observe');
    expect(policy.approval.byDefault).to.equal('hold');
  });

  describe('breaker', () => {
    const together = [1, 2, 3].map((n) => risingCell(`b-${n}`, { zone: 'east', service: `s${n}` }));
    const population = { fleet: 100, 'zone:local': 5, 'service:shop': 2, 'blueprint:shop@1': 40 };
    const inZone = together.map((cell) => ({ ...cell, zone: 'local' }));

    it('begins nothing while many cells rise together, names the probable cause and calls a person', () => {
      const world = pressed(worldOf({ rising: inZone, population }));
      expect(kindsOf(world)).to.not.include('ensure');
      expect(world.failover.limited).to.include({ guard: 'breaker', reach: 'nothing' });
      expect(world.failover.limited?.why).to.contain('4 of 5 cells in zone local').and.contain('a fault of zone local');
      expect(world.failover.pages?.length).to.equal(1);
    });

    it('names a dependency that the cells share', () => {
      const metric = 'dependency.latency_p99_s';
      const world = worldOf({ rising: inZone.map((cell) => ({ ...cell, metric })), population });
      const drivers = [
        { metric: 'dependency.latency_p99_s' as const, direction: 'up' as const, contribution: 1, text: '' },
      ];
      pressed(world, 10, { drivers });
      expect(world.failover.limited?.why).to.contain('a dependency they share');
    });

    it('puts cells that have nothing in common down to telemetry or model', () => {
      const rising = Array.from({ length: 5 }, (_, n) => risingCell(`b-${n}`, { zone: `z${n}`, metric: null }));
      const world = worldOf({ rising, population: { fleet: 20, 'zone:local': 9 } });
      pressed(world, 10, { drivers: [] });
      expect(world.failover.limited?.why).to.contain('the telemetry or the model test');
    });

    it('takes few, or far apart, for a coincidence', () => {
      const few = inZone.slice(0, 1);
      const apart = inZone.map((cell, i) => ({ ...cell, sinceMs: startMs - (i + 1) * hourMs }));
      const large = { ...population, 'zone:local': 1000, fleet: 5000 };
      for (const facts of [
        { rising: few, population },
        { rising: apart, population },
        { rising: inZone, population: large },
      ]) {
        expect(pressed(worldOf(facts, { portability: 'ignore' }), 60).syntheticBp).to.equal(5000);
      }
    });

    it('lets go once a person has looked and approved', () => {
      const world = pressed(worldOf({ rising: inZone, population }));
      const approval = { action: 'approve', by: 'ada', reason: 'known' };
      expect(answer(world.failover, approval)).to.include({ accepted: true });
      world.order({ action: 'approve' });
      pressed(world, 60);
      expect(world.syntheticBp).to.equal(5000);
    });

    it('closes by itself when the others recover, and refuses in the end if they do not', () => {
      const world = pressed(worldOf({ rising: inZone, population }));
      world.facts = factsOf({ population });
      pressed(world, 60);
      expect(kindsOf(world)).to.include('survey');
      expect(world.syntheticBp).to.equal(5000);
      const refused = worldOf({ rising: inZone, population }, { holdAtMostS: 60 });
      refused.until(() => refused.failover.conclusion !== null, { risk: 'shift', ...inHours });
      expect(refused.failover.conclusion).to.include({ outcome: 'refused' });
      expect(refused.failover.conclusion?.reason).to.contain('nobody approved');
    });

    it('does not stand in the way of a cell that is seen to die', () => {
      const world = pressed(worldOf(), 8);
      world.facts = factsOf({ rising: inZone, population });
      world.source = 'dead';
      world.until(() => world.failover.conclusion !== null);
      expect(world.failover.conclusion?.outcome).to.equal('failed-over');
    });
  });

  describe('budget', () => {
    const past = (n: number) => ({
      cell: 'shop-b',
      outcome: 'drained' as const,
      endedAtMs: startMs - n * hourMs,
      hadCell: true,
    });

    it('begins nothing beyond the failovers of a day, the hours of standby or the failovers of a fleet', () => {
      const cases: [Partial<FleetFacts>, Partial<Policy['budget']>][] = [
        [{ past: [past(1), past(2)] }, { failoversPerDay: 2 }],
        [{ standbyCellHours: 8 }, { standbyCellHoursPerDay: 8 }],
        [{ rising: [risingCell('x', { zone: 'far', sinceMs: startMs - hourMs })] }, { concurrentInFleet: 1 }],
      ];
      for (const [facts, budget] of cases) {
        const base = policyOf().budget;
        const world = pressed(worldOf(facts, { budget: { ...base, ...budget } }), 10);
        expect(kindsOf(world)).to.not.include('ensure');
        expect(world.failover.limited?.guard).to.equal('budget');
        expect(pressed(worldOf(facts), 60).syntheticBp, 'within the usual budget').to.equal(5000);
      }
    });

    it('counts a day, not for ever, and only what made a cell', () => {
      const facts = { past: [past(25), { ...past(1), hadCell: false }] };
      const world = worldOf(facts, { budget: { ...policyOf().budget, failoversPerDay: 1 } });
      expect(pressed(world, 60).syntheticBp).to.equal(5000);
    });
  });

  describe('cool-down', () => {
    const flaps = (n: number, agoMs: number) =>
      Array.from({ length: n }, () => ({
        cell: 'shop-a',
        outcome: 'drained' as const,
        endedAtMs: startMs - agoMs,
        hadCell: true,
      }));

    it('of a flapping cell is prepared for, and traffic moves only once it has passed', () => {
      const world = worldOf({ past: flaps(4, 60_000) });
      pressed(world, 10);
      expect(world.failover.phase).to.equal('armed');
      expect(world.syntheticBp).to.equal(0);
      // 60 s, doubled twice: 240 s from the end of the last one.
      world.until(() => world.syntheticBp > 0, { risk: 'shift', ...inHours });
      expect(world.nowMs - startMs).to.be.within(180_000, 190_000);
    });

    it('grows with each, up to its limit, and is longer after this one', () => {
      const armed = pressed(worldOf({ past: flaps(3, 10 * hourMs) }), 8);
      armed.risk('clear');
      armed.until(() => armed.failover.conclusion !== null);
      const { conclusion } = armed.failover;
      expect(conclusion!.cooldownUntilMs - conclusion!.atMs).to.equal(240_000);
      const often = pressed(worldOf({ past: flaps(20, 60_000) }), 8);
      expect(limitsOn(often.failover, often.nowMs)[0]?.untilMs).to.equal(startMs - 60_000 + hourMs);
    });

    it('does not grow by failovers that were needed', () => {
      const past = flaps(5, 60_000).map((p) => ({ ...p, outcome: 'failed-over' as const }));
      expect(pressed(worldOf({ past }), 60).syntheticBp).to.equal(5000);
    });
  });

  describe('trust', () => {
    it('caps what may be done, step by step', () => {
      for (const [trust, guard, moved] of [
        [0.1, 'nothing', 0],
        [0.3, 'prepare', 0],
        [0.55, 'canary', 1],
        [0.9, undefined, 2],
      ] as const) {
        const world = pressed(worldOf(), 60, { trust });
        expect(world.failover.limited?.reach, `trust ${trust}`).to.equal(guard);
        expect(kindsOf(world).includes('ensure')).to.equal(guard !== 'nothing');
        const amount = world.syntheticBp === 0 ? 0 : world.syntheticBp <= 1500 ? 1 : 2;
        expect(amount, `${world.syntheticBp} bp at trust ${trust}`).to.equal(moved);
      }
    });

    it('once granted is not lost by a little less, nor won back by a little more', () => {
      const world = pressed(worldOf(), 8, { trust: 0.9 });
      const reachAt = (trust: number) =>
        reachOf(world.risk('shift', { trust, eventId: `${Math.random()}` }).failover, world.nowMs).reach;
      expect([0.9, 0.55, 0.45, 0.55, 0.61, 0.55].map(reachAt)).to.deep.equal([
        'shift',
        'shift',
        'canary',
        'canary',
        'shift',
        'shift',
      ]);
    });
  });

  describe('autonomy', () => {
    it('approve waits for ever where silence is no consent', () => {
      const world = pressed(worldOf({}, { autonomy: 'approve' }), 600);
      expect(world.syntheticBp).to.equal(0);
      expect(world.failover.phase).to.equal('armed');
      expect(toldBy(world)).to.contain('a person is asked to approve; the failover waits');
    });

    it('approve with a default goes on by itself once nobody has objected in time', () => {
      const approval = { waitS: 60, byDefault: 'act' as const };
      const world = worldOf({}, { autonomy: 'approve', approval });
      world.until(() => world.syntheticBp > 0, { risk: 'shift', ...inHours });
      expect(world.nowMs - startMs).to.be.within(60_000, 66_000);
      expect(toldBy(world)).to.contain('goes on by itself after 60 s unless somebody objects');
    });

    it('takes a hold for an objection', () => {
      const approval = { waitS: 60, byDefault: 'act' as const };
      const world = pressed(worldOf({}, { autonomy: 'approve', approval }), 8);
      world.order({ action: 'hold' });
      expect(pressed(world, 100).syntheticBp).to.equal(0);
    });
  });

  it('portability: holds at the canary where the cause would follow the traffic, and says why', () => {
    const rising = [risingCell('other-a', { blueprint: 'shop@1', zone: 'far', sinceMs: startMs - 10 * 60_000 })];
    const world = pressed(worldOf({ rising, blueprintAgeMs: 20 * 60_000 }), 60);
    expect(world.failover.limited).to.include({ guard: 'portability', reach: 'canary' });
    expect(world.failover.limited?.why).to.contain('shop@1').and.contain('other-a').and.contain('20 min ago');
    expect(world.syntheticBp).to.be.within(1, 1500);
    const old = pressed(worldOf({ rising, blueprintAgeMs: 30 * 24 * hourMs }), 60);
    expect(old.syntheticBp, 'an old build is not suspected').to.equal(5000);
  });

  it('blocked windows: arms, and moves nothing before they end', () => {
    // The lives of these tests begin on Sunday, 22 November 2026, at 06:40 UTC.
    const blockedWindows = [{ days: ['sun' as const], from: '06:00', to: '06:45', allow: 'prepare' as const }];
    const world = worldOf({}, { blockedWindows });
    world.until(() => world.syntheticBp > 0, { risk: 'shift', ...inHours });
    expect(world.nowMs - startMs).to.be.within(5 * 60_000, 6 * 60_000);
    const night = { days: ['sat' as const], from: '22:00', to: '08:00', allow: 'nothing' as const };
    expect(endOfWindow(night, startMs)).to.equal(Date.parse('2026-11-22T08:00:00Z'));
    expect(endOfWindow({ ...night, days: ['sun'] }, startMs)).to.equal(null);
    expect(endOfWindow({ ...night, to: '22:00' }, startMs), 'a whole day').to.equal(Date.parse('2026-11-22T22:00:00Z'));
  });

  it('fleet-wide stop: freezes all that is automatic, the way back as well, and goes on when it ends', () => {
    const world = pressed(worldOf(), 40);
    const before = world.syntheticBp;
    expect(before).to.be.above(0);
    world.facts = factsOf({ stop: { by: 'ada', reason: 'release' } });
    // The next survey finds it.
    world.failover = { ...world.failover, fleet: world.facts };
    world.risk('clear');
    for (let i = 0; i < 30; i++) world.advance();
    expect(world.syntheticBp).to.equal(before);
    expect(world.next().why).to.contain('stopped by ada');
    world.facts = factsOf();
    world.until((step) => step.kind === 'finish');
    expect(world.failover.conclusion?.outcome).to.equal('drained');
  });

  it('moves nothing on old facts when the fleet cannot be surveyed', () => {
    const world = pressed(worldOf(), 5);
    expect(world.failover.phase).to.equal('armed');
    const at = world.failover;
    world.failover = { ...at, fleetAtMs: world.nowMs - 60_000, traffic: { ...at.traffic, syntheticBp: 0 } };
    world.syntheticBp = 0;
    for (let i = 0; i < 20; i++) {
      world.risk('shift', inHours);
      world.advance({ failing: world.next().kind === 'survey' });
    }
    expect(world.syntheticBp).to.equal(0);
    expect(world.failover.entries.length).to.be.below(20);
    world.until(() => world.syntheticBp > 0, { risk: 'shift', ...inHours });
  });
});
