/** Why a score is high: each metric's exact part in it, and a sentence with the figures. */
import type { Driver } from './contracts';
import { features } from './feature-spec';
import type { MetricFigures } from './features';
import { addShapleyValues, type Forest } from './forest';
import { metrics, type MetricName } from './metrics';

const mostDrivers = 4;

/** A level that differs from the usual one by this share is told with it. */
const noticeable = 0.2;

/**
 * Shapley values of all features, summed per metric, in log-odds of the failure probability. The hazards' log-odds add
 * up to it with weight h_k / F: the derivative of log-odds of F = 1 - prod(1 - h) by the log-odds of h_k.
 */
export function contributions(
  forest: Forest,
  row: Float32Array,
  offset: number,
  hazards: Float32Array,
  hazardOffset: number,
): Map<MetricName, number> {
  let survival = 1;
  for (let k = 0; k < forest.bins.length; k++) survival *= 1 - (hazards[hazardOffset + k] as number);
  const failure = Math.max(1e-9, 1 - survival);
  const values = new Float64Array(features.length);
  forest.bins.forEach(({ scale, trees }, k) => {
    const factor = (scale * (hazards[hazardOffset + k] as number)) / failure;
    if (factor === 0) return;
    for (const tree of trees) addShapleyValues(tree, row, offset, factor, values);
  });
  const byMetric = new Map<MetricName, number>();
  features.forEach(({ metric }, i) => {
    if (metric !== null) byMetric.set(metric, (byMetric.get(metric) ?? 0) + (values[i] as number));
  });
  return byMetric;
}

/** The metrics that matter most, those that raise the risk first, each with its sentence. */
export function drivers(
  byMetric: ReadonlyMap<MetricName, number>,
  figuresOf: (metric: MetricName) => MetricFigures | undefined,
  stepMs: number,
): Driver[] {
  return [...byMetric]
    .filter(([, contribution]) => Math.abs(contribution) >= 0.01)
    .sort(([a, x], [b, y]) => y - x || (a < b ? -1 : 1))
    .slice(0, mostDrivers)
    .map(([metric, contribution]) => ({
      metric,
      direction: contribution > 0 ? 'up' : 'down',
      contribution: Number(contribution.toFixed(3)),
      text: sentence(metric, figuresOf(metric), stepMs),
    }));
}

/** "heap 91 % of limit, rising 1.2 % a second, limit in 7 s" */
export function sentence(metric: MetricName, figures: MetricFigures | undefined, stepMs: number): string {
  const { label, unit } = metrics[metric];
  if (!figures || Number.isNaN(figures.value)) return `${label}: no value now`;
  const perSecond = (figures.slope * 1000) / stepMs;
  const parts: string[] = [];
  const isShare = figures.limit === figures.limit && figures.limit !== 1;
  const level = Number.isNaN(figures.recent) ? figures.value : figures.recent;
  parts.push(
    isShare
      ? `${label} ${percent(figures.value / figures.limit)} of limit`
      : `${label} ${quantity(level, unit, metric)}`,
  );
  const relativeTo = figures.limit === figures.limit ? figures.limit : Math.abs(figures.baseline);
  const rate = perSecond / relativeTo;
  if (Math.abs(rate) >= 0.001) parts.push(`${rate > 0 ? 'rising' : 'falling'} ${percent(Math.abs(rate))} a second`);
  const secondsLeft = (figures.stepsToLimit * stepMs) / 1000;
  if (isShare && secondsLeft < 86_400 && rate > 0.0001) parts.push(`limit in ${duration(secondsLeft)}`);
  const isUnusual =
    Math.abs(level - figures.baseline) >= noticeable * Math.max(Math.abs(level), Math.abs(figures.baseline));
  if (!isShare && isUnusual) parts.push(`usually ${quantity(figures.baseline, unit, metric)}`);
  return parts.join(', ');
}

function percent(share: number): string {
  const value = share * 100;
  return `${Math.abs(value) < 10 ? Number(value.toFixed(1)) : Math.round(value)} %`;
}

function duration(seconds: number): string {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

function quantity(value: number, unit: string, metric: MetricName): string {
  if (unit === 's')
    return value < 1 ? `${Number((value * 1000).toPrecision(2))} ms` : `${Number(value.toPrecision(3))} s`;
  if (unit === 'By') return `${Math.round(value / 1e6)} MB`;
  if (unit === '1/s') return `${Number(value.toPrecision(3))}/s`;
  return metrics[metric].limit === 1 ? percent(value) : String(Number(value.toPrecision(3)));
}
