/** Exponential histograms of OTLP as explicit buckets on one grid, so that series of any scale can be added up. */
import { number, numbers, object, objects, type Loose } from './otlp-wire';

/** 8 buckets per doubling tell latencies apart to 9 %. */
const finestScale = 3;
const coarsestScale = -2;
/** A nanosecond to 2.3 hours, in powers of two; what lies beyond counts as the end. */
const [smallestPower, largestPower] = [-30, 13];

/** The scale to which all points of an export are brought; undefined if one has none that makes sense. */
export function commonScale(points: readonly Loose[]): number | undefined {
  let common = finestScale;
  for (const point of points) {
    const scale = point.scale === undefined ? 0 : number(point.scale);
    if (!Number.isInteger(scale) || scale < coarsestScale || scale > 20) return undefined;
    common = Math.min(common, scale);
  }
  return common;
}

export function exponentialBounds(scale: number): number[] {
  const perDoubling = 2 ** scale;
  const first = Math.floor(smallestPower * perDoubling);
  const last = Math.ceil(largestPower * perDoubling);
  return Array.from({ length: last - first + 1 }, (_, i) => 2 ** ((first + i) / perDoubling));
}

/** Counts for `exponentialBounds(scale)` and what lies beyond; undefined if the point's counts are not numbers of 0 or more. */
export function explicitBuckets(point: Loose, scale: number, bucketCount: number): number[] | undefined {
  const own = point.scale === undefined ? 0 : number(point.scale);
  const positive = object(point.positive);
  const offset = positive?.offset === undefined ? 0 : number(positive.offset);
  const counts = numbers(positive?.bucketCounts);
  const zero = point.zeroCount === undefined ? 0 : number(point.zeroCount);
  if (!Number.isInteger(offset) || Math.abs(offset) > 2 ** 31) return undefined;
  if (!(zero >= 0) || !counts.every((n) => Number.isFinite(n) && n >= 0)) return undefined;
  const buckets = new Array<number>(bucketCount).fill(0);
  buckets[0] = zero;
  const first = Math.floor(smallestPower * 2 ** scale);
  const merged = 2 ** (own - scale);
  counts.forEach((n, i) => {
    // Bucket i ends at base^(i+1); bound b of the grid has index first + b.
    const index = Math.floor((offset + i) / merged) + 1 - first;
    const at = Math.min(bucketCount - 1, Math.max(0, index));
    buckets[at] = (buckets[at] ?? 0) + n;
  });
  return buckets;
}

export const exponentialPoints = (metric: Loose): Loose[] => objects(object(metric.exponentialHistogram)?.dataPoints);
