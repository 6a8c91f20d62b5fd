/** What the steps of a warm-up measure with: which answers count as failures, quantiles, figures in words. */
import type { HttpAnswer } from '../http';

export const requestTimeoutMs = 5_000;

/** Why the answer is none that a caller wants; undefined for a good one. */
export function failureOf(answer: PromiseSettledResult<HttpAnswer>): string | undefined {
  if (answer.status === 'rejected') {
    const { message, code } = answer.reason as NodeJS.ErrnoException;
    return message || code || 'no answer';
  }
  return answer.value.status >= 200 && answer.value.status <= 299 ? undefined : `answered ${answer.value.status}`;
}

/** Nearest rank; null of nothing. */
export function quantile(values: readonly number[], q: number): number | null {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.ceil(q * sorted.length) - 1]!;
}

export function ms(value: number): string {
  return `${value.toFixed(1)} ms`;
}

export function percent(part: number): string {
  return `${(100 * part).toFixed(1)} %`;
}

/** The slowest p95 that is accepted beside its peers'. */
export function latencyLimitMs(
  { maxLatencyRatio, toleranceMs }: { maxLatencyRatio: number; toleranceMs: number },
  peersP95Ms: number,
): number {
  return Math.max(peersP95Ms * maxLatencyRatio, peersP95Ms + toleranceMs);
}
