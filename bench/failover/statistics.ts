/** From runs to figures: what each arm cost callers on each fault, with its spread. Pure. */
import { armNames, type ArmName } from './arms';
import { faultNames, type FaultName } from './cases';
import type { ArmResult, RunResult } from './result';

export interface Spread {
  median: number;
  min: number;
  max: number;
}

/** Null of nothing. The median of an even number of values is the mean of the middle two. */
export function spreadOf(values: readonly number[]): Spread | null {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  const middle = (sorted.length - 1) / 2;
  const median = (sorted[Math.floor(middle)]! + sorted[Math.ceil(middle)]!) / 2;
  return { median, min: sorted[0]!, max: sorted.at(-1)! };
}

/** Failed or later than the objective. */
export const badOf = ({ failed, overSlo }: ArmResult): number => failed + overSlo;

export interface ArmRow {
  arm: ArmName;
  runs: number;
  requests: number;
  /** Over all runs. */
  bad: number;
  /** Share of the requests, 0 to 1. */
  badShare: Spread;
  failed: Spread;
  overSlo: Spread;
  p99Ms: Spread;
  standbyS: Spread;
  falseShifts: number;
  /** From the first word of the risk to the failure that would have come; null where none was told, or none came. */
  warningS: Spread | null;
  /** Runs in which a risk was told before the failure, of those in which callers of the unprotected arm saw one. */
  foreseen: { of: number; in: number } | null;
}

export interface FaultRows {
  fault: FaultName;
  predictable: boolean;
  seeds: number;
  mechanisms: string[];
  rows: ArmRow[];
  /** Share of the requests before the fault that failed or came late, over all arms: what the machine does to everybody. */
  machineNoise: number;
  /** Share of the requests that was bad in every arm in the same second: the machine's doing, or a fault that follows to all. */
  sharedBad: number;
}

/** The arm whose cells nobody relieves tells when the failure comes. */
const unprotected: readonly ArmName[] = ['b', 'a'];

/** When the failure came where nothing was done about it; null if it did not. */
export function failureWithoutHelpS(run: RunResult): number | null {
  for (const arm of unprotected) {
    const result = run.arms[arm];
    if (result) return result.failedAtS;
  }
  return null;
}

/** Seconds between the first word of the risk and the failure; null where either is missing or the word came after it. */
export function warningOf(run: RunResult, arm: ArmName): number | null {
  const riskAtS = run.arms[arm]?.understudy?.riskAtS ?? null;
  const failedAtS = failureWithoutHelpS(run);
  if (riskAtS === null || failedAtS === null || riskAtS >= failedAtS) return null;
  return failedAtS - riskAtS;
}

export function rowsOf(runs: readonly RunResult[]): FaultRows[] {
  return faultNames.flatMap((fault): FaultRows[] => {
    const own = runs.filter((run) => run.fault === fault);
    if (own.length === 0) return [];
    const rows = armNames.flatMap((arm): ArmRow[] => {
      const row = rowOf(arm, own);
      return row ? [row] : [];
    });
    return [
      {
        fault,
        predictable: own.some(({ predictable }) => predictable),
        seeds: own.length,
        mechanisms: own.map(({ mechanism }) => mechanism),
        rows,
        machineNoise: noiseOf(own),
        sharedBad: sharedOf(own),
      },
    ];
  });
}

function rowOf(arm: ArmName, runs: readonly RunResult[]): ArmRow | null {
  const withArm = runs.filter((run) => run.arms[arm]);
  const results = withArm.map((run) => run.arms[arm]!);
  if (results.length === 0) return null;
  const spread = (of: (result: ArmResult) => number): Spread => spreadOf(results.map(of))!;
  const hasForesight = results.some(({ understudy }) => understudy);
  const failing = withArm.filter((run) => failureWithoutHelpS(run) !== null);
  const warnings = withArm.flatMap((run) => warningOf(run, arm) ?? []);
  return {
    arm,
    runs: results.length,
    requests: results.reduce((sum, { requests }) => sum + requests, 0),
    bad: results.reduce((sum, result) => sum + badOf(result), 0),
    badShare: spread((result) => badOf(result) / Math.max(1, result.requests)),
    failed: spread(({ failed }) => failed),
    overSlo: spread(({ overSlo }) => overSlo),
    p99Ms: spread(({ p99Ms }) => p99Ms),
    standbyS: spread(({ standbyS }) => standbyS),
    falseShifts: results.reduce((sum, { falseShifts }) => sum + falseShifts, 0),
    warningS: spreadOf(warnings),
    foreseen: hasForesight ? { of: failing.length, in: warnings.length } : null,
  };
}

function noiseOf(runs: readonly RunResult[]): number {
  let bad = 0;
  let requests = 0;
  for (const run of runs) {
    for (const arm of Object.values(run.arms)) {
      bad += arm.badBefore;
      requests += run.ratePerSecond * run.measuredFromS;
    }
  }
  return bad / Math.max(1, requests);
}

function sharedOf(runs: readonly RunResult[]): number {
  let shared = 0;
  let requests = 0;
  for (const run of runs) {
    const arms = Object.values(run.arms);
    for (let second = Math.ceil(run.measuredFromS); second < run.endS; second++) {
      shared += Math.min(...arms.map(({ badPerS }) => badPerS[second] ?? 0));
    }
    requests += run.ratePerSecond * (run.endS - run.measuredFromS);
  }
  return shared / Math.max(1, requests);
}
