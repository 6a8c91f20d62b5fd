/** A service's acknowledged writes survive the handover of its data, whatever breaks in the middle. */
import { expect } from 'chai';
import { changelogWorld } from '../../lab/stateful/changelog-world';
import { faultedRun, planOf } from '../../lab/stateful/faulted-handover';
import { startStack, type Stack } from '../../local/stack';

describe('The data of a stateful service', function () {
  this.timeout(240_000);
  let stack: Stack;

  before(async () => {
    stack = await startStack({ parts: ['kafka'] });
  });
  after(() => stack.stop());

  for (const seed of [1]) {
    const plan = planOf(seed).map(({ fault, victim, moment }) => `${fault} of the ${victim} in ${moment}`);
    it(`on a changelog goes over and back with nothing lost or stale (seed ${seed}: ${plan.join(', then ')})`, async () => {
      const world = await changelogWorld(stack, `shop-${seed}`, seed);
      const say = process.env['UNDERSTUDY_TELL'] ? (text: string) => process.stdout.write(`    ${text}\n`) : undefined;
      try {
        const run = await faultedRun({ seed, ...world, withinMs: 90_000, ...(say && { say }) });
        say?.(JSON.stringify(run, null, 1));
        expect(run.violations).to.deep.equal([]);
        expect(run.handovers.map(({ to }) => to)).to.deep.equal([world.synthetic.name, world.source.name]);
      } finally {
        await world.stop();
      }
    });
  }
});
