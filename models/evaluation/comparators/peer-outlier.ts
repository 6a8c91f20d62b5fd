/** Outlier monitors: a cell far from the median of at least three peers, in units of their median absolute deviation. */
import type { MetricName } from '../../../prediction/metrics';
import type { CellSeries, Detector } from '../contracts';
import { kthLargest, trailingMedian } from './rolling';
import { courseMetrics, isUsable, smallestChange } from './signals';

const fewestPeers = 3;
/** Median absolute deviation of a normal distribution, as a factor to its sigma. */
const toSigma = 1.4826;
/** Peers are never equal: so much of the median is no distance at all. */
const alike = 0.05;

/** Sorts in place the first `count` values; peers are few. */
function medianOf(values: Float64Array, count: number): number {
  for (let i = 1; i < count; i++) {
    const value = values[i]!;
    let at = i;
    for (; at > 0 && values[at - 1]! > value; at--) values[at] = values[at - 1]!;
    values[at] = value;
  }
  return count % 2 === 1 ? values[count >> 1]! : (values[count / 2 - 1]! + values[count / 2]!) / 2;
}

function distances(cell: CellSeries, peers: readonly CellSeries[], metric: MetricName): Float32Array | undefined {
  const own = cell.values.get(metric);
  const others = peers.flatMap((peer) => {
    const values = peer.values.get(metric);
    return values ? [{ peer, values }] : [];
  });
  if (!own || others.length < fewestPeers) return undefined;
  const present = new Float64Array(others.length);
  return Float32Array.from(own, (value, tick) => {
    if (!isUsable(value)) return NaN;
    const nowMs = cell.startMs + tick * cell.stepMs;
    let count = 0;
    for (const { peer, values } of others) {
      // The peer's latest tick up to now; undefined before it starts and after it ends.
      const theirs = values[Math.floor((nowMs - peer.startMs) / peer.stepMs)];
      if (theirs !== undefined && isUsable(theirs)) present[count++] = theirs;
    }
    if (count < fewestPeers) return NaN;
    const median = medianOf(present, count);
    for (let i = 0; i < count; i++) present[i] = Math.abs(present[i]! - median);
    const sigma = toSigma * medianOf(present, count);
    return Math.abs(value - median) / Math.max(sigma, alike * Math.abs(median), smallestChange(metric, median));
  });
}

interface Compared {
  peers: readonly CellSeries[];
  byMetric: readonly Float32Array[];
}

const compared = new WeakMap<CellSeries, Compared>();

/** Members of the grid ask for the same cell and peers one after the other. */
function comparedWith(cell: CellSeries, peers: readonly CellSeries[]): readonly Float32Array[] {
  const others = peers.filter((peer) => peer !== cell && peer.cell !== cell.cell && peer.service === cell.service);
  const known = compared.get(cell);
  if (known && known.peers.length === others.length && others.every((peer, i) => known.peers[i] === peer)) {
    return known.byMetric;
  }
  const byMetric = courseMetrics.flatMap((metric) => distances(cell, others, metric) ?? []);
  compared.set(cell, { peers: others, byMetric });
  return byMetric;
}

export const peerOutliers = (): Detector[] =>
  [1, 5, 15].flatMap((spanTicks) =>
    [1, 2, 3].map((k): Detector => ({
      name: `peer-outlier span ${spanTicks} k ${k}`,
      family: 'peer-outlier',
      score(cell, peers) {
        const lasting = comparedWith(cell, peers).map((away) => trailingMedian(away, spanTicks));
        return kthLargest(lasting, k, cell.ticks);
      },
    })),
  );
