/** Each metric of a cell in sigmas of the cell's own past, which several comparators share. */
import type { MetricName } from '../../../prediction/metrics';
import type { CellSeries } from '../contracts';
import { courseMetrics, isUsable, rememberLatest, smallestChange } from './signals';

/** Nothing is unusual before so many values are known. */
const warmUp = 15;
/** Larger deviations are all the same. */
const largest = 100;
/** An outlier may widen and move the baseline only as if it were this many sigmas away. */
const winsorised = 5;

/** Deviation of each value from the mean and standard deviation of the values before it. */
function deviations(metric: MetricName, values: Float64Array, memory: number): Float32Array {
  const result = new Float32Array(values.length).fill(NaN);
  let mean = 0;
  let variance = 0;
  let known = 0;
  for (let tick = 0; tick < values.length; tick++) {
    const value = values[tick]!;
    if (!isUsable(value)) continue;
    const sigma = Math.max(Math.sqrt(variance), smallestChange(metric, mean));
    const gap = value - mean;
    if (known >= warmUp) result[tick] = Math.max(-largest, Math.min(largest, gap / sigma));
    known++;
    // A plain mean until the memory is full, an exponentially weighted one from then on.
    const weight = Math.max(1 / memory, 1 / known);
    const counted = known > warmUp ? Math.max(-winsorised * sigma, Math.min(winsorised * sigma, gap)) : gap;
    mean += weight * counted;
    variance = known === 1 ? 0 : (1 - weight) * (variance + weight * counted * counted);
  }
  return result;
}

/** By metric, signed; `memory` is the EWMA's length in ticks. */
export const ownDeviations: (cell: CellSeries, memory: number) => ReadonlyMap<MetricName, Float32Array> =
  rememberLatest((cell, memory) => {
    const byMetric = new Map<MetricName, Float32Array>();
    for (const metric of courseMetrics) {
      const values = cell.values.get(metric);
      if (values) byMetric.set(metric, deviations(metric, values, memory));
    }
    return byMetric;
  });
