/**
 * A verdict as soon as the evidence suffices: Wald's sequential probability ratio test of a Bernoulli proportion
 * (A. Wald, "Sequential Tests of Statistical Hypotheses", Annals of Mathematical Statistics 16, 1945). Looking after
 * every request costs nothing: the error rates hold whenever it stops.
 */
import type { Totals } from './failover';

export interface SequentialTest {
  /** Error ratio of a cell that is as good as it should be (H0). */
  acceptable: number;
  /** Error ratio of a cell that must not get more (H1). */
  unacceptable: number;
  /** Accepted probability of sending a good cell back. */
  falseAlarm: number;
  /** Accepted probability of going on with a bad one. */
  miss: number;
}

/** `good`: H0 is accepted; `bad`: H1 is; null: the evidence suffices for neither. */
export function sequentialVerdict({ requests, errors }: Totals, test: SequentialTest): 'good' | 'bad' | null {
  const ratio = logRatio(requests, errors, test);
  if (ratio >= Math.log((1 - test.miss) / test.falseAlarm)) return 'bad';
  if (ratio <= Math.log(test.miss / (1 - test.falseAlarm))) return 'good';
  return null;
}

/** How many requests without an error the good verdict takes: the least, and for a good cell about the usual number. */
export function requestsForGood(test: SequentialTest): number {
  return Math.ceil(Math.log(test.miss / (1 - test.falseAlarm)) / logRatio(1, 0, test));
}

function logRatio(requests: number, errors: number, { acceptable, unacceptable }: SequentialTest): number {
  return (
    errors * Math.log(unacceptable / acceptable) + (requests - errors) * Math.log((1 - unacceptable) / (1 - acceptable))
  );
}
