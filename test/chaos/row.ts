/** One row of the reliability matrix about a failover: what is done to a failover, what must have become of it, and how it is played. */
import type { Bench } from './bench';
import { expectedOf, judge, type Expected } from './judge';
import { runPoolRow, type PoolRow } from './pool-row';
import type { Outage } from './outage';
import { stories, type Story, type StoryName } from './stories';
import { Trial, type TrialOptions } from './trial';

export type Row = FailoverRow | PoolRow;

export interface FailoverRow {
  /** Begins with the numbers of the promises it stands for: `T1 killed before ...`. */
  title: string;
  group: string;
  /** What happens to a server while the rows of its group run side by side on a bench of their own. */
  outage?: Outage;
  story: StoryName;
  options?: TrialOptions;
  expected?: Partial<Expected>;
  /** Instead of the story's own course. */
  act?: (trial: Trial) => Promise<void>;
  /** What happens after the first end, before all is judged. */
  afterwards?: (trial: Trial) => Promise<void>;
}

export interface Verdict {
  outcome: string;
  seconds: number;
  /** Milliseconds from the death of a worker to the first sign of its successor's work; null where none died. */
  recoveredMs: number | null;
  /** Every broken promise. */
  broken: string[];
}

/** Where rows wait for one another. */
export interface Gatherings {
  begun(): Promise<void>;
  ended(): Promise<void>;
}

const alone: Gatherings = { begun: async () => undefined, ended: async () => undefined };

/** Runs one row on the bench and judges it. Never throws for what the row did. */
export async function runRow(bench: Bench, row: Row, together: Gatherings = alone): Promise<Verdict> {
  if ('poolStory' in row) return runPoolRow(bench, row);
  const beganMs = Date.now();
  const story: Story = stories[row.story];
  const expected = expectedOf(story, { struck: Boolean(row.options?.fault), ...row.expected });
  const verdict: Verdict = { outcome: 'none', seconds: 0, recoveredMs: null, broken: [] };
  const complain = (error: unknown): void => void verdict.broken.push((error as Error).message);
  const trial = await Trial.begin(bench, { ...story.options, ...row.options }).catch(complain);
  await together.begun();
  const endings = trial ? await play(trial, row, story).catch(complain) : undefined;
  if (trial && !endings) await trial.standing().then((words) => verdict.broken.push(words), complain);
  await together.ended();
  if (trial && endings) {
    verdict.outcome = endings.map(({ outcome }) => outcome).join(', then ');
    verdict.recoveredMs = recovery(trial);
    await trial.quiet();
    await judge(trial, endings.at(-1)!, expected).then((broken) => verdict.broken.push(...broken), complain);
    if (verdict.broken.length > 0) await outcomesTold(trial).then((words) => verdict.broken.push(words), complain);
  }
  await trial?.end().catch(complain);
  verdict.seconds = (Date.now() - beganMs) / 1000;
  return verdict;
}

async function play(trial: Trial, row: FailoverRow, story: Story) {
  await (row.act ?? story.act)(trial);
  const first = await trial.ending();
  if (!row.afterwards) return [first];
  await row.afterwards(trial);
  const second = await trial.ending();
  return second.outcome === first.outcome ? [first] : [first, second];
}

/** Why each run of it ended: where there were more than there should be, the first says what began it all. */
async function outcomesTold({ bench, service }: Trial): Promise<string> {
  const told = (await bench.store.decisions(service, 1000)).filter(({ kind }) => kind === 'outcome');
  return `told in the end: ${told.map(({ at, what }) => `${at} ${what}`).join(' | ')}`;
}

export function recovery({ deathsMs, journal }: Trial): number | null {
  const times = deathsMs.flatMap((diedMs) => {
    const next = journal.find(({ atMs }) => atMs > diedMs);
    return next ? [next.atMs - diedMs] : [];
  });
  return times.length > 0 ? Math.max(...times) : null;
}
