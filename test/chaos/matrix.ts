/** All rows of the reliability matrix, generated from the table of side effects and the courses a failover can take. */
import { everyPoint, nameOfPoint, type Point } from './side-effects';
import { stories, storyOf, type Story, type StoryName } from './stories';
import { expectedOf, judge, type Expected } from './judge';
import type { Bench } from './bench';
import { Trial, type TrialOptions } from './trial';

export interface Row {
  /** Begins with the numbers of the promises it stands for: `T1 killed before ...`. */
  title: string;
  group: string;
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
  broken: string[];
}

/** Runs one row on the bench and judges it. Never throws for what the row did. */
export async function runRow(bench: Bench, row: Row): Promise<Verdict> {
  const beganMs = Date.now();
  const story: Story = stories[row.story];
  let trial: Trial | undefined;
  let outcome = 'none';
  const broken: string[] = [];
  let recoveredMs: number | null = null;
  try {
    trial = await Trial.begin(bench, { ...story.options, ...row.options });
    await (row.act ?? story.act)(trial);
    let ending = await trial.ending();
    outcome = ending.outcome;
    if (row.afterwards) {
      await row.afterwards(trial);
      ending = await trial.ending();
      outcome = `${outcome}, then ${ending.outcome}`;
    }
    await trial.quiet();
    broken.push(
      ...(await judge(trial, ending, expectedOf(story, { struck: Boolean(row.options?.fault), ...row.expected }))),
    );
    recoveredMs = recovery(trial);
  } catch (error) {
    broken.push((error as Error).message);
  } finally {
    await trial?.end().catch((error: unknown) => broken.push(`it could not be ended: ${(error as Error).message}`));
  }
  return { outcome, seconds: (Date.now() - beganMs) / 1000, recoveredMs, broken };
}

function recovery({ deathsMs, journal }: Trial): number | null {
  const times = deathsMs.flatMap((diedMs) => {
    const next = journal.find(({ atMs }) => atMs > diedMs);
    return next ? [next.atMs - diedMs] : [];
  });
  return times.length > 0 ? Math.max(...times) : null;
}

/** The worker dies, at every point around every side effect. */
function kills(): Row[] {
  return everyPoint().map((point) => ({
    title: `T1 killed ${nameOfPoint(point)}`,
    group: 'worker killed',
    story: storyOf[point.deed],
    options: { fault: { ...point, what: 'kill' } },
  }));
}

/** A call fails, or its answer is lost: three times. */
function failures(): Row[] {
  const faulty = (point: Point): boolean => point.effect !== 'itself';
  return everyPoint()
    .filter(faulty)
    .map((point) => ({
      title: `${isWayBack(point) ? 'T7' : 'T11'} ${point.when === 'before' ? 'failed thrice' : 'lost its answer thrice'}: ${point.effect} in ${point.deed}`,
      group: 'calls that fail',
      story: storyOf[point.deed],
      options: { fault: { ...point, what: 'fail', times: 3 } },
    }));
}

function isWayBack({ deed }: Point): boolean {
  return /retire|rest|reduce|give-back/.test(deed);
}

export function everyRow(): Row[] {
  return [...kills(), ...failures()];
}
