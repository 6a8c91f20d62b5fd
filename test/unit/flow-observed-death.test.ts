import { expect } from 'chai';
import type { RiskEvent, RiskLevel } from '../../prediction/contracts';
import { World, contextOf, factsOf, policyOf, startMs, type RiskOptions } from '../support/failover-world';

/** To its end; the detector falls silent once the cell has no share. */
function toTheEnd(world: World, repeating: RiskOptions & { risk?: RiskLevel } = {}): void {
  world.until((step) => step.kind === 'conclude', repeating);
  world.until((step) => step.kind === 'finish');
}

/** What the failure detector tells. */
function seen(state: 'dead' | 'alive'): Partial<RiskEvent> & { episode: number } {
  return { episode: 9, observed: { state, why: 'none of its 2 instances has answered' }, model: 'failure-detector' };
}

function withFacts(policy: Parameters<typeof policyOf>[0] = {}): World {
  return new World(contextOf({ policy: policyOf(policy), fleet: factsOf(), capacityBp: 10_000 }));
}

describe('A death that nobody predicted', () => {
  it('gets a stand-in at once, which takes all in one change; the ledger learns of a failure that was missed', () => {
    const world = withFacts();
    world.source = 'dead';
    world.risk('shift', seen('dead'));
    toTheEnd(world, { risk: 'shift', ...seen('dead') });
    expect(world.taken.map((t) => t.step.kind).filter((kind) => kind !== 'wait' && kind !== 'survey')).to.deep.equal([
      'load',
      'await-turn',
      'ensure',
      'warm',
      'arm',
      'shift',
      'conclude',
      'save',
    ]);
    expect(world.changes.at(-1)).to.include({ purpose: 'complete', targetBp: 5000 });
    expect(world.failover.conclusion?.outcome).to.equal('failed-over');
    expect(world.failover.label).to.include({ kind: 'missed', failedAt: new Date(startMs).toISOString() });
  });

  it('hurries a failover that was still preparing, and leaves it its prediction', () => {
    const world = withFacts().risk('prepare');
    world.until((step) => step.kind === 'warm', { risk: 'prepare' });
    world.source = 'dead';
    world.risk('shift', seen('dead'));
    expect(world.failover.risk?.last).to.include({ level: 'prepare', model: 'test' });
    toTheEnd(world, { risk: 'prepare' });
    expect(world.failover.conclusion?.outcome).to.equal('failed-over');
  });

  it('is not forgotten when the prediction ends: a dead cell shows no risk', () => {
    const world = withFacts();
    world.source = 'dead';
    world.risk('shift', seen('dead')).advance();
    world.nowMs += 100;
    world.risk('clear');
    toTheEnd(world, { risk: 'shift', ...seen('dead') });
    expect(world.failover.conclusion?.outcome).to.equal('failed-over');
  });

  it('that is over before a stand-in is armed moves nothing', () => {
    const world = withFacts().risk('shift', seen('dead'));
    world.until((step) => step.kind === 'warm', { risk: 'shift', ...seen('dead') });
    world.nowMs += 100;
    world.risk('clear', seen('alive'));
    toTheEnd(world);
    expect(world.changes).to.deep.equal([]);
    expect(world.failover.conclusion?.outcome).to.equal('drained');
  });

  it('changes nothing where a person wants to be asked, or only to be told', () => {
    const asked = withFacts({ autonomy: 'approve', holdAtMostS: 60 });
    asked.source = 'dead';
    asked.risk('shift', seen('dead'));
    asked.until(() => asked.failover.phase === 'armed', { risk: 'shift', ...seen('dead') });
    for (let i = 0; i < 10; i++) asked.risk('shift', seen('dead')).advance();
    expect(asked.changes).to.deep.equal([]);
    asked.order({ action: 'approve' });
    toTheEnd(asked, { risk: 'shift', ...seen('dead') });
    expect(asked.failover.conclusion?.outcome).to.equal('failed-over');

    const advised = withFacts({ autonomy: 'advise' }).risk('shift', seen('dead'));
    toTheEnd(advised);
    expect(advised.failover.conclusion?.outcome).to.equal('refused');
  });

  it('begins nothing beyond the budget until a person approves', () => {
    const spent = { ...policyOf().budget, standbyCellHoursPerDay: 0 };
    const world = withFacts({ budget: spent }).risk('shift', seen('dead'));
    for (let i = 0; i < 20; i++) world.risk('shift', seen('dead')).advance();
    expect(world.failover.synthetic).to.equal(null);
    expect(world.failover.pages?.map((p) => p.why).join()).to.contain('budget');
    world.order({ action: 'approve' });
    world.until((step) => step.kind === 'ensure', { risk: 'shift', ...seen('dead') });
  });

  it('of a moment that comes again in the cooldown begins a failover of its own', () => {
    const world = withFacts({ cooldownS: 60 }).risk('prepare');
    world.until((step) => step.kind === 'warm', { risk: 'prepare' });
    world.nowMs += 100;
    world.risk('clear');
    world.until(() => world.failover.conclusion?.outcome === 'drained');
    world.risk('shift', seen('dead'));
    expect(world.until((step) => step.kind === 'begin-anew')).to.deep.include({ kind: 'begin-anew' });
  });
});
