/** Confidence intervals by resampling incidents: rows of one incident are no independent evidence. */
import { seededRandom } from '../../lab/random';
import { quantile } from './figures';

export interface Interval {
  value: number;
  /** Bounds of the 95 % interval; NaN where there is nothing to resample. */
  low: number;
  high: number;
}

export const resamples = 1000;

/** The statistic of the items, and its interval over 1,000 resamples of them with replacement. */
export function bootstrap<T>(items: readonly T[], statistic: (items: readonly T[]) => number, seed = 1): Interval {
  const random = seededRandom(seed);
  const drawn: number[] = [];
  if (items.length > 0) {
    for (let round = 0; round < resamples; round++) {
      drawn.push(statistic(items.map(() => items[Math.floor(random() * items.length)] as T)));
    }
  }
  return { value: statistic(items), low: quantile(drawn, 0.025), high: quantile(drawn, 0.975) };
}

const mean = (values: readonly number[]): number => values.reduce((sum, v) => sum + v, 0) / values.length;

/** Share of true ones. */
export function shareInterval(outcomes: readonly boolean[], seed = 1): Interval {
  return bootstrap(outcomes.map(Number), mean, seed);
}

/** How much larger the share of the first is than that of the second, incident by incident: the same ones are drawn for both. */
export function pairedDifference(first: readonly boolean[], second: readonly boolean[], seed = 1): Interval {
  if (first.length !== second.length) throw new Error('paired outcomes must be of the same incidents');
  return bootstrap(
    first.map((outcome, i) => Number(outcome) - Number(second[i])),
    mean,
    seed,
  );
}
