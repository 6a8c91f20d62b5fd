/** What is promised of every failover, whatever was killed: looked for in the stores, the cloud, the callers and the history after the run. */
import { reconciliation } from '../../activities/reconcile';
import type { CellShare } from '../../blueprints/records';
import { SyntheticCellManager } from '../../cells/manager';
import type { Decision } from '../../workflows/decisions';
import { failuresOfTasks } from '../support/failures-of-tasks';
import { CloudProvider } from './cloud-provider';
import { activityOfDeed, sideEffects, undoings, type Deed, type Effect } from './side-effects';
import type { Left, Story } from './stories';
import { untilPublished } from './published';
import { callEveryMs } from './services';
import type { Ending, Trial } from './trial';

export interface Expected {
  outcomes: readonly string[];
  left: Left;
  firstBp: number;
  /** How many synthetic cells the cloud was to make. @default 1 */
  made?: readonly number[];
  /** Requests that may fail: those that plain Envoy would fail as well. @default 0 */
  mayFail?: number;
  /** Of the run's history. @default 400 */
  maxEvents?: number;
  /** Shares may have been moved by a person or by an earlier run: their steps are not one dossier's. */
  severalRuns?: boolean;
  /** Whether a fault of the row must have struck. */
  struck?: boolean;
}

export function expectedOf(story: Story, change: Partial<Expected> = {}): Expected {
  return { outcomes: story.outcomes, left: story.left, firstBp: story.firstBp, ...change };
}

/** Every broken promise, in a sentence; none if all hold. */
export async function judge(trial: Trial, ending: Ending, expected: Expected): Promise<string[]> {
  const broken: string[] = [];
  const demand = (holds: boolean, words: string): void => void (holds || broken.push(words));
  const left = leftBy(expected.left, ending.outcome);
  demand(
    expected.outcomes.includes(ending.outcome),
    `ended as ${ending.outcome} (${ending.reason}), not ${expected.outcomes.join(' or ')}`,
  );
  await judgeSplits(trial, { ...expected, left }, demand);
  await judgeCells(trial, { ...expected, left }, demand);
  await judgeDecisions(trial, expected, demand);
  await judgeHistory(trial, expected, demand);
  judgeEffects(trial, expected, demand);
  const failures = trial.failuresOfItsOwn;
  const { sent } = trial.load;
  demand(
    failures.length <= (expected.mayFail ?? 0),
    `${failures.length} of ${sent} requests failed, first: ${failures.slice(0, 3).join(' | ')}`,
  );
  return broken;
}

function leftBy(left: Left, outcome: string): Left {
  if (left !== 'by-outcome') return left;
  return outcome === 'failed-over' ? 'serving' : 'given-back';
}

type Demand = (holds: boolean, words: string) => void;

const bpOf = (split: CellShare[], cell: string): number => split.find((s) => s.cell === cell)?.shareBp ?? 0;

/** Safe at every moment: the store holds every split there ever was, in order. */
async function judgeSplits(trial: Trial, expected: Expected, demand: Demand): Promise<void> {
  const { source, peer, service, bench } = trial;
  const changes = (await bench.store.splitChanges(service, 10_000)).toSorted((a, b) => a.epoch - b.epoch);
  const capacityBp = ((trial.options.capacity ?? 100) / (1000 / callEveryMs)) * 10_000;
  let before: CellShare[] | null = null;
  let proven = false;
  let deadSince: number | null = null;
  for (const [i, { epoch, split, reason, at }] of changes.entries()) {
    const place = `epoch ${epoch} (${reason})`;
    // Epoch 1 is the safe split, to which nothing led.
    demand(epoch === i + 2, `${place} follows epoch ${changes[i - 1]?.epoch ?? 1}`);
    const sum = split.reduce((total, { shareBp }) => total + shareBp, 0);
    demand(sum === 10_000, `${place}: the shares add up to ${sum}`);
    demand(
      bpOf(split, peer) === 5000,
      `${place}: ${peer}, which nobody predicted to fail, has ${bpOf(split, peer)} bp`,
    );
    const syntheticBp = 5000 - bpOf(split, source);
    // Load is measured, not known: a third more or less is believed.
    demand(syntheticBp <= capacityBp * 1.35, `${place}: ${syntheticBp} bp is more than a capacity of ${capacityBp} bp`);
    demand(proven || syntheticBp <= expected.firstBp || /^(complete|ordered)/.test(reason), `${place}: unproven`);
    proven ||= syntheticBp > 0;
    // A way back from a change whose end is not known may find that it was never made, and has that acknowledged.
    const isConfirmation = reason.includes('the share is in place already');
    if (before && !isConfirmation) demand(JSON.stringify(before) !== JSON.stringify(split), `${place} changes nothing`);
    if (deadSince !== null) demand(bpOf(split, source) <= bpOf(before!, source), `${place} gives to ${source}, dead`);
    if (trial.sourceDiedMs !== null && Date.parse(at) > trial.sourceDiedMs && reason.startsWith('complete'))
      deadSince = epoch;
    before = split;
  }
  const keys = changes.map(({ idempotencyKey }) => idempotencyKey);
  demand(new Set(keys).size === keys.length, 'two changes have one key');
  const final = (await bench.store.traffic(service))!.split;
  const wanted = expected.left === 'serving' ? 0 : 5000;
  demand(bpOf(final, source) === wanted, `${source} has ${bpOf(final, source)} bp in the end, not ${wanted}`);

  const dossier = await bench.store.dossier(trial.failover);
  if (expected.severalRuns) return;
  demand(dossier !== undefined, 'no dossier was kept');
  if (!dossier) return;
  const shifts = keys.filter((key) => key.includes('/shift/'));
  const steps = dossier.steps.map(({ epoch }) => epoch);
  demand(new Set(steps).size === steps.length, `a change is told twice in the dossier: ${steps.join()}`);
  const made = changes.filter(({ idempotencyKey }) => shifts.includes(idempotencyKey)).map(({ epoch }) => epoch);
  demand(made.join() === steps.join(), `epochs ${made.join()} were commanded, the dossier tells of ${steps.join()}`);
}

