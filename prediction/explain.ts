/** Why a score is high: each metric's exact part in it, and a sentence with the figures. */
import type { Driver } from './contracts';
import { features, featureSpec, type CrossFeature, type MetricFeature, type MetricRole } from './feature-spec';
import type { MetricFigures } from './features';
import { addShapleyValues, type Forest } from './forest';
import { metrics, type MetricName } from './metrics';

const mostDrivers = 4;

/** A level that differs from the usual one by this share is told with it. */
const noticeable = 0.2;

/**
 * Features that know no metric by name take the worst of what the cell's metrics show. What they say is put down to the
 * metric that shows it: the one with the largest (or smallest) value of the same kind among those of the role.
 */
interface WorstOf {
  role: MetricRole;
  kinds: readonly MetricFeature[];
  /** 1: the largest counts, -1: the smallest. */
  sign: 1 | -1;
  /** 0: the worst, 1: the second worst. */
  rank: 0 | 1;
}

const worstOf = (role: MetricRole, kinds: readonly MetricFeature[], sign: 1 | -1 = 1, rank: 0 | 1 = 0): WorstOf => ({
  role,
  kinds,
  sign,
  rank,
});

const namelessFeatures: Partial<Record<CrossFeature, WorstOf>> = {
  'resource-share': worstOf('resource', ['share']),
  'resource-share-second': worstOf('resource', ['share'], 1, 1),
  'resource-log-steps': worstOf('resource', ['log-steps-to-limit'], -1),
  'resource-log-steps-long': worstOf('resource', ['log-steps-to-limit-long'], -1),
  'resource-floor-slope-mid': worstOf('resource', ['floor-slope-mid']),
  'resource-floor-slope-long': worstOf('resource', ['floor-slope-long']),
  'resource-rel-slope-long': worstOf('resource', ['rel-slope-long', 'unit-slope-long']),
  'resource-peer': worstOf('resource', ['peer']),
  saturation: worstOf('resource', ['mean']),
  'symptom-z': worstOf('symptom', ['z']),
  'symptom-z-second': worstOf('symptom', ['z'], 1, 1),
  'symptom-log-ratio': worstOf('symptom', ['log-ratio']),
  'symptom-log-ratio-second': worstOf('symptom', ['log-ratio'], 1, 1),
  'symptom-rel-slope-mid': worstOf('symptom', ['rel-slope-mid', 'unit-slope-mid']),
  'symptom-rel-slope-long': worstOf('symptom', ['rel-slope-long', 'unit-slope-long']),
  'symptom-peer': worstOf('symptom', ['peer']),
};

interface Candidate {
  metric: MetricName;
  column: number;
}

/** By column of a feature without a metric: the columns of the metrics' own features that it is the worst of. */
const candidatesOf: ReadonlyMap<number, WorstOf & { among: readonly Candidate[] }> = new Map(
  features.flatMap(({ metric, feature }, i) => {
    const worst = metric === null ? namelessFeatures[feature as CrossFeature] : undefined;
    if (!worst) return [];
    const ofRole = new Set(featureSpec.tracked.filter(({ role }) => role === worst.role).map((t) => t.metric));
    const among = features.flatMap((f, column): Candidate[] =>
      f.metric !== null &&
      ofRole.has(f.metric) &&
      (worst.kinds as readonly string[]).includes(f.feature) &&
      f.name.startsWith(`${f.metric}:`)
        ? [{ metric: f.metric, column }]
        : [],
    );
    return [[i, { ...worst, among }] as const];
  }),
);

/** The metric to which a feature's part is put down in this row; null if it is none's. */
function metricOf(column: number, row: Float32Array, offset: number): MetricName | null {
  const named = features[column]?.metric ?? null;
  const worst = candidatesOf.get(column);
  if (named !== null || !worst) return named;
  const known = worst.among
    .map(({ metric, column: own }) => ({ metric, value: worst.sign * (row[offset + own] as number) }))
    .filter(({ value }) => !Number.isNaN(value))
    .sort((a, b) => b.value - a.value);
  return known[worst.rank]?.metric ?? null;
}

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
  for (let i = 0; i < values.length; i++) {
    const value = values[i] as number;
    const metric = value === 0 ? null : metricOf(i, row, offset);
    if (metric !== null) byMetric.set(metric, (byMetric.get(metric) ?? 0) + value);
  }
  return byMetric;
}

/** The metrics that matter most, those that raise the risk first, each with its sentence. What has no value explains nothing. */
export function drivers(
  byMetric: ReadonlyMap<MetricName, number>,
  figuresOf: (metric: MetricName) => MetricFigures | undefined,
  stepMs: number,
): Driver[] {
  return [...byMetric]
    .filter(([metric, contribution]) => Math.abs(contribution) >= 0.01 && isKnown(figuresOf(metric)))
    .sort(([a, x], [b, y]) => y - x || (a < b ? -1 : 1))
    .slice(0, mostDrivers)
    .map(([metric, contribution]) => ({
      metric,
      direction: contribution > 0 ? 'up' : 'down',
      contribution: Number(contribution.toFixed(3)),
      text: sentence(metric, figuresOf(metric), stepMs),
    }));
}

const isKnown = (figures: MetricFigures | undefined): figures is MetricFigures =>
  figures !== undefined && !Number.isNaN(figures.value);

/** "heap 91 % of limit, rising 1.2 % a second, limit in 7 s" */
export function sentence(metric: MetricName, figures: MetricFigures | undefined, stepMs: number): string {
  const { label, unit } = metrics[metric];
  if (!isKnown(figures)) return `${label}: no value now`;
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
  // Beside a usual value of 0 any rise is without measure: that it is usually 0 says enough.
  const rate = relativeTo === 0 ? 0 : perSecond / relativeTo;
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
