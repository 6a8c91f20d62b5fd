/** A service's acknowledged writes survive the handover of its data, whatever breaks in the middle. */
import { expect } from 'chai';
import { changelogWorld } from '../../lab/stateful/changelog-world';
import { faultedRun, planOf } from '../../lab/stateful/faulted-handover';
import { postgresWorld } from '../../lab/stateful/postgres-world';
import { startStack, type Stack } from '../../local/stack';

describe('The data of a stateful service', function () {
  this.timeout(240_000);
  let stack: Stack;

  before(async () => {
    stack = await startStack({ parts: ['kafka'] });
  });
  after(() => stack.stop());

  const runs = [
    { kind: 'on a changelog', seed: 1, world: changelogWorld },
    { kind: 'on a changelog', seed: 14, world: changelogWorld },
    { kind: 'on a Postgres replica', seed: 14, world: postgresWorld },
  ];
  for (const { kind, seed, world: make } of runs) {
    const plan = planOf(seed).map(({ fault, victim, moment }) => `${fault} of the ${victim} in ${moment}`);
    it(`${kind} goes over and back with nothing lost or stale (seed ${seed}: ${plan.join(', then ')})`, async () => {
      const told: string[] = [];
      const world = await make(stack, `shop-${kind.includes('log') ? 'log' : 'replica'}-${seed}`, seed);
      try {
        const run = await faultedRun({ seed, ...world, withinMs: 90_000, say: (sentence) => told.push(sentence) });
        expect(run.violations, told.join('\n')).to.deep.equal([]);
        expect(run.handovers.map(({ to }) => to)).to.deep.equal([world.synthetic.name, world.source.name]);
        expect(run.acknowledged).to.be.greaterThan(50);
      } finally {
        await world.stop();
      }
    });
  }
});
