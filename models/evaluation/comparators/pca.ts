/**
 * Principal components of healthy telemetry: what they cannot rebuild of a window is the anomaly. In published comparisons
 * this is as good as any deep detector, so it is the one to beat.
 */
import type { MetricName } from '../../../prediction/metrics';
import type { CellSeries, Detector } from '../contracts';
import { columnsOf, healthyRows, readRow, type RowShape } from './healthy-rows';
import { rememberLatest } from './signals';
import { symmetricEigen, type Eigen } from './symmetric-eigen';

/** `rest`: squared length outside of the components that hold so much of the variance. `weighted`: all, by their variance. */
const measures = { 'rest 0.7': 0.7, 'rest 0.9': 0.9, weighted: 1 } as const;
type Measure = keyof typeof measures;
const measureNames = Object.keys(measures) as Measure[];

/** Components below this share of the mean variance are noise of the arithmetic. */
const leastVariance = 1e-3;

interface Components {
  metrics: readonly MetricName[];
  mean: Float64Array;
  /** Standard deviation of each column, at least a little. */
  sigma: Float64Array;
  eigen: Eigen;
  /** How many components hold the measure's share of the variance. */
  kept: Readonly<Record<Measure, number>>;
}

function learn(training: readonly CellSeries[], shape: RowShape): Components | undefined {
  const { metrics, rows } = healthyRows(training, shape);
  const size = rows[0]?.length ?? 0;
  if (size === 0) return undefined;
  const mean = new Float64Array(size);
  for (const row of rows) for (let i = 0; i < size; i++) mean[i]! += row[i]! / rows.length;
  const sigma = new Float64Array(size);
  for (const row of rows) for (let i = 0; i < size; i++) sigma[i]! += (row[i]! - mean[i]!) ** 2 / rows.length;
  for (let i = 0; i < size; i++) sigma[i] = Math.max(0.1, Math.sqrt(sigma[i]!));
  const covariance = new Float64Array(size * size);
  const z = new Float64Array(size);
  for (const row of rows) {
    for (let i = 0; i < size; i++) z[i] = (row[i]! - mean[i]!) / sigma[i]!;
    for (let i = 0; i < size; i++) {
      const zi = z[i]! / rows.length;
      for (let j = 0; j <= i; j++) covariance[i * size + j]! += zi * z[j]!;
    }
  }
  for (let i = 0; i < size; i++) for (let j = 0; j < i; j++) covariance[j * size + i] = covariance[i * size + j]!;
  const eigen = symmetricEigen(covariance, size);
  const total = eigen.values.reduce((sum, value) => sum + Math.max(0, value), 0);
  const keptFor = (share: number): number => {
    let held = 0;
    let count = 0;
    while (count < size && held < share * total && eigen.values[count]! > (leastVariance * total) / size) {
      held += eigen.values[count++]!;
    }
    return count;
  };
  const kept = Object.fromEntries(measureNames.map((name) => [name, keptFor(measures[name])])) as Record<
    Measure,
    number
  >;
  return { metrics, mean, sigma, eigen, kept };
}

type Scores = Readonly<Record<Measure, Float32Array>>;

/** All measures at once: they share the projections, which are the work. Each is a mean over the values present. */
function scoresOf(cell: CellSeries, shape: RowShape, components: Components): Scores {
  const { metrics, mean, sigma, eigen, kept } = components;
  const empty = () => new Float32Array(cell.ticks).fill(NaN);
  const scores = { 'rest 0.7': empty(), 'rest 0.9': empty(), weighted: empty() };
  const columns = columnsOf(cell, shape, metrics);
  const size = columns.length;
  const row = new Float64Array(size);
  const most = Math.max(...measureNames.map((name) => kept[name]));
  for (let tick = 0; tick < cell.ticks; tick++) {
    const present = readRow(columns, tick, row);
    if (present === 0) continue;
    let length = 0;
    for (let i = 0; i < size; i++) {
      // A missing value stands at the mean of the training rows.
      const value = columns[i]?.[tick];
      row[i] = value === undefined || value !== value ? 0 : (row[i]! - mean[i]!) / sigma[i]!;
      length += row[i]! * row[i]!;
    }
    let rebuilt = 0;
    let weighted = 0;
    for (let component = 0; component < most; component++) {
      const vector = eigen.vectors[component]!;
      let projection = 0;
      for (let i = 0; i < size; i++) projection += row[i]! * vector[i]!;
      const squared = projection * projection;
      weighted += squared / eigen.values[component]!;
      rebuilt += squared;
      if (component + 1 === kept['rest 0.7']) scores['rest 0.7'][tick] = Math.max(0, length - rebuilt) / present;
      if (component + 1 === kept['rest 0.9']) scores['rest 0.9'][tick] = Math.max(0, length - rebuilt) / present;
      if (component + 1 === kept.weighted) scores.weighted[tick] = weighted / present;
    }
  }
  return scores;
}

/** Members of one shape, which learn and score together. */
function shaped(shape: RowShape): Detector[] {
  let learntFrom: readonly CellSeries[] | undefined;
  let components: Components | undefined;
  let generation = 0;
  const scores = rememberLatest((cell) => (components ? scoresOf(cell, shape, components) : undefined));
  return measureNames.map((measure) => ({
    name: `pca memory ${shape.memory} window ${shape.windowTicks} ${measure}`,
    family: 'pca',
    fit(training) {
      if (training === learntFrom) return;
      learntFrom = training;
      components = learn(training, shape);
      generation++;
    },
    score: (cell) => scores(cell, generation)?.[measure] ?? new Float32Array(cell.ticks).fill(NaN),
  }));
}

export const pcas = (): Detector[] =>
  [120, 480].flatMap((memory) => [1, 8, 32].flatMap((windowTicks) => shaped({ memory, windowTicks })));
