/** Rows of per-cell-normalised metrics over a short window, and the healthy ones of them to learn from. */
import type { MetricName } from '../../../prediction/metrics';
import type { CellSeries } from '../contracts';
import { ownDeviations } from './own-baseline';
import { trailingMean } from './rolling';
import { courseMetrics, healthyTicks } from './signals';

export interface RowShape {
  /** Length in ticks of the baseline that metrics are normalised by. */
  memory: number;
  /** Ticks that a row looks back. */
  windowTicks: number;
}

/** A window is told by at most so many means, one after the other. */
const parts = 4;
/** Nothing is further away than this: one wild metric must not hide the others. */
const furthest = 10;
/** More rows do not change the figures. */
const mostRows = 20_000;

/** One column per metric and part of the window, by the metrics' order; undefined where the cell does not send a metric. */
export function columnsOf(
  cell: CellSeries,
  shape: RowShape,
  metrics: readonly MetricName[],
): (Float32Array | undefined)[] {
  const partTicks = Math.max(1, Math.floor(shape.windowTicks / parts));
  const count = Math.min(parts, shape.windowTicks);
  const deviations = ownDeviations(cell, shape.memory);
  return metrics.flatMap((metric) => {
    const deviation = deviations.get(metric);
    if (!deviation) return new Array<undefined>(count).fill(undefined);
    const means = trailingMean(
      deviation.map((value) => Math.max(-furthest, Math.min(furthest, value))),
      partTicks,
    );
    return Array.from({ length: count }, (_, part) => {
      if (part === 0) return means;
      const earlier = new Float32Array(means.length).fill(NaN);
      earlier.set(
        means.subarray(0, Math.max(0, means.length - part * partTicks)),
        Math.min(part * partTicks, means.length),
      );
      return earlier;
    });
  });
}

/** Writes the row at a tick into `row`, 0 (as usual) where a value is missing; returns how many values are present. */
export function readRow(columns: readonly (Float32Array | undefined)[], tick: number, row: Float64Array): number {
  let present = 0;
  for (let i = 0; i < columns.length; i++) {
    const value = columns[i]?.[tick];
    if (value === undefined || value !== value) row[i] = 0;
    else {
      row[i] = value;
      present++;
    }
  }
  return present;
}

export interface HealthyRows {
  metrics: readonly MetricName[];
  rows: Float64Array[];
}

/** Rows of the healthy stretches of the training cells, evenly spread over them. */
export function healthyRows(training: readonly CellSeries[], shape: RowShape): HealthyRows {
  const metrics = courseMetrics.filter((metric) => training.some((cell) => cell.values.has(metric)));
  const total = training.reduce((sum, cell) => sum + cell.ticks, 0);
  const stride = Math.max(1, Math.ceil(total / mostRows));
  const rows: Float64Array[] = [];
  for (const cell of training) {
    const healthy = healthyTicks(cell);
    const columns = columnsOf(cell, shape, metrics);
    // Begins at another tick in each cell, so that short cells do not all give their first ticks.
    for (let tick = rows.length % stride; tick < cell.ticks; tick += stride) {
      if (!healthy[tick]) continue;
      const row = new Float64Array(columns.length);
      if (readRow(columns, tick, row) > 0) rows.push(row);
    }
  }
  return { metrics, rows };
}
