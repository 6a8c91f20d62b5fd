/** One row about the idle pool: how it is played, and what is promised of it. */
import { retireIdleCells } from '../../cells/retire-idle';
import { SyntheticCellManager } from '../../cells/manager';
import { poolOwner, workflowTypes } from '../../workflows/messages';
import type { Bench } from './bench';
import { CloudProvider } from './cloud-provider';
import { findingsOf, judgeTold } from './judge';
import { poolEffects, type PoolDeed } from './pool-side-effects';
import { poolStories, type PoolStory, type PoolStoryName } from './pool-stories';
import { recovery, type Verdict } from './row';
import { Trial, type TrialOptions } from './trial';

export interface PoolRow {
  title: string;
  group: string;
  outage?: undefined;
  poolStory: PoolStoryName;
  options?: TrialOptions;
}

const backOffS = 1;

/** Runs one row on the bench and judges it. Never throws for what the row did. */
export async function runPoolRow(bench: Bench, { poolStory, options }: PoolRow): Promise<Verdict> {
  const beganMs = Date.now();
  const story: PoolStory = poolStories[poolStory];
  const verdict: Verdict = { outcome: 'none', seconds: 0, recoveredMs: null, broken: [] };
  const complain = (error: unknown): void => void verdict.broken.push((error as Error).message);
  const policy = { pool: { outageCostPerMinute: 1e6 } };
  const trial = await Trial.begin(bench, { keepsPool: true, policy, ...options }).catch(complain);
  if (trial) {
    await play(trial, story).then((outcome) => (verdict.outcome = outcome), complain);
    verdict.recoveredMs = recovery(trial);
    await trial.quiet();
    if (verdict.broken.length === 0) await judge(trial, story, verdict.broken).catch(complain);
    await trial.end().catch(complain);
  }
  verdict.seconds = (Date.now() - beganMs) / 1000;
  return verdict;
}

/** As the schedule does it; ends when the pool is filled. */
async function play(trial: Trial, story: PoolStory): Promise<string> {
  const { bench, service } = trial;
  await story.before?.(trial);
  await bench.client.workflow.start(workflowTypes.keepPools, {
    workflowId: `keep-pools/${service}`,
    taskQueue: service,
    args: [{ backOffS }],
  });
  await story.act?.(trial);
  return trial.until('the pool is filled', async () => {
    const fill = bench.client.workflow.getHandle(poolOwner(service));
    const { status } = await fill.describe();
    if (status.name === 'RUNNING') return null;
    await fill.result();
    return 'filled';
  });
}

async function judge(trial: Trial, story: PoolStory, broken: string[]): Promise<void> {
  const { bench, cloud, service, source, peer } = trial;
  const demand = (holds: boolean, words: string): void => void (holds || broken.push(words));
  await finishRetirements(trial);
  const seen = (await trial.synthetic()).map(({ name, state, owner }) => ({
    name,
    is: `${state} of ${owner ?? 'nobody'}`,
  }));
  const words = seen.map(({ is }) => is).join();
  demand(
    words === 'idle of nobody',
    `synthetic cells in the store: ${words || 'none'}, not one that is idle of nobody`,
  );
  const standing = cloud.standing.filter((cell) => cell !== source && cell !== peer).join();
  const known = seen.map(({ name }) => name).join();
  demand(standing === known, `the cloud runs ${standing || 'none'}, the store knows ${known || 'none'}`);
  const [made, ended] = [cloud.made.length, cloud.ended.length];
  demand(made === story.made, `the cloud made ${made} cells (${cloud.made.join()}), not ${story.made}`);
  demand(ended === story.made - 1, `the cloud ended ${ended} cells, not ${story.made - 1}`);
  const phase = (await new CloudProvider(cloud.port).observe(known)).phase;
  demand(phase === 'idle', `the cell is ${phase}, not idle`);
  for (const finding of await findingsOf(trial)) demand(false, finding);

  const changes = await bench.store.splitChanges(service);
  demand(changes.length === 0, `the split was changed ${changes.length} times`);
  const kept = (await judgeTold(trial, demand)).toReversed();
  const told = kept.map(({ data }) => String(data['result'])).join();
  const inWords = kept.map(({ what }) => what).join('; ');
  demand(told === story.told.join(), `told of the pool: ${told || 'nothing'}, not ${story.told.join()} (${inWords})`);

  for (const { deed, effect } of trial.journal) {
    const listed = poolEffects[deed as PoolDeed];
    demand(effect === 'itself' || listed?.includes(effect as never), `${deed} did ${effect}, unlisted`);
  }
  if (trial.options.fault)
    demand(
      trial.journal.some(({ stage }) => stage === 'fault'),
      'the point was never reached',
    );
  const failures = trial.failuresOfItsOwn;
  demand(failures.length === 0, `${failures.length} requests failed, first: ${failures[0]}`);
}

/** As every worker does each few seconds: what was begun and left is brought to its end. */
async function finishRetirements({ bench: { store }, cloud, service }: Trial): Promise<void> {
  const own = Object.assign(Object.create(store) as typeof store, {
    cells: () => store.cells(service),
    idleCells: async () => [],
  });
  await retireIdleCells(own, new SyntheticCellManager(store, new CloudProvider(cloud.port)));
}
