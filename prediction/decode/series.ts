/** Turns counters and histograms, cumulative or delta, into what happened between two exports; bounded memory. */

export interface Point {
  /** Identifies the series within its group: its attributes in a fixed order. */
  key: string;
  /** Start of the counting, in ms since the epoch; 0 when the producer does not say. */
  startMs: number;
  timeMs: number;
  count: number;
  sum: number;
  /** Histogram buckets; empty for plain counters. */
  buckets: readonly number[];
}

export interface Delta {
  point: Point;
  count: number;
  sum: number;
  buckets: readonly number[];
}

export interface Interval {
  atMs: number;
  elapsedMs: number;
  deltas: Delta[];
}

interface SeriesState {
  startMs: number;
  count: number;
  sum: number;
  buckets: readonly number[];
}

interface Group {
  lastMs: number;
  series: Map<string, SeriesState>;
}

interface CounterState {
  atMs: number;
  value: number;
}

/** Older by more than this is no record that was overtaken: the producer's clock was set back, and its series begin anew. */
export const clockSetBackMs = 60_000;

/**
 * State per (instance, metric) group and, within, per attribute set. When more than `maxSeries` series are known, the
 * groups not heard of for longest are forgotten: a forgotten series costs one interval, never a wrong number.
 */
export class SeriesStore {
  private readonly groups = new Map<string, Group>();
  private readonly counters = new Map<string, CounterState>();
  private size = 0;

  constructor(
    private readonly maxSeries = 200_000,
    private readonly maxSeriesPerGroup = 2_000,
  ) {}

  get seriesCount(): number {
    return this.size + this.counters.size;
  }

  /**
   * The growth per second of a counter that comes alone, since its reading before; one that fell began again at 0.
   * `NaN` for the first reading; undefined for one that is not newer than the last (duplicate or late).
   */
  rate(key: string, atMs: number, value: number): number | undefined {
    const before = this.counters.get(key);
    if (before && atMs <= before.atMs && atMs > before.atMs - clockSetBackMs) return undefined;
    // Taken out and put in again, so that the map's order is the order of use.
    this.counters.delete(key);
    this.counters.set(key, { atMs, value });
    if (this.counters.size > this.maxSeries) {
      const [oldest] = this.counters.keys();
      if (oldest !== undefined) this.counters.delete(oldest);
    }
    if (!before || atMs <= before.atMs) return NaN;
    return ((value < before.value ? value : value - before.value) * 1000) / (atMs - before.atMs);
  }

  /**
   * What the points of one export add to the export before. Undefined if that cannot be said: the first export of a
   * group, or one that is not newer than the last (duplicate or late).
   */
  advance(groupKey: string, points: readonly Point[], temporality: 'delta' | 'cumulative'): Interval | undefined {
    if (points.length === 0) return undefined;
    let atMs = 0;
    for (const point of points) atMs = Math.max(atMs, point.timeMs);
    let group = this.groups.get(groupKey);
    if (group && atMs <= group.lastMs - clockSetBackMs) {
      this.groups.delete(groupKey);
      this.size -= group.series.size;
      group = undefined;
    }
    if (group && atMs <= group.lastMs) return undefined;
    const previousMs = group?.lastMs;
    const current = group ?? { lastMs: atMs, series: new Map<string, SeriesState>() };
    // Taken out and put in again, so that the map's order is the order of use.
    this.groups.delete(groupKey);
    this.groups.set(groupKey, current);
    current.lastMs = atMs;
    const interval =
      temporality === 'delta'
        ? this.fromDelta(points, atMs, previousMs)
        : this.fromCumulative(current, points, atMs, previousMs);
    this.evict();
    return interval;
  }

  private fromDelta(points: readonly Point[], atMs: number, previousMs: number | undefined): Interval | undefined {
    let elapsedMs = 0;
    for (const point of points) {
      if (point.startMs > 0) elapsedMs = Math.max(elapsedMs, point.timeMs - point.startMs);
    }
    if (elapsedMs <= 0 && previousMs !== undefined) elapsedMs = atMs - previousMs;
    if (elapsedMs <= 0) return undefined;
    return {
      atMs,
      elapsedMs,
      deltas: points.map((p) => ({ point: p, count: p.count, sum: p.sum, buckets: p.buckets })),
    };
  }

  private fromCumulative(
    group: Group,
    points: readonly Point[],
    atMs: number,
    previousMs: number | undefined,
  ): Interval | undefined {
    const deltas: Delta[] = [];
    let elapsedMs = previousMs === undefined ? 0 : atMs - previousMs;
    for (const point of points) {
      const before = group.series.get(point.key);
      const reset = before !== undefined && hasReset(before, point);
      if (before && !reset) {
        deltas.push({
          point,
          count: point.count - before.count,
          sum: Math.max(0, point.sum - before.sum),
          buckets: point.buckets.map((n, i) => n - (before.buckets[i] ?? 0)),
        });
      } else if (previousMs !== undefined) {
        // A series that began after the last export, or started again from zero: all of it happened since then.
        if (reset && point.startMs > 0 && point.startMs > previousMs) {
          elapsedMs = Math.min(elapsedMs, Math.max(1, atMs - point.startMs));
        }
        deltas.push({ point, count: point.count, sum: point.sum, buckets: point.buckets });
      }
      if (before || group.series.size < this.maxSeriesPerGroup) {
        if (!before) this.size += 1;
        group.series.set(point.key, {
          startMs: point.startMs,
          count: point.count,
          sum: point.sum,
          buckets: point.buckets,
        });
      }
    }
    return previousMs === undefined || elapsedMs <= 0 ? undefined : { atMs, elapsedMs, deltas };
  }

  private evict(): void {
    for (const [key, group] of this.groups) {
      if (this.size <= this.maxSeries && this.groups.size <= this.maxSeries) return;
      this.groups.delete(key);
      this.size -= group.series.size;
    }
  }
}

function hasReset(before: SeriesState, now: Point): boolean {
  if (now.count < before.count || (now.startMs > before.startMs && before.startMs > 0)) return true;
  return now.buckets.length !== before.buckets.length || now.buckets.some((n, i) => n < (before.buckets[i] ?? 0));
}

/**
 * The q-quantile of a histogram by linear interpolation within its bucket; the first bucket begins at 0, and what lies
 * beyond the last bound counts as the last bound. Undefined for an empty histogram.
 */
export function histogramQuantile(
  q: number,
  bounds: readonly number[],
  buckets: readonly number[],
): number | undefined {
  let total = 0;
  for (const n of buckets) total += n;
  if (total <= 0 || bounds.length === 0) return undefined;
  const rank = q * total;
  let below = 0;
  for (let i = 0; i < buckets.length; i++) {
    const here = buckets[i] ?? 0;
    if (here > 0 && below + here >= rank) {
      const upper = bounds[i];
      if (upper === undefined) return bounds[bounds.length - 1];
      const lower = i === 0 ? 0 : (bounds[i - 1] ?? 0);
      return lower + ((upper - lower) * (rank - below)) / here;
    }
    below += here;
  }
  return bounds[bounds.length - 1];
}
