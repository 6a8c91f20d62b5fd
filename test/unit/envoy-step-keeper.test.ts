/** Steps that a control plane left open: who finishes them, how often, and what is left alone. Decided without servers. */
import { expect } from 'chai';
import { pino } from 'pino';
import type { OpenStep } from '../../blueprints/open-steps';
import { StepKeeper } from '../../envoy/step-keeper';

const log = pino({ level: 'silent' });

/** The table of open steps, which several keepers share. */
class SharedSteps {
  constructor(readonly open: OpenStep[]) {}

  async list(): Promise<OpenStep[]> {
    return this.open.map((step) => ({ ...step }));
  }
  async adopt({ service, epoch, replica }: OpenStep, heir: string): Promise<boolean> {
    const found = this.open.find((s) => s.service === service && s.epoch === epoch && s.replica === replica);
    if (found) found.replica = heir;
    return found !== undefined;
  }
  async close(): Promise<void> {
    this.open.length = 0;
  }
}

describe('A step that is left open', () => {
  const step = (replica: string): OpenStep => ({ service: 'shop', epoch: 7, replica, override: false });
  const keeper = (
    steps: SharedSteps,
    id: string,
    { gone = [] as string[], canJudge = true, isUnderWay = false } = {},
  ) => {
    const finished: OpenStep[] = [];
    const replica = { id, canJudge, isGone: (other: string) => gone.includes(other) };
    const finish = async (left: OpenStep) => {
      finished.push(left);
      await steps.close();
      return 'COMPLETE' as const;
    };
    return { finished, keeper: new StepKeeper(steps, replica, { isUnderWay: () => isUnderWay, finish }, log) };
  };

  it('is finished by one of two that see its owner gone', async () => {
    const steps = new SharedSteps([step('dead')]);
    const two = ['b', 'c'].map((id) => keeper(steps, id, { gone: ['dead'] }));
    await Promise.all(two.map((each) => each.keeper.review()));
    expect(two.flatMap(({ finished }) => finished)).to.have.length(1);
    expect(steps.open).to.deep.equal([]);
  });
  it('is finished by the process that is started again, under whatever name', async () => {
    const steps = new SharedSteps([step('a, before')]);
    const again = keeper(steps, 'a, again', { gone: ['a, before'] });
    await again.keeper.review();
    expect(again.finished).to.deep.equal([{ ...step('a, again') }]);
  });
  it('is left to an owner that lives, and to a call that still waits', async () => {
    const others = keeper(new SharedSteps([step('a')]), 'b');
    const own = keeper(new SharedSteps([step('b')]), 'b', { isUnderWay: true });
    for (const each of [others, own]) await each.keeper.review();
    expect([...others.finished, ...own.finished]).to.deep.equal([]);
  });
  it('is finished by its own owner when the call has ended without an end of the step', async () => {
    const own = keeper(new SharedSteps([step('b')]), 'b');
    await own.keeper.review();
    expect(own.finished).to.have.length(1);
  });
  it('is nobody’s to judge while the store has been away', async () => {
    const blind = keeper(new SharedSteps([step('dead')]), 'b', { gone: ['dead'], canJudge: false });
    await blind.keeper.review();
    expect(blind.finished).to.deep.equal([]);
  });
});
