/** The ordered list of features: the one place that says what the model sees. Its hash ties a model to this list. */
import { createHash } from 'node:crypto';
import { baselineBlocks, blockSteps, lagBlocks } from './baseline';
import type { MetricName } from './metrics';
import { longWindow, midWindow, shortWindow } from './trend';

/**
 * Features of one metric. Shares and slopes are relative to the metric's limit, `relative-` ones to its own mean; z is
 * the distance from the cell's own baseline in robust standard deviations. Windows are counted in steps.
 */
export type MetricFeature =
  | 'share'
  | 'floor-share'
  | 'slope-10'
  | 'slope-30'
  | 'r2-30'
  | 'floor-slope-10'
  | 'floor-slope-20'
  | 'log-steps-to-limit'
  | 'z'
  | 'gap'
  | 'relative-slope-30'
  | 'sd-ratio';

/** Features that take several metrics, or none. */
export type CrossFeature =
  | 'latency-p99-per-slo'
  | 'latency-spread'
  | 'latency-per-load'
  | 'cpu-per-request'
  | 'in-flight-per-load'
  | 'deviating-metrics'
  | 'largest-z'
  | 'fresh-instances'
  | 'missing'
  | 'sample-age'
  | 'log-uptime'
  | 'log-history';

export interface FeatureDefinition {
  name: string;
  /** Where a driver that rests on this feature is shown; null for what says nothing about one metric. */
  metric: MetricName | null;
  feature: MetricFeature | CrossFeature;
}

export interface TrackedMetric {
  metric: MetricName;
  features: readonly MetricFeature[];
  /** Smallest scale of the baseline in the metric's unit, so that the noise of an idle metric is no deviation. */
  zFloor: number;
}

export interface FeatureSpec {
  version: number;
  tracked: readonly TrackedMetric[];
  cross: readonly { feature: CrossFeature; metric: MetricName | null }[];
  /** Whatever else determines the numbers: a change here makes another spec, hence another hash. */
  constants: Readonly<Record<string, number>>;
}

const exhaustible: readonly MetricFeature[] = [
  'share',
  'floor-share',
  'slope-10',
  'slope-30',
  'r2-30',
  'floor-slope-10',
  'floor-slope-20',
  'log-steps-to-limit',
  'z',
];
const ratio: readonly MetricFeature[] = ['share', 'z', 'gap', 'slope-30'];
const level: readonly MetricFeature[] = ['z', 'gap', 'relative-slope-30', 'sd-ratio'];

export const featureSpec: FeatureSpec = {
  version: 1,
  tracked: [
    { metric: 'heap.used_bytes', features: exhaustible, zFloor: 500_000 },
    { metric: 'memory.used_bytes', features: exhaustible, zFloor: 1_000_000 },
    { metric: 'pool.used', features: exhaustible, zFloor: 0.5 },
    { metric: 'fd.used', features: exhaustible, zFloor: 2 },
    { metric: 'http.in_flight', features: [...exhaustible, 'gap'], zFloor: 1 },
    { metric: 'cpu.utilization', features: ratio, zFloor: 0.02 },
    { metric: 'gc.share', features: ratio, zFloor: 0.01 },
    { metric: 'http.error_ratio', features: ratio, zFloor: 0.005 },
    { metric: 'dependency.error_ratio', features: ratio, zFloor: 0.005 },
    { metric: 'event_loop.delay_p99_s', features: level, zFloor: 0.002 },
    { metric: 'http.latency_p50_s', features: level, zFloor: 0.001 },
    { metric: 'http.latency_p99_s', features: level, zFloor: 0.005 },
    { metric: 'http.request_rate', features: level, zFloor: 1 },
    { metric: 'queue.depth', features: level, zFloor: 1 },
    { metric: 'dependency.latency_p99_s', features: level, zFloor: 0.002 },
  ],
  cross: [
    { feature: 'latency-p99-per-slo', metric: 'http.latency_p99_s' },
    { feature: 'latency-spread', metric: 'http.latency_p99_s' },
    { feature: 'latency-per-load', metric: 'http.latency_p50_s' },
    { feature: 'cpu-per-request', metric: 'cpu.utilization' },
    { feature: 'in-flight-per-load', metric: 'http.in_flight' },
    { feature: 'deviating-metrics', metric: null },
    { feature: 'largest-z', metric: null },
    { feature: 'fresh-instances', metric: null },
    { feature: 'missing', metric: null },
    { feature: 'sample-age', metric: null },
    { feature: 'log-uptime', metric: 'process.uptime_s' },
    { feature: 'log-history', metric: null },
  ],
  constants: {
    shortWindow,
    midWindow,
    longWindow,
    blockSteps,
    baselineBlocks,
    lagBlocks,
    holdSteps: 3,
    forgetInstanceSteps: 60,
    maxStepsToLimit: 604_800,
    relativeZFloor: 0.02,
    largestZ: 50,
    deviatingZ: 4,
  },
};

export function featuresOf(spec: FeatureSpec): FeatureDefinition[] {
  const ofMetrics = spec.tracked.flatMap(({ metric, features }) =>
    features.map((feature): FeatureDefinition => ({ name: `${metric}:${feature}`, metric, feature })),
  );
  const ofCell = spec.cross.map(({ feature, metric }): FeatureDefinition => ({
    name: `cell:${feature}`,
    metric,
    feature,
  }));
  return [...ofMetrics, ...ofCell];
}

/** Every feature in the order of the model's input. */
export const features: readonly FeatureDefinition[] = featuresOf(featureSpec);

export const featureNames: readonly string[] = features.map((f) => f.name);

/** SHA-256 (hex) of the specification: a model trained on another one must not be used. */
export const featureSpecHash = createHash('sha256').update(JSON.stringify(featureSpec)).digest('hex');

/** Steps of telemetry after which an extractor that started empty agrees with one that never stopped. */
export const historySteps = (baselineBlocks + lagBlocks + 1) * blockSteps + longWindow;
