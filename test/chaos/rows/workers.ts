/** T1, T9, T12: the worker is killed before and after every side effect, at random moments, and without a cache. */
import { setTimeout as pause } from 'node:timers/promises';
import type { FailoverRow } from '../row';
import { seeded } from '../seed';
import { everyPoint, nameOfPoint } from '../side-effects';
import { stories, storyAt, type Story, type StoryName } from '../stories';
import type { Trial } from '../trial';

const storyNames = Object.keys(stories) as StoryName[];

export function workerRows(seed: number): FailoverRow[] {
  const kills = everyPoint().map((point): FailoverRow => ({
    title: `T1 killed ${nameOfPoint(point)}`,
    group: 'worker killed',
    story: storyAt(point),
    options: { fault: { ...point, what: 'kill' } },
  }));
  const uncached = storyNames.map((story): FailoverRow => ({
    title: `T9 without a cache of workflows: ${story}`,
    group: 'worker killed',
    story,
    options: { maxCachedWorkflows: 0 },
  }));
  const random = [1, 2, 3, 4, 5, 6].map((n): FailoverRow => ({
    title: `T12 killed four times at random (seed ${seed + n}): there-and-back`,
    group: 'worker killed',
    story: 'there-and-back',
    act: (trial) => killedAtRandom(trial, stories['there-and-back'], seed + n),
  }));
  return [...kills, ...uncached, ...random];
}

async function killedAtRandom(trial: Trial, story: Story, seed: number): Promise<void> {
  const random = seeded(seed);
  const killer = (async () => {
    for (let i = 0; i < 4; i += 1) {
      await pause(500 + random() * 4000);
      trial.killWorker();
    }
  })();
  await Promise.all([story.act(trial), killer]);
}
