/** Control charts: how many sigmas k of the cell's m metrics are away from their own past, at once or as an EWMA. */
import type { Detector } from '../contracts';
import { ownDeviations } from './own-baseline';
import { kthLargest } from './rolling';

/** The chart's statistic, scaled so that it has the sigma of a single value if values are independent. */
function smoothed(deviation: Float32Array, weight: number): Float32Array {
  const scale = Math.sqrt((2 - weight) / weight);
  let average = NaN;
  return deviation.map((value) => {
    if (value !== value) return NaN;
    average = average === average ? average + weight * (value - average) : weight * value;
    return Math.abs(average) * scale;
  });
}

/** Weight 1 is the classic three-sigma chart, 0.2 the EWMA chart, which sees small shifts that last. */
export const threeSigma = (): Detector[] =>
  [30, 120, 480].flatMap((memory) =>
    [1, 0.2].flatMap((weight) =>
      [1, 2, 3, 5].map((k): Detector => ({
        name: `three-sigma memory ${memory} weight ${weight} k ${k}`,
        family: 'three-sigma',
        score(cell) {
          const charts = [...ownDeviations(cell, memory).values()].map((deviation) => smoothed(deviation, weight));
          return kthLargest(charts, Math.min(k, Math.max(1, charts.length)), cell.ticks);
        },
      })),
    ),
  );
