/** The courses a failover can take, each as short as it can be; together they take every step there is. */
import type { Outcome } from '../../workflows/messages';
import type { Deed, Point } from './side-effects';
import type { Trial, TrialOptions } from './trial';

/**
 * What stands when all is over. `given-back`: the source has its share and a synthetic cell, if there is one, is idle.
 * `by-outcome`: `serving` where it failed over, else `given-back`.
 */
export type Left = 'idle' | 'serving' | 'nothing' | 'given-back' | 'by-outcome';

export interface Story {
  outcomes: readonly (Outcome | 'cancelled')[];
  left: Left;
  /** The largest share before the synthetic cell has proven itself. */
  firstBp: number;
  options?: TrialOptions;
  act(trial: Trial): Promise<void>;
}

const canaryBp = 2000;
const everything = 5000;
/** Facts about the fleet older than 10 s move nothing. */
const factsFreshMs = 10_500;

export const stories = {
  /** Risk, canary, steps, all moved; the risk clears, all goes back in steps, the cell rests. */
  'there-and-back': {
    outcomes: ['drained'],
    left: 'idle',
    firstBp: canaryBp,
    act: async (trial) => {
      await trial.tell('shift');
      await trial.untilMoved(5000);
      await trial.tell('clear');
    },
  },
  /** The source dies while the canary runs: the rest follows at once. */
  death: {
    outcomes: ['failed-over'],
    left: 'serving',
    firstBp: canaryBp,
    // No verdict on the canary comes before the death.
    options: { policy: { canaryMinRequests: 1000 } },
    act: async (trial) => {
      await trial.tell('shift');
      await trial.untilMoved(1);
      await trial.killSource();
    },
  },
  /** A person ends it in the middle. */
  abort: {
    outcomes: ['aborted'],
    left: 'idle',
    firstBp: canaryBp,
    act: async (trial) => {
      await trial.tell('shift');
      await trial.untilMoved(1);
      await trial.silence();
      await trial.order({ action: 'abort' });
    },
  },
  /** Another life has left a cell under the name that the synthetic cell is to have: it is made anew. */
  haunted: {
    outcomes: ['aborted'],
    left: 'idle',
    firstBp: canaryBp,
    act: async (trial) => {
      await trial.cloud.haunt(trial.service, `${trial.source}-understudy-1`);
      await trial.tell('prepare');
      await trial.untilState('armed');
      await trial.silence();
      await trial.order({ action: 'abort' });
    },
  },
  /** The synthetic cell does not get warm: it is taken away again. */
  'cold-cell': {
    outcomes: ['compensated'],
    left: 'nothing',
    firstBp: 0,
    act: async (trial) => {
      trial.cloud.isCold = true;
      await trial.tell('prepare');
      await trial.until('the cell was given up', () => trial.journal.some((w) => w.deed === 'retireSyntheticCell'));
      await trial.silence();
    },
  },
  /** A person gives it a share, and takes it back. */
  ordered: {
    outcomes: ['drained'],
    left: 'idle',
    firstBp: canaryBp,
    act: async (trial) => {
      await trial.tell('prepare');
      await trial.untilState('armed');
      await trial.until(
        'the order is taken',
        async () => (await trial.order({ action: 'step', shareBp: 2000 })).accepted,
      );
      await trial.untilMoved(1);
      await trial.order({ action: 'drain' });
      await trial.silence();
    },
  },
  /** What the rest of the fleet does was looked at long ago when traffic is to move: it is looked at anew. */
  late: {
    outcomes: ['aborted'],
    left: 'idle',
    firstBp: canaryBp,
    act: async (trial) => {
      await trial.tell('prepare');
      await trial.untilState('armed');
      const armedMs = Date.now();
      await trial.until('the facts are old', () => Date.now() - armedMs > factsFreshMs);
      await trial.tell('shift');
      await trial.untilMoved(1);
      await trial.silence();
      await trial.order({ action: 'abort' });
    },
  },
  /** A person completes it: the source is watched under copies of requests, until it is clear whether it would have failed. */
  quarantined: {
    outcomes: ['failed-over'],
    left: 'serving',
    firstBp: canaryBp,
    options: { mirrorPercent: 50 },
    act: async (trial) => {
      await trial.tell('shift');
      await trial.untilMoved(1);
      await trial.silence();
      await trial.order({ action: 'complete' });
    },
  },
  /** No time for a canary: all at once, and back when the risk clears. */
  emergency: {
    outcomes: ['drained'],
    left: 'idle',
    firstBp: everything,
    act: async (trial) => {
      await trial.tell('prepare');
      await trial.untilState('armed');
      await trial.tell('shift', { p10: 0.5, p50: 1, p90: 2 });
      await trial.untilMoved(5000);
      await trial.tell('clear');
    },
  },
} satisfies Record<string, Story>;

export type StoryName = keyof typeof stories;

/** In which story a process passes that point. */
export function storyAt({ deed, effect }: Point): StoryName {
  return deed === 'ensureSyntheticCell' && effect === 'provider.destroy' ? 'haunted' : storyOf[deed];
}

/** In which story a deed is done. */
const storyOf: Record<Deed, StoryName> = {
  loadContext: 'abort',
  awaitTurn: 'abort',
  surveyFleet: 'late',
  ensureSyntheticCell: 'abort',
  warmSyntheticCell: 'abort',
  armCell: 'abort',
  watchFailover: 'there-and-back',
  restAtIdle: 'abort',
  retireSyntheticCell: 'cold-cell',
  releaseSource: 'quarantined',
  recordDecisions: 'abort',
  saveDossier: 'abort',
  'shiftTraffic(canary)': 'there-and-back',
  'shiftTraffic(step)': 'there-and-back',
  'shiftTraffic(emergency)': 'emergency',
  'shiftTraffic(complete)': 'death',
  'shiftTraffic(ordered)': 'ordered',
  'shiftTraffic(reduce)': 'there-and-back',
  'shiftTraffic(give-back)': 'abort',
};
