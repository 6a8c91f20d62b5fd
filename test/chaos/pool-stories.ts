/** The courses that the filling of an idle pool can take; together they take every step there is. In the end one cell lies idle. */
import { poolOwner } from '../../workflows/messages';
import type { PoolPoint } from './pool-side-effects';
import { applyNewVersion } from './services';
import type { Trial } from './trial';

export interface PoolStory {
  /** What is told of the pool, in order. */
  told: readonly string[];
  /** How many cells the cloud is to have made in the end. */
  made: number;
  before?(trial: Trial): Promise<unknown> | void;
  act?(trial: Trial): Promise<unknown>;
}

export const poolStories = {
  /** Made, proven, laid idle. */
  filled: { told: ['idle'], made: 1 },
  /** The first one does not get warm and is taken away; the next one does. */
  'cold-first': {
    told: ['not-made', 'idle'],
    made: 2,
    before: (trial) => void (trial.cloud.isCold = true),
    act: async (trial) => {
      await trial.until('the cold one has ended', () => trial.cloud.ended.length > 0);
      trial.cloud.isCold = false;
    },
  },
  /** One was begun after a version of the blueprint that no declared cell has any more. */
  outdated: {
    told: ['idle'],
    made: 1,
    before: async (trial) => {
      const { service, source } = trial;
      const before = (await trial.bench.store.cell(source))!.blueprint;
      await trial.bench.store.acquireSyntheticCell({
        ...{ failover: poolOwner(service), source, blueprint: before, fromNothing: true },
      });
      await applyNewVersion(trial.bench.store, service);
    },
  },
} satisfies Record<string, PoolStory>;

export type PoolStoryName = keyof typeof poolStories;

/** In which story a process passes that point. */
export function poolStoryAt({ deed, effect }: PoolPoint): PoolStoryName {
  if (deed === 'discardPoolCell') return 'cold-first';
  return deed === 'claimPoolCell' && effect !== 'store.acquireSyntheticCell' ? 'outdated' : 'filled';
}
