/** What a synthetic cell is judged against when its source is sick: its healthy peers, the source's time before onset, the SLO. */
import type { Policy } from '../blueprints/schema';
import type { Totals } from './failover';
import type { SequentialTest } from './sequential-test';
import { requestsForGood } from './sequential-test';

/** No cell is asked to be better than this. */
const bestRatio = 0.001;
/** A bad cell answers at least so many times as often with errors as a good one. */
const worseBy = 3;
/** Fewer requests than this say nothing about a reference. */
const referenceMinRequests = 50;

export interface Baselines {
  /** The service's other cells, beside the synthetic one and at the same time; null where there are none. */
  peers: Totals | null;
  /** The source until the first word of the risk. Never the source's own time of sickness: anything looks good beside it. */
  beforeOnset: Totals | null;
  sloErrorRatio: number;
}

export interface Measures {
  maxErrorRatio: number;
  falseAlarm: number;
  miss: number;
}

export interface Reference {
  test: SequentialTest;
  /** Set where nothing can be good: the cells it is compared with miss the objective themselves. */
  noGood: string | null;
}

/**
 * The test for these baselines. The better of the two references counts: a sick peer must not lower the bar, and the bar
 * is never above the SLO. Where even the better one misses the SLO, no verdict can be good: the failover holds.
 */
export function referenceOf({ peers, beforeOnset, sloErrorRatio }: Baselines, measures: Measures): Reference {
  const ratios = [peers, beforeOnset].flatMap((t) =>
    t && t.requests >= referenceMinRequests ? [t.errors / t.requests] : [],
  );
  const better = ratios.length > 0 ? Math.min(...ratios) : 0;
  const acceptable = Math.min(0.2, Math.max(bestRatio, better));
  const wanted = Math.max(measures.maxErrorRatio, worseBy * acceptable);
  // The SLO binds whatever the references say, but the two hypotheses must be apart.
  const bound = Math.max(2 * acceptable, Math.min(wanted, Math.max(sloErrorRatio, measures.maxErrorRatio)));
  const unacceptable = Math.min(0.9, Math.max(bound, bestRatio * 2));
  const noGood =
    better > sloErrorRatio
      ? 'the cells it is compared with miss the objective themselves: nothing proves it good'
      : null;
  const { falseAlarm, miss } = measures;
  return { test: { acceptable, unacceptable, falseAlarm, miss }, noGood };
}

/** Accepted risk of a miss where there is no time for more: the steps after it are judged too. */
const missInShort = 0.2;

export function measuresOf(policy: Policy, isShort: boolean): Measures {
  const { falseAlarm, miss } = policy.canary;
  return { maxErrorRatio: policy.maxErrorRatio, falseAlarm, miss: isShort ? Math.max(miss, missInShort) : miss };
}

/** Requests a canary takes, as far as can be said before it. */
export function requestsWanted(policy: Policy, baselines: Baselines, isShort: boolean): number {
  const { test } = referenceOf(baselines, measuresOf(policy, isShort));
  return Math.max(policy.canaryMinRequests, requestsForGood(test));
}
