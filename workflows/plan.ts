/** The plan by lead time: what there is still time for, from the predicted time to failure and measured durations. */
import { riskTimeMs } from './aim';
import { requestsWanted } from './canary';
import type { Failover } from './failover';
import { largestShare } from './failover';
import type { Durations, FleetFacts, TimedStep } from './fleet';

export const planKinds = ['full-canary', 'short-canary', 'arm-only', 'emergency-shift'] as const;
/**
 * `full-canary`: the canary's whole evidence, then step by step. `short-canary`: less evidence, then the rest in one step.
 * `arm-only`: cover, no share; there is no time to try it, or none that may be taken. `emergency-shift`: all at once, judged afterwards.
 */
export type PlanKind = (typeof planKinds)[number];

export interface Plan {
  kind: PlanKind;
  /** One sentence for a person. */
  why: string;
  /** Milliseconds to the failure: an early guess (p10) and the middle one (p50); null: beyond the longest horizon. */
  lead: { earlyMs: number | null; middleMs: number | null };
  /** Milliseconds that each road would still take. */
  needs: { prepareMs: number; fullMs: number; shortMs: number };
  /** The first share, in basis points. */
  canaryBp: number;
}

/** Load reports come every second and tell of the second before. */
const reportDelayMs = 2000;
/** Fewer measurements than this say nothing about a p95. */
const fewestMeasured = 5;
/** With all the time in the world a canary takes about this long. */
const unhurriedMs = 20_000;
const shortestMs = 2000;
/** The part of the time left that a canary may take. */
const canaryPart = 0.3;

/**
 * What there is time for now; asked again before every step. Null in runs from before durations were measured. The long
 * road needs the early guess to leave time for it; to go without proof, the costlier mistake, the middle one must forbid it.
 */
export function planOf(f: Failover, nowMs: number): Plan | null {
  const facts = f.fleet ?? f.context?.fleet;
  if (!facts || !f.context || !f.risk) return null;
  const { policy } = f.context;
  const toFailure = f.risk.last.timeToFailureS ?? { p10: null, p50: null };
  const passedMs = nowMs - riskTimeMs(f.risk);
  const left = (seconds: number | null) => (seconds === null ? null : seconds * 1000 - passedMs);
  const lead = { earlyMs: left(toFailure.p10), middleMs: left(toFailure.p50) };

  const prepareMs = preparation(f, facts.durations);
  const shiftMs = stepMs(facts.durations, 'shift', policy.leadTime.shiftS);
  const spareMs = lead.earlyMs === null ? Infinity : lead.earlyMs - prepareMs;
  const canaryBp = canaryShare(f, facts, spareMs);
  const isProven = f.proven && f.traffic.syntheticBp > 0;
  const restBp = largestShare(f) - Math.max(f.traffic.syntheticBp, canaryBp);
  const steps = Math.max(0, Math.ceil(restBp / policy.stepBp));
  const eachMs = shiftMs + policy.stepIntervalS * 1000;
  const fullMs = prepareMs + (isProven ? 0 : shiftMs + canaryMs(f, facts, canaryBp, false)) + steps * eachMs;
  const shortMs = prepareMs + (isProven ? 0 : shiftMs + canaryMs(f, facts, canaryBp, true)) + shiftMs;

  const early = lead.earlyMs ?? Infinity;
  const middle = lead.middleMs ?? Infinity;
  const needs = { prepareMs, fullMs, shortMs };
  const told = (kind: PlanKind, why: string): Plan => ({ kind, why, lead, needs, canaryBp });
  const until = `${sentence(lead.earlyMs)} to the failure at the earliest, ${sentence(lead.middleMs)} probably`;
  if (fullMs <= early) return told('full-canary', `${until}; a canary and ${steps} steps take ${seconds(fullMs)}`);
  if (shortMs <= middle) {
    return told(
      'short-canary',
      `${until}; all the steps would take ${seconds(fullMs)}, a short canary ${seconds(shortMs)}`,
    );
  }
  if (prepareMs > 0) {
    const why = `${until}; the cell needs ${seconds(prepareMs)} to be ready: it is armed as cover and the plan is made anew then`;
    return told('arm-only', why);
  }
  if (!facts.requestsPerSecond)
    return told('arm-only', `${until}; the load is not measured, so no shift can be judged`);
  if (policy.leadTime.emergencyShift) {
    return told('emergency-shift', `${until}; even a short canary would take ${seconds(shortMs)}`);
  }
  return told('arm-only', `${until}: too short for a canary, and the policy allows no shift without one`);
}

/** Time until the cell is armed. */
function preparation(f: Failover, durations: Durations): number {
  const { createS, warmS, shiftS } = f.context!.policy.leadTime;
  const armMs = stepMs(durations, 'arm', shiftS);
  const warmMs = stepMs(durations, 'warm', warmS) + armMs;
  switch (f.synthetic?.state) {
    case undefined:
    case 'creating':
      return stepMs(durations, 'ensure', createS) + warmMs;
    case 'ready':
      return warmMs;
    case 'warm':
      return armMs;
    case 'armed':
    case 'gone':
      return 0;
  }
}

/** Milliseconds of a step: the measured p95, or the larger of what was said and what was seen while that is little. */
export function stepMs(durations: Durations, step: TimedStep, unknownS: number): number {
  const measured = [...(durations[step] ?? [])].sort((a, b) => a - b);
  if (measured.length < fewestMeasured) return Math.max(unknownS * 1000, ...measured);
  return measured[Math.ceil(0.95 * measured.length) - 1]!;
}

/** The share that brings the canary's requests in the time there is, between the policy's usual and its largest. */
function canaryShare(f: Failover, { requestsPerSecond }: FleetFacts, spareMs: number): number {
  const { policy } = f.context!;
  const usual = policy.canaryBp || policy.stepBp;
  if (!requestsPerSecond) return usual;
  const aimedMs = Math.min(unhurriedMs, Math.max(shortestMs, canaryPart * spareMs));
  const wanted = requestsWanted(policy, baselinesOf(f), false) / (requestsPerSecond * (aimedMs / 1000));
  return Math.round(Math.min(Math.max(usual, policy.canary.maxBp), Math.max(usual, wanted * 10_000)));
}

/** Until the verdict: the requests at the share's rate, and the report of them; at most until the canary times out. */
function canaryMs(f: Failover, { requestsPerSecond }: FleetFacts, canaryBp: number, isShort: boolean): number {
  const { policy } = f.context!;
  const timeoutMs = policy.canaryTimeoutS * 1000;
  const shareBp = Math.max(canaryBp, f.traffic.syntheticBp);
  if (!requestsPerSecond) return timeoutMs;
  const requests = requestsWanted(policy, baselinesOf(f), isShort);
  return Math.min(timeoutMs, reportDelayMs + (requests / ((requestsPerSecond * shareBp) / 10_000)) * 1000);
}

export function baselinesOf(f: Failover) {
  return { peers: null, beforeOnset: f.context?.beforeOnset ?? null, sloErrorRatio: f.context?.sloErrorRatio ?? 0.05 };
}

function sentence(ms: number | null): string {
  return ms === null ? 'more than the longest horizon' : seconds(Math.max(0, ms));
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`;
}
