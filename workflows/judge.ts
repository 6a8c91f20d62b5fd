/** The verdict on a cell from its own counters, over the time since a change: few requests give none. */
import type { Baselines, Measures } from './canary';
import { referenceOf } from './canary';
import type { Totals } from './failover';
import { sequentialVerdict } from './sequential-test';

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

/** Median latency of the synthetic cell over the last seconds, and of the slowest of its peers. */
export interface Latencies {
  p50Ms: number;
  samples: number;
  peersP50Ms: number | null;
}

export interface CanaryRequest {
  measures: Measures;
  baselines: Baselines;
  sloLatencyMs: number | null;
}

/** Fewer samples say nothing about a median. */
const fewestSamples = 20;
/** So much slower than its slowest peer is no chance. */
const slowerBy = 2;

/**
 * The canary's verdict beside a sick source: the sequential test of its errors against its peers, the source's time before
 * onset and the SLO (see `referenceOf`), and its median latency against the objective. It is `good` only from
 * `minRequests` on, and `bad` never by one error alone.
 */
export function judgeCanary(
  seen: Totals,
  peers: Totals | null,
  latencies: Latencies | null,
  { measures, baselines, sloLatencyMs }: CanaryRequest,
  minRequests: number,
): { verdict: 'good' | 'bad' | null; against: string } {
  const { test, noGood } = referenceOf({ ...baselines, peers }, measures);
  const against = noGood ?? `${ratioText(test.acceptable)} as good and ${ratioText(test.unacceptable)} as bad`;
  const isSlow = whetherSlow(latencies, sloLatencyMs);
  if (isSlow === 'bad')
    return { verdict: 'bad', against: `an objective of ${sloLatencyMs} ms, which half of its answers miss` };
  const verdict = sequentialVerdict(seen, test);
  if (verdict === 'bad') return { verdict: seen.errors >= 2 ? 'bad' : null, against };
  const isGood = verdict === 'good' && seen.requests >= minRequests && noGood === null && isSlow === null;
  return { verdict: isGood ? 'good' : null, against };
}

/** `bad`: half of its answers miss the objective while its peers meet it; `unclear`: they all miss it. */
function whetherSlow(latencies: Latencies | null, sloMs: number | null): 'bad' | 'unclear' | null {
  if (!latencies || sloMs === null || latencies.samples < fewestSamples || latencies.p50Ms <= sloMs) return null;
  const { p50Ms, peersP50Ms } = latencies;
  return peersP50Ms === null || p50Ms > slowerBy * peersP50Ms || peersP50Ms <= sloMs ? 'bad' : 'unclear';
}

function ratioText(ratio: number): string {
  return `${(ratio * 100).toFixed(ratio < 0.01 ? 1 : 0)} %`;
}

/** On the way back the source may have little traffic to be judged by: no errors among few requests is good enough. */
export function judgeSource(seen: Totals, { maxErrorRatio }: Measure): 'good' | 'bad' {
  return seen.errors >= 2 && seen.errors / seen.requests > maxErrorRatio ? 'bad' : 'good';
}
