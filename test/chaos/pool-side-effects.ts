/** The table of where the filling of an idle pool touches the world, made like that of a failover: see side-effects.ts. */
import type { PoolActivities } from '../../workflows/pool';
import { sideEffects, type Effect } from './side-effects';

/** What a workflow of the pool has done: its own activities, and two of the failover's. */
export type PoolDeed = keyof PoolActivities | 'warmSyntheticCell' | 'recordDecisions';

const retirement = ['store.beginRetirement', 'provider.destroy', 'store.finishRetirement'] as const;

/** What each changes, in the order in which it does. A new activity has no entry, and then this file does not compile. */
export const poolEffects: Record<PoolDeed, readonly Effect[]> = {
  lookAtPools: [],
  // Ended is only what was begun and is not wanted any more.
  claimPoolCell: [...retirement, 'store.acquireSyntheticCell'],
  makePoolCell: ['store.updateCell', 'provider.ensure'],
  warmSyntheticCell: sideEffects.warmSyntheticCell,
  restPoolCell: ['store.updateCell', 'provider.idle', 'store.restCell'],
  discardPoolCell: retirement,
  recordDecisions: sideEffects.recordDecisions,
};

export interface PoolPoint {
  deed: PoolDeed;
  effect: Effect | 'itself';
  when: 'before' | 'after';
}

/** Every point at which a process can die around a side effect, and around an activity that has none. */
export function everyPoolPoint(): PoolPoint[] {
  return (Object.keys(poolEffects) as PoolDeed[]).flatMap((deed) => {
    const effects = poolEffects[deed];
    const around: (Effect | 'itself')[] = effects.length > 0 ? [...effects] : ['itself'];
    return around.flatMap((effect) => (['before', 'after'] as const).map((when) => ({ deed, effect, when })));
  });
}
