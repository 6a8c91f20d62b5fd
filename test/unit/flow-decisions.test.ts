import { expect } from 'chai';
import fc from 'fast-check';
import { holdAtMostMs } from '../../workflows/aim';
import { decide } from '../../workflows/decide';
import { outcomes, overrideActions, phases, type OverrideAction, type Phase } from '../../workflows/messages';
import { reachOf } from '../../workflows/guards';
import { acceptedIn, answer } from '../../workflows/override';
import { followers } from '../../workflows/transitions';
import { World, contextOf, factsOf, leftoverOf, policyOf, risingCell, startMs } from '../support/failover-world';

const isFinish = (step: { kind: string }) => step.kind === 'finish';
const isWatch = (step: { kind: string }) => step.kind === 'watch';

describe('a failover decides', () => {
  it('makes, warms and arms a synthetic cell at level prepare, and moves nothing', () => {
    const world = new World().risk('prepare');
    world.until(isWatch, { risk: 'prepare' });
    expect(world.taken.map((t) => t.step.kind)).to.deep.equal(['load', 'await-turn', 'ensure', 'warm', 'arm']);
    for (let i = 0; i < 20; i++) world.risk('prepare').advance();
    expect(world.changes).to.deep.equal([]);
    expect(world.failover.phase).to.equal('armed');
  });

  it('tries a canary on one instance, then goes on in steps until it carries the whole share', () => {
    const world = new World().risk('shift');
    world.until(() => world.syntheticBp === 5000, { risk: 'shift' });
    expect(world.changes.map((s) => s.targetBp)).to.deep.equal([500, 2000, 3500, 5000]);
    expect(world.changes.map((s) => s.coverInstances)).to.deep.equal([1, 0, 0, 0]);
    expect(world.changes[0]?.purpose).to.equal('canary');
  });

  it('completes in one change when the source dies after arming, whatever the risk says', () => {
    for (const level of ['prepare', 'shift'] as const) {
      const world = new World().risk(level);
      world.until(() => world.failover.phase === 'armed', { risk: level });
      world.source = 'dead';
      world.until(isFinish);
      expect(world.failover.conclusion?.outcome).to.equal('failed-over');
      expect(world.changes.at(-1)).to.include({ purpose: 'complete', targetBp: 5000 });
      expect(world.sourceBp).to.equal(0);
    }
  });

  it('gives the traffic back in steps when the risk clears, and rests the cell', () => {
    const world = new World().risk('shift');
    world.until(() => world.syntheticBp === 5000, { risk: 'shift' });
    world.risk('clear');
    world.until(isFinish);
    expect(world.changes.slice(-4).map((s) => s.targetBp)).to.deep.equal([3500, 2000, 500, 0]);
    expect(world.taken.map((t) => t.step.kind)).to.include('rest');
    expect(world.failover.conclusion).to.include({ outcome: 'drained' });
    expect(world.sourceBp).to.equal(5000);
  });

  it('drains at once when the risk clears before anything moved', () => {
    const world = new World().risk('prepare');
    world.until(isWatch, { risk: 'prepare' });
    world.risk('clear');
    world.until(isFinish);
    expect(world.changes).to.deep.equal([]);
    expect(world.failover.conclusion?.outcome).to.equal('drained');
  });

  it('turns round when the risk rises again while it gives back', () => {
    const world = new World().risk('shift');
    world.until(() => world.syntheticBp === 5000, { risk: 'shift' });
    world.risk('clear');
    world.until(() => world.syntheticBp === 2000);
    world.risk('shift', { episode: 2 });
    world.until(() => world.syntheticBp === 5000, { steps: 60 });
    expect(world.failover.phase).to.equal('shifting');
  });

  it('holds on stale risk: silence is never health', () => {
    const world = new World().risk('shift');
    world.until(() => world.syntheticBp === 2000, { risk: 'shift' });
    const before = world.changes.length;
    world.nowMs += 20_000;
    for (let i = 0; i < 30; i++) world.advance();
    expect(world.changes.length).to.equal(before);
    expect(world.next().why).to.contain('stale');
  });

  it('gives back what nobody speaks for once the hold has lasted its time', () => {
    const world = new World(contextOf({ policy: policyOf({ holdAtMostS: 30, staleAfterS: 2 }) })).risk('shift');
    world.until(() => world.syntheticBp === 2000, { risk: 'shift' });
    world.until(isFinish);
    expect(world.failover.conclusion?.outcome).to.equal('aborted');
    expect(world.failover.conclusion?.reason).to.contain('stale');
    expect(world.syntheticBp).to.equal(0);
  });

  it('does not believe a clear that was old when it came', () => {
    const world = new World().risk('shift');
    world.until(() => world.syntheticBp === 5000, { risk: 'shift' });
    world.nowMs += 40_000;
    world.risk('clear', { ageMs: 30_000 });
    for (let i = 0; i < 20; i++) world.advance();
    expect(world.syntheticBp).to.equal(5000);
  });

  it('gives back at once and retires a synthetic cell that answers with errors', () => {
    const world = new World().risk('shift');
    world.syntheticErrorRatio = 0.5;
    world.until(isFinish, { risk: 'shift' });
    expect(world.failover.conclusion?.outcome).to.equal('compensated');
    expect(world.changes.map((s) => s.purpose)).to.deep.equal(['canary', 'give-back']);
    expect(world.taken.map((t) => t.step.kind)).to.include('retire');
    expect(world.sourceBp).to.equal(5000);
  });

  it('holds and says so when the canary sees too few requests', () => {
    const world = new World().risk('shift');
    world.requestsPerSecond = 0;
    for (let i = 0; i < 100; i++) world.risk('shift').advance();
    expect(world.syntheticBp).to.equal(500);
    expect(world.next().why).to.contain('no verdict');
  });

  it('never gives the synthetic cell more than its capacity', () => {
    const world = new World(contextOf({ capacityBp: 3000 })).risk('shift');
    for (let i = 0; i < 60; i++) world.risk('shift').advance();
    expect(world.syntheticBp).to.equal(3000);
    world.source = 'dead';
    world.until(isFinish);
    expect(world.syntheticBp).to.equal(3000);
    expect(world.failover.conclusion?.reason).to.contain('beyond its capacity');
  });

  it('ends as failed over when an evacuated source neither dies nor recovers', () => {
    const world = new World(contextOf({ policy: policyOf({ holdAtMostS: 30 }) })).risk('shift');
    world.until(() => world.failover.conclusion !== null, { risk: 'shift' });
    expect(world.failover.conclusion?.outcome).to.equal('failed-over');
    expect(world.failover.conclusion?.reason).to.contain('evacuated');
    expect(world.syntheticBp).to.equal(5000);
  });

  it('only advises where the policy says so', () => {
    const world = new World(contextOf({ policy: policyOf({ autonomy: 'advise' }) })).risk('shift');
    world.until(() => world.failover.conclusion !== null);
    expect(world.failover.conclusion?.outcome).to.equal('refused');
    expect(world.failover.conclusion?.reason).to.contain('50 %');
    expect(world.taken.map((t) => t.step.kind)).to.not.include('ensure');
  });

  it('waits armed for approval, and moves once it has it', () => {
    const world = new World(contextOf({ policy: policyOf({ autonomy: 'approve' }) })).risk('shift');
    for (let i = 0; i < 20; i++) world.risk('shift').advance();
    expect(world.changes).to.deep.equal([]);
    expect(world.next().why).to.contain('approve');
    world.order({ action: 'approve' });
    world.until(() => world.syntheticBp === 5000, { risk: 'shift' });
  });

  it('leaves the armed cell as cover when the source dies and nobody approves', () => {
    const context = contextOf({ policy: policyOf({ autonomy: 'approve', holdAtMostS: 30 }) });
    const world = new World(context).risk('shift');
    for (let i = 0; i < 20; i++) world.risk('shift').advance();
    world.source = 'dead';
    world.until(() => world.failover.conclusion !== null, { risk: 'shift' });
    expect(world.failover.conclusion?.outcome).to.equal('refused');
    expect(world.taken.map((t) => t.step.kind)).to.not.include.members(['rest', 'retire']);
  });

  it('keeps a hold even when the source dies, until a person resumes', () => {
    const world = new World().risk('shift');
    world.until(() => world.syntheticBp === 500, { risk: 'shift' });
    world.order({ action: 'hold' });
    world.source = 'dead';
    for (let i = 0; i < 50; i++) world.risk('shift').advance();
    expect(world.syntheticBp).to.equal(500);
    world.order({ action: 'resume' });
    world.until(() => world.syntheticBp === 5000, { steps: 5 });
  });

  it('takes the exact share a person orders, also under a hold', () => {
    const world = new World().risk('prepare');
    world.until(isWatch, { risk: 'prepare' });
    world.order({ action: 'hold' }).order({ action: 'step', shareBp: 1234 });
    world.advance();
    for (let i = 0; i < 10; i++) world.risk('shift').advance();
    expect(world.syntheticBp).to.equal(1234);
  });

  it('begins anew when a new episode comes in the cooldown after giving back, and absorbs late words of the old one', () => {
    const world = new World().risk('prepare');
    world.until(isWatch, { risk: 'prepare' });
    world.risk('clear');
    world.until(() => world.failover.conclusion?.saved === true);
    world.risk('shift');
    expect(world.next().kind).to.equal('wait');
    world.risk('shift', { episode: 2 });
    expect(world.next()).to.deep.include({ kind: 'begin-anew' });
  });

  it('absorbs new episodes after a failover that stands', () => {
    const world = new World().risk('shift');
    world.until(() => world.failover.phase === 'armed', { risk: 'shift' });
    world.source = 'dead';
    world.until(() => world.failover.conclusion?.saved === true);
    world.risk('shift', { episode: 2 });
    expect(world.next().kind).to.equal('wait');
  });

  it('hears each event once, and never an older one over a newer', () => {
    const world = new World().risk('shift');
    const entries = world.failover.entries.length;
    world.risk('shift');
    expect(world.failover.entries.length).to.equal(entries);
    world.nowMs += 5000;
    world.risk('prepare');
    world.risk('shift', { ageMs: 3000 });
    expect(world.failover.risk?.last.level).to.equal('prepare');
  });

  it('undoes what it began when a step fails for good', () => {
    for (const kind of ['ensure', 'warm', 'arm', 'shift'] as const) {
      const world = new World().risk('shift');
      world.until((s) => s.kind === kind, { risk: 'shift' });
      world.advance({ failing: true });
      world.until(isFinish, { risk: 'shift' });
      expect(world.failover.conclusion?.outcome, kind).to.equal('compensated');
      expect(world.taken.map((t) => t.step.kind)).to.include('retire');
      expect(world.syntheticBp).to.equal(0);
    }
  });

  it('asks for a person when even the way back fails, and tries again when told to', () => {
    const world = new World().risk('shift');
    world.until(() => world.syntheticBp === 2000, { risk: 'shift' });
    world.order({ action: 'abort' }).advance({ failing: true });
    expect(world.failover.held?.by).to.equal('understudy');
    expect(world.next().kind).to.equal('watch');
    world.order({ action: 'resume' });
    world.until(isFinish);
    expect(world.failover.conclusion?.outcome).to.equal('aborted');
  });
});

