/** Which runs are still to be made, and how long they will take. */
import type { ArmName } from './arms';
import type { FaultName } from './cases';

export interface PlannedRun {
  fault: FaultName;
  seed: number;
}

/** What a run is known by, and which arms were in it. */
export interface DoneRun extends PlannedRun {
  arms: Partial<Record<ArmName, unknown>>;
}

/** Every fault with one seed before any with two, so that whenever it is ended there is a table of all. */
export function scheduleOf(
  wanted: { faults: readonly FaultName[]; arms: readonly ArmName[]; seeds: number },
  done: readonly DoneRun[],
): PlannedRun[] {
  const isDone = ({ fault, seed }: PlannedRun): boolean =>
    done.some((run) => run.fault === fault && run.seed === seed && wanted.arms.every((arm) => run.arms[arm]));
  const seeds = Array.from({ length: wanted.seeds }, (_, index) => index + 1);
  return seeds.flatMap((seed) => wanted.faults.map((fault) => ({ fault, seed }))).filter((run) => !isDone(run));
}

/** Before any run has told. */
const usualRunS = 115;

/** Seconds for so many more runs, by those that were made. */
export function remainingS(runs: number, tookS: readonly number[]): number {
  const recent = tookS.slice(-5);
  const each = recent.length > 0 ? recent.reduce((sum, s) => sum + s, 0) / recent.length : usualRunS;
  return runs * each;
}
