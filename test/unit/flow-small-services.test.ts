import { expect } from 'chai';
import { World, contextOf, factsOf, policyOf } from '../support/failover-world';

/** A failover of a service of so many requests per second, at a risk that lasts. */
function worldOf(requestsPerSecond: number, policy: Parameters<typeof policyOf>[0] = {}): World {
  const fleet = factsOf({ requestsPerSecond });
  const world = new World(contextOf({ policy: policyOf({ cooldownS: 1, ...policy }), fleet, capacityBp: 10_000 }));
  world.requestsPerSecond = requestsPerSecond;
  return world;
}

/** Far from the failure, so that nothing hurries. */
const lasting = { risk: 'shift', steps: 5000, timeToFailureS: { p10: null, p50: null, p90: null } } as const;

describe('A service of few requests', () => {
  it('whose canary gets no verdict in time calls a person once, and takes the share back in the end', () => {
    for (const requestsPerSecond of [0.001, 1]) {
      const world = worldOf(requestsPerSecond);
      world.until((step) => step.kind === 'conclude', lasting);
      const whys = world.failover.pages?.map(({ why }) => why) ?? [];
      expect(whys.filter((why) => why.includes('no verdict on the last shift'))).to.have.length(1);
      expect(world.next()).to.include({ kind: 'conclude', outcome: 'aborted' });
      expect(world.sourceBp).to.equal(5000);
      const lines = world.failover.entries.filter(({ what }) => what.includes('no verdict on the last shift'));
      expect(lines.length, 'the dossier is not filled with one line').to.be.at.most(5);
    }
  });

  it('goes on when a person says so', () => {
    const world = worldOf(1);
    world.until(() => Boolean(world.failover.pages?.some(({ why }) => why.includes('no verdict'))), lasting);
    world.order({ action: 'complete' });
    world.until((step) => step.kind === 'conclude', lasting);
    expect(world.next()).to.include({ kind: 'conclude', outcome: 'failed-over' });
    expect(world.syntheticBp).to.equal(5000);
  });

  it('is not held up by a missing verdict when no time is left', () => {
    const world = worldOf(1);
    world.until(() => Boolean(world.failover.pages?.some(({ why }) => why.includes('no verdict'))), lasting);
    world.until(() => world.sourceBp === 0, { risk: 'shift', timeToFailureS: { p10: 0, p50: 1, p90: 2 } });
    expect(world.changes.at(-1)).to.include({ purpose: 'emergency' });
  });

  it('gets its verdict from 20 requests per second on', () => {
    const world = worldOf(20);
    world.until(() => world.sourceBp === 0, lasting);
    expect(world.failover.pages ?? []).to.deep.equal([]);
  });

  it('ends its drill with a name and a reason', () => {
    const drill = { id: 'drill-1', shareBp: 500 };
    const context = contextOf({
      policy: policyOf({ canaryBp: 500, stepBp: 500 }),
      capacityBp: 10_000,
      fleet: factsOf({ requestsPerSecond: 1 }),
    });
    const world = new World({ ...context, drill: { maxShareBp: 500, realPolicy: context.policy } });
    world.failover = { ...world.failover, drill };
    world.requestsPerSecond = 1;
    world.until((step) => step.kind === 'conclude', { ...lasting, drill: 'drill-1' });
    expect(world.next()).to.include({ kind: 'conclude', outcome: 'aborted' });
    expect((world.next() as { reason: string }).reason).to.contain('the drill did not end');
  });
});
