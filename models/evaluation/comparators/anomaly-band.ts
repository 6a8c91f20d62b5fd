/** Anomaly monitors on robust bounds: a metric outside of its recent median by so many quartile widths, and for most of a span. */
import type { CellSeries, Detector } from '../contracts';
import { kthLargest, RollingQuantiles, trailingMedian } from './rolling';
import { courseMetrics, isUsable, rememberLatest, smallestChange } from './signals';

/** Distance of a normal distribution's quartiles, in sigmas. */
const quartileSigmas = 1.349;

const warmUp = 15;

/** Per metric and tick, how many robust sigmas the value is away from the window before it. */
const deviations: (cell: CellSeries, windowTicks: number) => readonly Float32Array[] = rememberLatest(
  (cell, windowTicks) =>
    courseMetrics.flatMap((metric) => {
      const values = cell.values.get(metric);
      if (!values) return [];
      const past = new RollingQuantiles(windowTicks);
      return [
        Float32Array.from(values, (value) => {
          let away = NaN;
          if (!isUsable(value)) return away;
          if (past.count >= warmUp) {
            const median = past.quantile(0.5);
            const sigma = (past.quantile(0.75) - past.quantile(0.25)) / quartileSigmas;
            away = Math.abs(value - median) / Math.max(sigma, smallestChange(metric, median));
          }
          past.push(value);
          return away;
        }),
      ];
    }),
);

/** The score is the bound at which the monitor would just alert: k metrics beyond it for half of the span. */
export const anomalyBands = (): Detector[] =>
  [60, 240].flatMap((windowTicks) =>
    [1, 5, 15].flatMap((spanTicks) =>
      [1, 2, 3].map((k): Detector => ({
        name: `anomaly-band window ${windowTicks} span ${spanTicks} k ${k}`,
        family: 'anomaly-band',
        score(cell) {
          const lasting = deviations(cell, windowTicks).map((away) => trailingMedian(away, spanTicks));
          return kthLargest(lasting, Math.min(k, Math.max(1, lasting.length)), cell.ticks);
        },
      })),
    ),
  );
