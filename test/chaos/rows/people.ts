/** T5, T6: orders that contradict each other, orders with no worker there, runs that are cancelled or terminated, in every phase. */
import { reconcileNow } from '../../../cli/reconcile';
import type { Override } from '../../../workflows/messages';
import type { FailoverRow } from '../row';
import type { Deed } from '../side-effects';
import { stories, type StoryName } from '../stories';
import type { Trial } from '../trial';

/** What is under way in each phase. */
const momentOf = {
  assessing: 'loadContext',
  provisioning: 'ensureSyntheticCell',
  warming: 'warmSyntheticCell',
  arming: 'armCell',
  canary: 'shiftTraffic(canary)',
  shifting: 'shiftTraffic(step)',
  draining: 'shiftTraffic(reduce)',
  resting: 'restAtIdle',
  ending: 'saveDossier',
} satisfies Record<string, Deed>;

type Moment = keyof typeof momentOf;
const moments = Object.keys(momentOf) as Moment[];
const noStep = ['drained', 'aborted', 'refused', 'compensated'];

/** The story, and as soon as that deed has begun, what is done to it. The story itself may then be over. */
async function at(trial: Trial, moment: Moment, act: () => Promise<unknown>): Promise<void> {
  await upTo(trial, 'there-and-back', momentOf[moment]);
  await act();
}

/** The story goes on until the deed has begun, and is then left. */
async function upTo(trial: Trial, story: StoryName, deed: Deed): Promise<void> {
  const course = stories[story].act(trial).catch((error: unknown) => {
    if (!trial.isStoryOver) throw error;
  });
  await Promise.race([
    trial.until(`${deed} has begun`, () => trial.journal.some((w) => w.deed === deed), 20),
    // It only ends before the deed if it failed.
    course.then(() => new Promise(() => undefined)),
  ]);
  await trial.leaveStory();
  await course;
}

export function peopleRows(): FailoverRow[] {
  return [...cancelled(), ...terminated(), ...twoOperators(), ...nobodyThere()];
}

function cancelled(): FailoverRow[] {
  return moments.map((moment) => ({
    title: `T6 cancelled while ${moment}`,
    group: 'people',
    story: 'there-and-back',
    expected: {
      // Where it had come to its end before the cancellation was heard, that end stands.
      outcomes: moment === 'resting' || moment === 'ending' ? ['cancelled', 'drained'] : ['cancelled'],
      left: 'given-back',
      made: [0, 1],
    },
    act: (trial) => at(trial, moment, () => trial.surely(() => trial.handle.cancel().then(() => true))),
  }));
}

/** Nothing of it can clean up: the reconciliation does. */
function terminated(): FailoverRow[] {
  return moments.map((moment) => ({
    title: `T6 terminated while ${moment}, then reconciled`,
    group: 'people',
    story: 'there-and-back',
    expected: { outcomes: ['terminated', ...noStep], left: 'given-back', made: [0, 1, 2], severalRuns: true },
    act: (trial) => at(trial, moment, () => trial.handle.terminate('test').catch(() => undefined)),
    afterwards: reconciled,
  }));
}

/** As the schedule does it, until a look finds nothing. */
export async function reconciled(trial: Trial): Promise<void> {
  const { settings } = trial.bench.stack;
  const own = {
    ...settings,
    temporal: { ...settings.temporal, failoverTaskQueue: trial.service },
    reconciliation: { ...settings.reconciliation, graceS: 0 },
  };
  // An attempt that is still under way has not heard of the end yet: what it makes is for the next look.
  await trial.until('no attempt is under way', () => trial.isIdle);
  await trial.until('reconciliation finds nothing', async () => {
    const { findings } = await reconcileNow(trial.bench.client, own, false);
    if (findings.length === 0) return true;
    await trial.ending();
    return false;
  });
}

/** Whoever is heard last, one of them is obeyed, whole, and both stand in the dossier. */
function twoOperators(): FailoverRow[] {
  const pairs: [StoryName, Deed, Override['action'], Override['action']][] = [
    ['there-and-back', 'armCell', 'hold', 'abort'],
    ['there-and-back', 'shiftTraffic(canary)', 'complete', 'abort'],
    ['there-and-back', 'shiftTraffic(canary)', 'complete', 'drain'],
    ['there-and-back', 'shiftTraffic(step)', 'hold', 'hold'],
    ['there-and-back', 'shiftTraffic(step)', 'complete', 'drain'],
    ['there-and-back', 'shiftTraffic(reduce)', 'complete', 'abort'],
  ];
  return pairs.map(([story, deed, one, other]) => ({
    title: `T5 two operators at once in ${deed}: ${one} and ${other}`,
    group: 'people',
    story,
    expected: { outcomes: ['aborted', 'drained', 'failed-over'], left: 'by-outcome' },
    act: async (trial) => {
      await upTo(trial, story, deed);
      // By signal: both are heard in one moment, and neither is told that the other was faster.
      const order = (action: Override['action'], by: string) =>
        trial.handle.signal('override', { action, by, reason: 'both at once' });
      await Promise.all([order(one, 'ada'), order(other, 'bob')]);
      // Whatever holds it now is ended by one of them; what has ended needs no order.
      await trial.until('nothing holds it', async () => {
        if (await trial.hasEnded()) return true;
        await trial.order({ action: 'abort', reason: 'enough' }).catch(() => undefined);
        return trial.hasEnded();
      });
    },
  }));
}

/** An order that is given while no worker runs is obeyed by the next one. */
function nobodyThere(): FailoverRow[] {
  return [
    {
      title: 'T5 ordered with no worker there',
      group: 'people',
      story: 'abort',
      act: async (trial) => {
        await trial.tell('shift');
        await trial.untilMoved(1);
        await trial.removeWorker();
        await trial.silence();
        await trial.handle.signal('override', { action: 'abort', by: 'ada', reason: 'nobody is there' });
        await trial.startWorker(null);
      },
    },
  ];
}
