import { ActivityFailure, ApplicationFailure, RetryState, TimeoutFailure, TimeoutType } from '@temporalio/common';
import { expect } from 'chai';
import { despiteSilence, silences } from '../../workflows/despite-silence';

describe('A long activity of which nothing is heard', () => {
  const failure = (cause: Error) =>
    new ActivityFailure('failed', 'warmSyntheticCell', '1', RetryState.MAXIMUM_ATTEMPTS_REACHED, 'worker', cause);
  const silent = () => failure(new TimeoutFailure('activity Heartbeat timeout', undefined, TimeoutType.HEARTBEAT));

  /** Each round takes a minute and ends as `rounds` says. */
  async function run(rounds: (Error | string)[], { withinMs = 600_000, isKnown = true } = {}) {
    let nowMs = 0;
    const limits: { heartbeatTimeout?: unknown; scheduleToCloseTimeout?: unknown }[] = [];
    const result = await despiteSilence(
      withinMs,
      (given) => {
        limits.push(given);
        nowMs += 60_000;
        const end = rounds[limits.length - 1] ?? silent();
        return end instanceof Error ? Promise.reject(end) : Promise.resolve(end);
      },
      () => nowMs,
      () => isKnown,
    ).catch((err: unknown) => err);
    return { result, limits };
  }

  it('is run again with more patience each time, in what is left of its time', async () => {
    const { result, limits } = await run([silent(), silent(), silent(), 'warm']);
    expect(result).to.equal('warm');
    expect(limits.map(({ heartbeatTimeout }) => heartbeatTimeout)).to.deep.equal([...silences, silences[2]]);
    expect(limits.map((each) => each.scheduleToCloseTimeout)).to.deep.equal([600_000, 540_000, 480_000, 420_000]);
  });

  it('is given up when its time is over', async () => {
    const { result, limits } = await run([], { withinMs: 150_000 });
    expect(result).to.be.instanceOf(ActivityFailure);
    expect(limits).to.have.length(3);
  });

  it('fails at once for every other reason, and by histories from before', async () => {
    const refused = failure(ApplicationFailure.nonRetryable('no such image'));
    expect((await run([refused])).result).to.equal(refused);
    const late = failure(new TimeoutFailure('activity StartToClose timeout', undefined, TimeoutType.START_TO_CLOSE));
    expect((await run([late])).result).to.equal(late);
    const { limits } = await run([silent(), 'warm'], { isKnown: false });
    expect(limits).to.have.length(1);
  });
});