describe('a failover that finds a share left over from an earlier one', () => {
  const kindsOf = (world: World) => world.taken.map((t) => t.step.kind);

  it('goes on from that share, once the cell has answered well, and makes nothing anew', () => {
    const world = new World(contextOf({ sourceBp: 3000, leftover: leftoverOf(2000) })).risk('shift');
    world.until(() => world.changes.length === 1, { risk: 'shift' });
    expect(kindsOf(world)).to.not.include.oneOf(['ensure', 'warm', 'arm', 'await-turn']);
    expect(world.failover.proven, 'judged before it gets more').to.equal(true);
    expect(world.changes[0]).to.include({ purpose: 'step', targetBp: 3500 });
    expect(world.failover.entries.map((e) => e.what).join()).to.contain('still carries 20 %');
    world.until(() => world.syntheticBp === 5000, { risk: 'shift' });
  });

  it('gives it back when the cell answers with errors', () => {
    const world = new World(contextOf({ sourceBp: 3000, leftover: leftoverOf(2000) })).risk('shift');
    world.syntheticErrorRatio = 0.5;
    world.until(isFinish, { risk: 'shift' });
    expect(world.changes.map((s) => [s.purpose, s.targetBp])).to.deep.equal([['give-back', 0]]);
    expect(world.failover.conclusion?.outcome).to.equal('compensated');
    expect(world.sourceBp).to.equal(5000);
  });

  it('gives all of it back to a source that carries nothing, after a look at that source', () => {
    const world = new World(contextOf({ sourceBp: 0, leftover: leftoverOf(5000) })).risk('clear');
    world.until(isFinish);
    expect(kindsOf(world).slice(0, 2)).to.deep.equal(['load', 'watch']);
    expect(world.failover.conclusion?.outcome).to.equal('drained');
    expect(world.sourceBp).to.equal(5000);
    expect(kindsOf(world)).to.include('rest');
  });

  it('is failed over as soon as the source is seen to be dead', () => {
    for (const autonomy of ['act', 'approve'] as const) {
      const policy = policyOf({ autonomy });
      const world = new World(contextOf({ policy, sourceBp: 0, leftover: leftoverOf(5000) })).risk('shift');
      world.source = 'dead';
      world.until(() => world.failover.conclusion !== null, { steps: 5 });
      expect(world.failover.conclusion?.outcome, autonomy).to.equal('failed-over');
      expect(world.changes).to.deep.equal([]);
      expect(world.syntheticBp).to.equal(5000);
    }
  });

  it('takes what was left at a source that is dead, without provisioning anything', () => {
    const world = new World(contextOf({ sourceBp: 3000, leftover: leftoverOf(2000) })).risk('prepare');
    world.source = 'dead';
    world.until(isFinish);
    expect(world.changes.map((s) => [s.purpose, s.targetBp])).to.deep.equal([['complete', 5000]]);
    expect(world.failover.conclusion?.outcome).to.equal('failed-over');
  });

  it('ends also when the source, evacuated already, neither dies nor recovers', () => {
    const policy = policyOf({ holdAtMostS: 30 });
    const world = new World(contextOf({ policy, sourceBp: 0, leftover: leftoverOf(5000) })).risk('shift');
    world.until(() => world.failover.conclusion !== null, { risk: 'shift' });
    expect(world.failover.conclusion?.reason).to.contain('evacuated');
    expect(world.syntheticBp).to.equal(5000);
  });

  it('leaves it alone where the policy is to advise only', () => {
    const policy = policyOf({ autonomy: 'advise' });
    const world = new World(contextOf({ policy, sourceBp: 3000, leftover: leftoverOf(2000) })).risk('clear');
    world.until(isFinish);
    expect(world.changes).to.deep.equal([]);
    expect(kindsOf(world)).to.not.include.oneOf(['rest', 'retire']);
    expect(world.syntheticBp).to.equal(2000);
  });
});

