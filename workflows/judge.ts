/** The verdict on a cell from its own counters, over the time since a change: few requests give none. */
import type { Totals } from './failover';

export interface Measure {
  minRequests: number;
  maxErrorRatio: number;
}

/** What happened between two readings. A counter that went back was restarted: it counts from zero again. */
export function since(baseline: Totals, now: Totals): Totals & { errorRatio: number } {
  const restarted = now.requests < baseline.requests || now.errors < baseline.errors;
  const requests = now.requests - (restarted ? 0 : baseline.requests);
  const errors = now.errors - (restarted ? 0 : baseline.errors);
  return { requests, errors, errorRatio: requests > 0 ? errors / requests : 0 };
}

/**
 * The canary's verdict. `bad` comes as early as it is certain: when even a full set of good answers could not bring the
 * ratio down. One error alone never condemns; it asks for more requests.
 */
export function judgeSynthetic(seen: Totals, { minRequests, maxErrorRatio }: Measure): 'good' | 'bad' | null {
  const ratio = seen.errors / Math.max(seen.requests, minRequests);
  if (ratio > maxErrorRatio && seen.errors >= 2) return 'bad';
  return seen.requests >= minRequests && ratio <= maxErrorRatio ? 'good' : null;
}

/** On the way back the source may have little traffic to be judged by: no errors among few requests is good enough. */
export function judgeSource(seen: Totals, { maxErrorRatio }: Measure): 'good' | 'bad' {
  return seen.errors >= 2 && seen.errors / seen.requests > maxErrorRatio ? 'bad' : 'good';
}
