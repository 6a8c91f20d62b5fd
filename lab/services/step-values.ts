/** The values of one telemetry step: exact quantiles, rounding, and the requests an instance served in it. */
import type { MetricName } from '../../prediction/metrics';

export type StepValues = Partial<Record<MetricName, number>>;

/** Exact quantile (nearest rank) of the values, or undefined if there are none. Sorts the array in place. */
export function quantile(values: number[], q: number): number | undefined {
  values.sort((a, b) => a - b);
  return values[Math.max(0, Math.ceil(q * values.length) - 1)];
}

/** Four significant digits: what a real exporter's precision amounts to, and a third of the bytes. */
export function rounded(values: StepValues): StepValues {
  const result: StepValues = {};
  for (const [name, value] of Object.entries(values) as [MetricName, number | undefined][]) {
    if (value !== undefined && Number.isFinite(value)) result[name] = Number(value.toPrecision(4));
  }
  return result;
}

/** Counts the requests that ended in a step, with their latency from arrival, time in line included. */
export class RequestMeter {
  private latenciesS: number[] = [];
  private errors = 0;

  /** A caller who gave up (499) counts with the time it waited, but not as an error of the service's. */
  ended(status: number, latencyS: number): void {
    this.latenciesS.push(latencyS);
    if (status >= 500) this.errors++;
  }

  step(elapsedS: number): StepValues {
    const { latenciesS, errors } = this;
    this.latenciesS = [];
    this.errors = 0;
    const values: StepValues = { 'http.request_rate': latenciesS.length / elapsedS };
    if (latenciesS.length > 0) {
      values['http.error_ratio'] = errors / latenciesS.length;
      values['http.latency_p50_s'] = quantile(latenciesS, 0.5)!;
      values['http.latency_p99_s'] = quantile(latenciesS, 0.99)!;
    }
    return values;
  }
}