describe('overrides', () => {
  /** A failover in each phase, as it gets there by itself. */
  const inPhase: Record<Phase, () => World> = {
    assessing: () => new World().risk('shift'),
    provisioning: () => interrupted('ensure'),
    warming: () => interrupted('warm'),
    armed: () => reached((w) => w.failover.phase === 'armed'),
    canary: () => reached((w) => w.failover.phase === 'canary' && w.syntheticBp > 0),
    shifting: () => reached((w) => w.failover.phase === 'shifting' && w.sourceBp === 0),
    'failed-over': () => {
      const world = reached((w) => w.failover.phase === 'armed');
      world.source = 'dead';
      world.until(() => world.failover.phase === 'failed-over');
      return world;
    },
    draining: () => {
      const world = reached((w) => w.syntheticBp === 5000).risk('clear');
      world.until(() => world.syntheticBp === 3500);
      return world;
    },
    cooldown: () => {
      const world = reached((w) => w.failover.phase === 'armed').risk('clear');
      world.until(() => world.failover.phase === 'cooldown');
      return world;
    },
  };

  function reached(there: (world: World) => boolean): World {
    const world = new World().risk('shift');
    world.until(() => there(world), { risk: 'shift' });
    return world;
  }

  /** As it is while the activity is under way. */
  function interrupted(kind: string): World {
    const world = new World().risk('shift');
    const step = world.until((s) => s.kind === kind, { risk: 'shift' });
    world.failover = { ...world.failover, phase: step.phase };
    return world;
  }

  // Accepted in a run of autonomy `act`, with nothing held: approve and resume have nothing to do there.
  const table: Record<Phase, OverrideAction[]> = {
    assessing: ['approve', 'hold', 'drain', 'abort'],
    provisioning: ['hold', 'drain', 'abort'],
    warming: ['hold', 'drain', 'abort'],
    armed: ['hold', 'step', 'complete', 'drain', 'abort'],
    canary: ['hold', 'step', 'complete', 'drain', 'abort'],
    shifting: ['hold', 'step', 'complete', 'promote', 'drain', 'abort'],
    'failed-over': [],
    draining: ['hold', 'step', 'complete', 'drain', 'abort'],
    cooldown: [],
  };

  for (const phase of phases) {
    it(`are accepted in ${phase} exactly where the table says so, and refused with a reason elsewhere`, () => {
      const { failover } = inPhase[phase]();
      expect(failover.phase).to.equal(phase);
      for (const action of overrideActions) {
        const reply = answer(failover, {
          action,
          by: 'ada',
          reason: 'test',
          ...(action === 'step' && { shareBp: 1000 }),
        });
        expect(reply.accepted, `${action} in ${phase}: ${reply.message}`).to.equal(table[phase].includes(action));
        expect(reply.message).to.not.equal('');
        if (table[phase].includes(action)) expect(acceptedIn[action]).to.include(phase);
      }
    });
  }

  it('do not send traffic back to a dead cell', () => {
    const world = reached((w) => w.syntheticBp === 2000);
    world.order({ action: 'hold' });
    world.source = 'dead';
    world.advance();
    for (const action of ['drain', 'abort'] as const) {
      expect(answer(world.failover, { action, by: 'ada', reason: 'x' }).accepted).to.equal(false);
    }
  });

  it('that cannot be read are refused, whatever they are', () => {
    const { failover } = inPhase.armed();
    fc.assert(
      fc.property(fc.anything(), (junk) => {
        expect(answer(failover, junk).accepted).to.equal(false);
      }),
    );
  });
});

