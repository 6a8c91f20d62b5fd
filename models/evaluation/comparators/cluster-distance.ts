/**
 * Netdata's anomaly detection: per metric 18 small k-means models of its recent shape, and an anomaly only if all of them
 * find it strange.
 */
import type { CellSeries, Detector } from '../contracts';
import { trailingMean } from './rolling';
import { courseMetrics, isUsable, rememberLatest } from './signals';

/** A point is the smoothed first difference now and at five lags. */
const dimensions = 6;
const smoothTicks = 3;
const modelsKept = 18;
/** Share of the training distances' range from which on a model calls a point strange. */
const strange = 0.99;
const iterations = 10;
/** A model needs so many whole points of its window. */
const fewestPoints = 12;

interface Model {
  /** Two centres, one after the other. */
  centres: Float64Array;
  nearest: number;
  furthest: number;
}

/** The first differences, smoothed; NaN where any of the values is missing. */
function smoothedDifferences(values: Float64Array): Float64Array {
  const result = new Float64Array(values.length).fill(NaN);
  for (let tick = smoothTicks; tick < values.length; tick++) {
    const difference = values[tick]! - values[tick - smoothTicks]!;
    if (isUsable(difference)) result[tick] = difference / smoothTicks;
  }
  return result;
}

/** Whether the point that ends at `tick` is whole; it is then the ticks from `tick - 5` on. */
function isWhole(course: Float64Array, tick: number): boolean {
  if (tick < dimensions - 1) return false;
  for (let lag = 0; lag < dimensions; lag++) if (Number.isNaN(course[tick - lag]!)) return false;
  return true;
}

function distance(course: Float64Array, tick: number, centres: Float64Array, centre: number): number {
  let sum = 0;
  for (let lag = 0; lag < dimensions; lag++) {
    const gap = course[tick - lag]! - centres[centre * dimensions + lag]!;
    sum += gap * gap;
  }
  return Math.sqrt(sum);
}

const meanDistance = (course: Float64Array, tick: number, centres: Float64Array): number =>
  (distance(course, tick, centres, 0) + distance(course, tick, centres, 1)) / 2;

/** k-means with two centres, begun at the first point and the one furthest from it: no chance is involved. */
function train(course: Float64Array, from: number, to: number): Model | undefined {
  const points: number[] = [];
  for (let tick = from; tick < to; tick++) if (isWhole(course, tick)) points.push(tick);
  if (points.length < fewestPoints) return undefined;
  const centres = new Float64Array(2 * dimensions);
  const place = (centre: number, tick: number) => {
    for (let lag = 0; lag < dimensions; lag++) centres[centre * dimensions + lag] = course[tick - lag]!;
  };
  place(0, points[0]!);
  let far = points[0]!;
  let furthestYet = 0;
  for (const tick of points) {
    const away = distance(course, tick, centres, 0);
    if (away > furthestYet) {
      furthestYet = away;
      far = tick;
    }
  }
  place(1, far);
  const sums = new Float64Array(2 * dimensions);
  let membersBefore = -1;
  for (let iteration = 0; iteration < iterations; iteration++) {
    sums.fill(0);
    let first = 0;
    for (const tick of points) {
      const centre = distance(course, tick, centres, 0) <= distance(course, tick, centres, 1) ? 0 : 1;
      if (centre === 0) first++;
      for (let lag = 0; lag < dimensions; lag++) sums[centre * dimensions + lag]! += course[tick - lag]!;
    }
    for (const centre of [0, 1]) {
      const members = centre === 0 ? first : points.length - first;
      if (members === 0) continue;
      for (let i = centre * dimensions; i < (centre + 1) * dimensions; i++) centres[i] = sums[i]! / members;
    }
    if (first === membersBefore) break;
    membersBefore = first;
  }
  let nearest = Infinity;
  let furthest = 0;
  for (const tick of points) {
    const away = meanDistance(course, tick, centres);
    nearest = Math.min(nearest, away);
    furthest = Math.max(furthest, away);
  }
  return { centres, nearest, furthest };
}

/** A metric that stood still while it was learnt has no range to be outside of; Netdata calls nothing strange then. */
const findsStrange = (model: Model, course: Float64Array, tick: number): boolean =>
  model.furthest > model.nearest &&
  meanDistance(course, tick, model.centres) - model.nearest >= strange * (model.furthest - model.nearest);

/** 1 where all models find the metric strange, 0 where one does not, NaN while none is trained or values are missing. */
function anomalyBits(values: Float64Array, windowTicks: number): Float32Array {
  const course = smoothedDifferences(values);
  const bits = new Float32Array(values.length).fill(NaN);
  const models: Model[] = [];
  for (let tick = 0; tick < values.length; tick++) {
    if (tick >= windowTicks && tick % (windowTicks / 2) === 0) {
      const model = train(course, tick - windowTicks, tick);
      if (model) models.unshift(model);
      if (models.length > modelsKept) models.pop();
    }
    if (models.length > 0 && isWhole(course, tick)) {
      bits[tick] = models.every((model) => findsStrange(model, course, tick)) ? 1 : 0;
    }
  }
  return bits;
}

/** Share of the cell's metrics that are anomalous at each tick. */
const anomalousShare: (cell: CellSeries, windowTicks: number) => Float32Array = rememberLatest((cell, windowTicks) => {
  const sums = new Float32Array(cell.ticks);
  const counts = new Float32Array(cell.ticks);
  for (const metric of courseMetrics) {
    const values = cell.values.get(metric);
    if (!values) continue;
    const bits = anomalyBits(values, windowTicks);
    for (let tick = 0; tick < cell.ticks; tick++) {
      if (Number.isNaN(bits[tick]!)) continue;
      sums[tick]! += bits[tick]!;
      counts[tick]!++;
    }
  }
  return sums.map((sum, tick) => (counts[tick]! > 0 ? sum / counts[tick]! : NaN));
});

/** A new model every half window, as published (6 h, every 3 h); the span stands for the five minutes of its alarm. */
export const clusterDistances = (): Detector[] =>
  [60, 120, 240].flatMap((windowTicks) =>
    [5, 15, 30].map((spanTicks): Detector => ({
      name: `cluster-distance window ${windowTicks} span ${spanTicks}`,
      family: 'cluster-distance',
      score: (cell) => trailingMean(anomalousShare(cell, windowTicks), spanTicks),
    })),
  );