/** One synthetic cell was made, its end is the one that was to be, and reconciliation finds nothing. */
async function judgeCells(trial: Trial, expected: Expected, demand: Demand): Promise<void> {
  const { cloud, failover } = trial;
  const made = expected.made ?? [1];
  demand(
    made.includes(cloud.made.length),
    `the cloud made ${cloud.made.length} cells (${cloud.made.join()}), not ${made.join(' or ')}`,
  );
  const synthetic = await trial.synthetic();
  const seen = synthetic.map(({ state, owner }) => `${state} of ${owner ?? 'nobody'}`).join();
  const wanted = wantedCells(expected.left, failover);
  demand(
    wanted.includes(seen),
    `synthetic cells in the store: ${seen || 'none'}, not ${wanted.join(' or ') || 'none'}`,
  );
  const stand = cloud.standing.filter((cell) => cell !== trial.source && cell !== trial.peer);
  const known = synthetic.map(({ name }) => name);
  demand(
    stand.sort().join() === known.sort().join(),
    `the cloud runs ${stand.join() || 'none'}, the store knows ${known.join() || 'none'}`,
  );
  for (const finding of await findingsOf(trial)) demand(false, finding);
}

/** What the reconciliation finds of the service, in words. */
export async function findingsOf({ cloud, bench, service }: Trial): Promise<string[]> {
  const care = reconciliation({
    store: Object.assign(Object.create(bench.store) as typeof bench.store, {
      services: async () => [(await bench.store.service(service))!],
    }),
    traffic: bench.traffic,
    cells: new SyntheticCellManager(bench.store, new CloudProvider(cloud.port)),
    client: bench.client,
    failoverTaskQueue: service,
  });
  const findings = await care.lookForFindings({ graceS: 0 });
  return findings.map(({ kind, what }) => `reconciliation finds ${kind}: ${what}`);
}

function wantedCells(left: Left, failover: string): string[] {
  if (left === 'serving') return [`serving of ${failover}`];
  const idle = 'idle of nobody';
  return left === 'idle' ? [idle] : left === 'nothing' ? [''] : [idle, ''];
}

/** Whatever was told again is the same to the letter, and all is kept. Answers what is. */
export async function judgeTold(trial: Trial, demand: Demand): Promise<Decision[]> {
  const contents = new Map<string, string>();
  for (const told of trial.journal.flatMap((w) => w.told ?? [])) {
    const text = JSON.stringify(told);
    const first = contents.get(told.id) ?? text;
    contents.set(told.id, first);
    demand(first === text, `decision ${told.id} was told with two contents`);
  }
  const kept = await trial.bench.store.decisions(trial.service, 10_000);
  demand(kept.length === contents.size, `${contents.size} decisions were told, ${kept.length} are kept`);
  return kept;
}

/** Each decision once: whatever was told again is the same to the letter, and every phase was told. */
async function judgeDecisions(trial: Trial, expected: Expected, demand: Demand): Promise<void> {
  const kept = await judgeTold(trial, demand);
  if (trial.options.publishes) {
    const ids = kept.map(({ id }) => id);
    await untilPublished(trial.bench, ids).catch((error: Error) => demand(false, error.message));
  }
  const dossier = await trial.bench.store.dossier(trial.failover);
  if (!dossier || expected.severalRuns) return;
  const phases = kept.filter(({ kind }) => kind === 'phase').length;
  // The dossier of a failover that has failed over is kept before the cooldown, and again only where its source was labelled.
  const isCooldownToCome =
    dossier.outcome === 'failed-over' && !dossier.phaseTimes.some(({ phase }) => phase === 'cooldown');
  const entered = dossier.phaseTimes.length + (isCooldownToCome ? 1 : 0);
  demand(phases === entered, `${entered} phases were entered, ${phases} were told`);
  const outcomes = kept.filter(({ kind }) => kind === 'outcome').length;
  demand(outcomes === 1, `the outcome was told ${outcomes} times`);
}

async function judgeHistory({ bench, failover }: Trial, { maxEvents = 400 }: Expected, demand: Demand): Promise<void> {
  const history = await bench.client.workflow.getHandle(failover).fetchHistory();
  demand(history.events!.length <= maxEvents, `the history has ${history.events!.length} events`);
  for (const message of failuresOfTasks(history)) demand(false, `a workflow task failed: ${message}`);
}

/** Nothing was done that the table does not name; and what was to go wrong did. */
function judgeEffects(trial: Trial, expected: Expected, demand: Demand): void {
  const { journal } = trial;
  for (const deed of new Set(journal.map((w) => w.deed))) {
    // Reconciliation and drills have activities of their own.
    const activity = activityOfDeed(deed as Deed);
    const listed = (sideEffects as Record<string, readonly Effect[]>)[activity];
    const known = listed && [...listed, ...(undoings[activity] ?? [])];
    const done = new Set(journal.filter((w) => w.deed === deed && w.effect !== 'itself').map((w) => w.effect));
    for (const effect of done) demand(!known || known.includes(effect as Effect), `${deed} did ${effect}, unlisted`);
  }
  if (expected.struck)
    demand(
      journal.some((w) => w.stage === 'fault'),
      'the point was never reached',
    );
}
