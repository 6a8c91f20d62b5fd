import { expect } from 'chai';
import { details } from '../../workflows/current-details';
import { overrideActions } from '../../workflows/messages';
import { answer } from '../../workflows/override';
import { World, contextOf, policyOf } from '../support/failover-world';

/** The order that the text gives as an example, typed in as it stands. */
function typed(text: string): unknown {
  return JSON.parse(/```json\n(\{[^`]*\})\n```/.exec(text)?.[1] ?? 'null');
}

describe('What the Temporal UI says of a failover', () => {
  it('names at every moment exactly the orders that would be accepted, with an input that is one of them', () => {
    const world = new World().risk('shift');
    const seen = new Set<string>();
    for (let steps = 0; steps < 60; steps++) {
      if (steps === 30) world.risk('clear');
      const step = world.next();
      const text = details(world.failover, step);
      const offered = overrideActions.filter((action) => text.includes(`- \`${action}\``));
      const order = { by: 'ada', reason: 'test', shareBp: Number(/"shareBp": (\d+)/.exec(text)?.[1] ?? 1) };
      const accepted = overrideActions.filter((action) => answer(world.failover, { ...order, action }).accepted);
      expect(offered, world.failover.phase).to.have.members(accepted);
      if (accepted.length > 0)
        expect(answer(world.failover, typed(text)).accepted, world.failover.phase).to.equal(true);
      for (const action of offered) seen.add(action);
      if (step.kind === 'finish') break;
      world.advance();
    }
    expect([...seen]).to.include.members(['hold', 'step', 'complete', 'drain', 'abort']);
  });

  it('gives the approval as the example where a person is waited for', () => {
    const world = new World(contextOf({ policy: policyOf({ autonomy: 'approve' }) }));
    const step = world.until((s) => s.kind === 'watch' && s.why.includes('approve'), { risk: 'shift' });
    expect(typed(details(world.failover, step))).to.include({ action: 'approve' });
  });

  it('offers nothing once it has ended', () => {
    const world = new World().risk('shift').order({ action: 'abort' });
    for (let steps = 0; steps < 60 && !world.failover.conclusion; steps++) world.advance();
    expect(details(world.failover, world.next())).not.to.include('You can');
  });
});
