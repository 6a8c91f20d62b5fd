/** T15: the worker is killed before and after every side effect of filling an idle pool. */
import type { PoolRow } from '../pool-row';
import { everyPoolPoint } from '../pool-side-effects';
import { poolStoryAt } from '../pool-stories';
import { nameOfPoint } from '../side-effects';

export function poolRows(): PoolRow[] {
  return everyPoolPoint().map((point) => ({
    title: `T15 killed ${nameOfPoint(point)}, for the idle pool`,
    group: 'idle pool',
    poolStory: poolStoryAt(point),
    options: { fault: { ...point, what: 'kill' } },
  }));
}
