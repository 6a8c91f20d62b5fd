import { expect } from 'chai';
import { World, contextOf, policyOf } from '../support/failover-world';

const wayBack = { calmS: 60, firstBp: 500 };

/** A source that carries nothing, and whose risk has just gone. */
function relieved(overrides: Parameters<typeof policyOf>[0] = {}): World {
  const world = new World(contextOf({ policy: policyOf({ wayBack, ...overrides }) })).risk('shift');
  world.until(() => world.sourceBp === 0, { risk: 'shift' });
  return world.risk('clear');
}

/** Seconds until the source has a share again. */
function secondsUntilBack(world: World): number {
  const fromMs = world.nowMs;
  world.until(() => world.sourceBp > 0);
  return (world.nowMs - fromMs) / 1000;
}

describe('The way back of a relieved source', () => {
  it('begins only after the risk has been away for a while, with a small share', () => {
    const world = relieved();
    expect(secondsUntilBack(world)).to.be.within(58, 64);
    expect(world.changes.at(-1)).to.include({ purpose: 'reduce', targetBp: 4500 });
    world.until((step) => step.kind === 'finish');
    expect(world.failover.conclusion?.outcome).to.equal('drained');
  });

  it('waits twice as long each time the risk comes back with the load, but no longer than a hold', () => {
    const world = relieved({ holdAtMostS: 150 });
    const waits: number[] = [];
    for (let i = 0; i < 4; i++) {
      waits.push(secondsUntilBack(world));
      world.risk('shift');
      world.until(() => world.sourceBp === 0, { risk: 'shift' });
      world.risk('clear');
    }
    [60, 120, 150, 150].forEach((expected, i) => expect(waits[i]).to.be.within(expected - 2, expected + 4));
    expect(world.failover.entries.map((e) => e.what).join()).to.contain('has come back once before');
  });

  it('does not wait when a person orders it, nor where the source kept most of its load', () => {
    const ordered = relieved().order({ action: 'drain' });
    expect(secondsUntilBack(ordered)).to.be.below(5);
    const world = new World(contextOf({ policy: policyOf({ wayBack }) })).risk('shift');
    world.until(() => world.syntheticBp === 500, { risk: 'shift' });
    world.risk('clear');
    const fromMs = world.nowMs;
    world.until(() => world.syntheticBp === 0);
    expect((world.nowMs - fromMs) / 1000).to.be.below(10);
  });
});

describe('A way back that nobody can take', () => {
  it('is held after a while, with the reason and a call for a person, whose word tries again', () => {
    const policy = policyOf({ wayBack: { calmS: 0, firstBp: 500 }, holdAtMostS: 30 });
    const world = new World(contextOf({ policy })).risk('shift');
    world.failover = { ...world.failover, boundsRefusedWayBack: true };
    world.until(() => world.syntheticBp === 500, { risk: 'shift' });
    world.risk('clear');
    const sinceMs = world.nowMs;
    const reasons = ['no answer', 'connection refused'];
    world.refusals = (n) => `the data could not be handed over to shop-a: ${reasons[n % 2]}`;
    world.until(() => world.failover.held !== null);
    expect((world.nowMs - sinceMs) / 1000).to.be.within(30, 60);
    expect(world.failover.held).to.include({ by: 'understudy' });
    expect(world.failover.held?.reason).to.match(
      /nobody can take the traffic back: the data could not .*; resume to try again/,
    );
    expect(world.failover.pages?.map(({ why }) => why)).to.deep.equal([world.failover.held?.reason]);
    expect(world.syntheticBp).to.equal(500);
    world.refusals = null;
    world.order({ action: 'resume' }).until((step) => step.kind === 'finish');
    expect(world.failover.conclusion?.outcome).to.equal('drained');
    expect(world.syntheticBp).to.equal(0);
  });
});