describe('over random lives, a failover', () => {
  const happening = fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({
        kind: fc.constant('risk' as const),
        level: fc.constantFrom('clear', 'prepare', 'shift', 'shift', 'shift'),
      }),
    },
    { weight: 8, arbitrary: fc.record({ kind: fc.constant('go' as const), times: fc.integer({ min: 1, max: 6 }) }) },
    {
      weight: 1,
      arbitrary: fc.record({ kind: fc.constant('silence' as const), ms: fc.integer({ min: 1000, max: 40_000 }) }),
    },
    {
      weight: 1,
      arbitrary: fc.record({
        kind: fc.constant('source' as const),
        state: fc.constantFrom('alive', 'failing', 'dead'),
      }),
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('errors' as const), ratio: fc.constantFrom(0, 0, 0.3) }) },
    {
      weight: 1,
      arbitrary: fc.record({ kind: fc.constant('capacity' as const), bp: fc.constantFrom(null, 0, 800, 3000, 9000) }),
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('failure' as const) }) },
    {
      weight: 1,
      arbitrary: fc.record({
        kind: fc.constant('fleet' as const),
        fleet: fc.constantFrom('quiet', 'stopped', 'rising', 'spent', 'flapping'),
      }),
    },
    {
      weight: 2,
      arbitrary: fc.record({
        kind: fc.constant('doubt' as const),
        trust: fc.constantFrom(0, 0.3, 0.55, 1),
        p10: fc.constantFrom(null, 0.5, 5, 30),
      }),
    },
    {
      weight: 2,
      arbitrary: fc.record({
        kind: fc.constant('order' as const),
        action: fc.constantFrom(...overrideActions),
        shareBp: fc.integer({ min: -10, max: 11_000 }),
      }),
    },
  );

  function live(world: World, life: (typeof happening extends fc.Arbitrary<infer T> ? T : never)[]): void {
    let episode = 1;
    world.risk('prepare');
    for (const event of life) {
      if (event.kind === 'risk') {
        if (event.level === 'clear') episode += 1;
        world.risk(event.level, { episode });
      } else if (event.kind === 'go') {
        for (let i = 0; i < event.times; i++) checked(world);
      } else if (event.kind === 'silence') world.nowMs += event.ms;
      else if (event.kind === 'source') world.source = event.state;
      else if (event.kind === 'errors') world.syntheticErrorRatio = event.ratio;
      else if (event.kind === 'capacity') world.capacityBp = event.bp;
      else if (event.kind === 'fleet') world.facts = fleets[event.fleet]();
      else if (event.kind === 'doubt') doubt(world, event.trust, event.p10, episode);
      else if (event.kind === 'failure') checked(world, true);
      else world.order({ action: event.action, shareBp: event.shareBp });
    }
  }

  const flap = { cell: 'shop-a', outcome: 'drained' as const, endedAtMs: startMs, hadCell: true };
  const fleets = {
    quiet: () => factsOf(),
    stopped: () => factsOf({ stop: { by: 'ada', reason: 'test' } }),
    rising: () => factsOf({ rising: ['b', 'c', 'd', 'e'].map((cell) => risingCell(cell)) }),
    spent: () => factsOf({ standbyCellHours: 1000 }),
    flapping: () => factsOf({ past: [flap, flap, flap, flap] }),
  };

  function doubt(world: World, trust: number, p10: number | null, episode: number): void {
    world.nowMs += 1;
    world.risk('shift', { trust, episode, timeToFailureS: { p10, p50: p10, p90: null } });
  }

  /** One step, and what must hold at every step. */
  function checked(world: World, failing = false): void {
    const { failover } = world;
    const before = world.syntheticBp;
    const known = { ...failover.traffic };
    const phaseBefore = failover.phase;
    const { reach } = reachOf(failover, world.nowMs);
    const step = world.advance({ failing });
    for (const [from, to] of phaseChanges(phaseBefore, world, failover.phaseTimes.length)) {
      expect(followers[from], `${from} ▶ ${to}`).to.include(to);
    }
    const atStake = world.context.sourceBp + (world.context.leftover?.shareBp ?? 0);
    expect(world.sourceBp + world.syntheticBp, 'shares add up').to.equal(atStake);
    if (step.kind !== 'shift') return;
    expect(step.targetBp).to.be.within(0, atStake);
    if (step.targetBp > before) {
      expect(step.targetBp, 'never more than the capacity known').to.be.at.most(
        Math.max(known.capacityBp ?? 10_000, 0),
      );
    }
    if (step.purpose === 'canary' || step.purpose === 'step' || step.purpose === 'emergency') {
      expect(
        failover.context?.fleet ? failover.traffic.capacityBp : 0,
        'no shift without a measured load',
      ).to.not.equal(null);
      expect(['canary', 'shift'], 'no shift beyond what the guards allow').to.include(reach);
      if (reach === 'canary') expect(step.purpose, 'a canary and no more').to.equal('canary');
      expect(failover.held, 'a hold is not broken').to.equal(null);
      expect(failover.risk?.last.level, 'no shift on low-level risk').to.equal('shift');
      const ageMs = world.taken.at(-1)!.atMs - Date.parse(failover.risk!.last.at);
      expect(ageMs, 'no shift on stale risk').to.be.below(15_000);
    }
    if (step.purpose === 'complete' && failover.order === null) {
      expect(failover.source.state).to.equal('dead');
      expect(failover.held, 'a hold is not broken, not even by a death').to.equal(null);
    }
    if (step.purpose === 'reduce') expect(failover.held, 'a hold is not broken on the way back').to.equal(null);
  }

  function phaseChanges(before: Phase, world: World, known: number): [Phase, Phase][] {
    const entered = world.failover.phaseTimes.slice(known).map((p) => p.phase);
    return entered.map((phase, i) => [i === 0 ? before : entered[i - 1]!, phase]);
  }

  it('keeps its invariants and always ends in a named outcome with a reason', () => {
    fc.assert(
      fc.property(
        fc.array(happening, { maxLength: 60 }),
        fc.constantFrom('act', 'act', 'approve', 'advise', 'observe'),
        fc.constantFrom(null, 0, 2500),
        fc.constantFrom(0, 0, 2000, 5000),
        fc.boolean(),
        (life, autonomy, capacityBp, leftBp, knowsFleet) => {
          const approval = { waitS: 30, byDefault: 'act' as const };
          const policy = policyOf({ autonomy: autonomy as 'act', holdAtMostS: 60, operatorWaitS: 60, approval });
          const left = leftBp > 0 ? { sourceBp: 5000 - leftBp, leftover: leftoverOf(leftBp) } : {};
          const fleet = knowsFleet ? { fleet: factsOf() } : {};
          const world = new World(contextOf({ policy, capacityBp, ...left, ...fleet }));
          live(world, life);
          // A fleet that is stopped goes on one day.
          world.facts = factsOf();
          // A hold lasts until a person ends it: one does.
          const ended = () => ['finish', 'begin-anew'].includes(world.next().kind);
          for (let i = 0; i < 2000 && !ended(); i++) {
            if (world.failover.held) world.order({ action: 'resume' });
            checked(world);
          }
          expect(ended(), `does not end: ${JSON.stringify(world.next())}`).to.equal(true);
          expect(outcomes).to.include(world.failover.conclusion?.outcome);
          expect(world.failover.conclusion?.reason).to.not.equal('');
        },
      ),
      { numRuns: 300 },
    );
  }).timeout(120_000);

  it('decides the same from the same knowledge, and waits only for times to come', () => {
    fc.assert(
      fc.property(fc.array(happening, { maxLength: 40 }), (life) => {
        const world = new World();
        live(world, life);
        const step = decide(world.failover, world.nowMs);
        expect(decide(structuredClone(world.failover), world.nowMs)).to.deep.equal(step);
        if ((step.kind === 'watch' || step.kind === 'wait') && step.untilMs !== null) {
          expect(step.untilMs).to.be.above(world.nowMs);
        }
      }),
      { numRuns: 500 },
    );
  }).timeout(120_000);

  it('survives being written down at any point: all it knows is plain data', () => {
    const world = new World().risk('shift');
    for (let i = 0; i < 40; i++) {
      world.risk('shift').advance();
      world.failover = JSON.parse(JSON.stringify(world.failover)) as typeof world.failover;
    }
    expect(world.syntheticBp).to.equal(5000);
    expect(holdAtMostMs(world.failover)).to.be.above(0);
    expect(world.nowMs).to.be.above(startMs);
  });
});
