/**
 * Elastic's way: how unlikely each metric's bucket is given its own past, gathered over twelve buckets, on a scale of
 * 0 to 100. Its seasons need days of history, which recordings of hours do not have: the past is a rolling one.
 */
import type { CellSeries, Detector } from '../contracts';
import { ownDeviations } from './own-baseline';
import { kthLargest, trailingMean } from './rolling';
import { healthyTicks } from './signals';

const buckets = 12;
/** A single bucket counts no more than this: -ln of a probability of 1e-20. */
const mostSurprise = 46;
/** Score of the 99th percentile of healthy time. */
const scale = 50;

/** -ln of the two-sided tail probability of a normal deviate; continued fraction of Mills' ratio beyond 3 sigma. */
export function surprise(deviation: number): number {
  const z = Math.abs(deviation);
  if (z > 3) {
    const mills = 1 / (z + 1 / (z + 2 / (z + 3 / (z + 4 / (z + 1)))));
    return Math.min(mostSurprise, (z * z) / 2 - Math.log(2 * mills * 0.3989422804014327));
  }
  // Abramowitz and Stegun 7.1.26: absolute error below 1.5e-7, enough up to 3 sigma.
  const x = z / Math.SQRT2;
  const t = 1 / (1 + 0.3275911 * x);
  const poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return Math.max(0, -Math.log(poly * Math.exp(-x * x)));
}

type Gather = 'worst' | 'third' | 'mean';

function raw(cell: CellSeries, memory: number, bucketTicks: number, gather: Gather): Float32Array {
  const perMetric = [...ownDeviations(cell, memory).values()].map((deviation) => {
    const bucketed = trailingMean(deviation, bucketTicks);
    // Neighbouring values hang together: a mean of n of them is taken to be as uncertain as one of sqrt(n).
    const sharpening = Math.sqrt(Math.sqrt(bucketTicks));
    return trailingMean(
      bucketed.map((mean) => (mean === mean ? surprise(mean * sharpening) : NaN)),
      buckets * bucketTicks,
    );
  });
  if (gather !== 'mean') return kthLargest(perMetric, gather === 'worst' ? 1 : 3, cell.ticks);
  const means = new Float32Array(cell.ticks).fill(NaN);
  for (let tick = 0; tick < cell.ticks; tick++) {
    let sum = 0;
    let count = 0;
    for (const column of perMetric) {
      const value = column[tick]!;
      if (value !== value) continue;
      sum += value;
      count++;
    }
    if (count > 0) means[tick] = sum / count;
  }
  return means;
}

function member(memory: number, bucketTicks: number, gather: Gather): Detector {
  /** 99th percentile of healthy training time. */
  let usual = 1;
  return {
    name: `tail-probability memory ${memory} bucket ${bucketTicks} ${gather}`,
    family: 'tail-probability',
    fit(training) {
      const healthy: number[] = [];
      for (const cell of training) {
        const mask = healthyTicks(cell);
        const scores = raw(cell, memory, bucketTicks, gather);
        for (let tick = 0; tick < cell.ticks; tick += 10) {
          if (mask[tick] && !Number.isNaN(scores[tick]!)) healthy.push(scores[tick]!);
        }
      }
      const sorted = Float64Array.from(healthy).sort();
      usual = Math.max(1e-6, sorted[Math.floor(0.99 * (sorted.length - 1))] ?? 1);
    },
    // A ratio never saturates: ranks beyond everything seen in training stay distinct.
    score: (cell) =>
      raw(cell, memory, bucketTicks, gather).map((x) => (100 * x) / (x + (usual * (100 - scale)) / scale)),
  };
}

export const tailProbabilities = (): Detector[] =>
  [60, 240, 960].flatMap((memory) =>
    [1, 5].flatMap((bucketTicks) =>
      (['worst', 'third', 'mean'] as const).map((gather) => member(memory, bucketTicks, gather)),
    ),
  );
