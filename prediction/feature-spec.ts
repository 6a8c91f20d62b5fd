/** The ordered list of features: the one place that says what the model sees. Its hash ties a model to this list. */
import { createHash } from 'node:crypto';
import { baselineBlocks, lagBlocks } from './baseline';
import type { MetricName } from './metrics';
import { blockSteps, longBlocks, midBlocks, shortBlocks } from './trend';

/**
 * Features of one metric. Shares and slopes of limited metrics are relative to the limit, `rel-` slopes to the metric's own
 * baseline, `unit-` slopes are those of a metric that is a ratio; z is the distance of the short window's mean from that baseline in robust standard deviations, `log-ratio` the
 * logarithm of their quotient; `peer` compares with the median of the service's other cells. Windows are counted in steps.
 */
export type MetricFeature =
  | 'share'
  | 'mean'
  | 'floor-share'
  | 'slope-mid'
  | 'slope-long'
  | 'unit-slope-mid'
  | 'unit-slope-long'
  | 'r2-mid'
  | 'floor-slope-mid'
  | 'floor-slope-long'
  | 'log-steps-to-limit'
  | 'log-steps-to-limit-long'
  | 'z'
  | 'log-ratio'
  | 'gap'
  | 'rel-slope-mid'
  | 'rel-slope-long'
  | 'peer';

/** Features that take several metrics, or none. Those of `any resource` and `any symptom` know no metric by name. */
export type CrossFeature =
  | 'p99-per-slo'
  | 'p99-per-slo-mean'
  | 'p50-per-slo'
  | 'p99-slo-slope-mid'
  | 'log-steps-to-slo'
  | 'log-steps-to-slo-long'
  | 'error-per-limit'
  | 'log-steps-to-error-limit'
  | 'breach-share'
  | 'log-steps-to-breach'
  | 'resource-share'
  | 'resource-share-second'
  | 'resource-log-steps'
  | 'resource-log-steps-long'
  | 'resource-floor-slope-mid'
  | 'resource-floor-slope-long'
  | 'resource-rel-slope-long'
  | 'resource-peer'
  | 'saturation'
  | 'symptom-z'
  | 'symptom-z-second'
  | 'symptom-log-ratio'
  | 'symptom-log-ratio-second'
  | 'symptom-rel-slope-mid'
  | 'symptom-rel-slope-long'
  | 'symptoms-deviating'
  | 'symptom-peer'
  | 'latency-spread'
  | 'latency-per-load'
  | 'cpu-per-request'
  | 'in-flight-per-load'
  | 'dependency-latency-share'
  | 'dependency-amplification'
  | 'error-times-retry'
  | 'disk-latency-per-rate'
  | 'log-change-age'
  | 'log-certificate-left'
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

/**
 * resource: grows towards exhaustion, and only its own users feel it. symptom: what callers or the runtime already feel.
 * load: what is asked of the cell; neither good nor bad.
 */
export type MetricRole = 'resource' | 'symptom' | 'load';

export interface TrackedMetric {
  metric: MetricName;
  role: MetricRole;
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
  'slope-mid',
  'slope-long',
  'r2-mid',
  'floor-slope-mid',
  'floor-slope-long',
  'log-steps-to-limit',
  'log-steps-to-limit-long',
  'z',
  'rel-slope-long',
  'peer',
];
const ratio: readonly MetricFeature[] = ['mean', 'z', 'gap', 'unit-slope-mid', 'unit-slope-long', 'peer'];
const level: readonly MetricFeature[] = ['z', 'log-ratio', 'gap', 'rel-slope-mid', 'rel-slope-long', 'peer'];

export const featureSpec: FeatureSpec = {
  version: 2,
  tracked: [
    { metric: 'heap.used_bytes', role: 'resource', features: exhaustible, zFloor: 500_000 },
    { metric: 'memory.used_bytes', role: 'resource', features: exhaustible, zFloor: 1_000_000 },
    { metric: 'disk.used_bytes', role: 'resource', features: exhaustible, zFloor: 100_000 },
    { metric: 'pool.used', role: 'resource', features: exhaustible, zFloor: 0.5 },
    { metric: 'fd.used', role: 'resource', features: exhaustible, zFloor: 2 },
    { metric: 'cpu.utilization', role: 'resource', features: ratio, zFloor: 0.02 },
    { metric: 'disk.utilization', role: 'resource', features: ratio, zFloor: 0.02 },
    { metric: 'cpu.throttled_share', role: 'symptom', features: ratio, zFloor: 0.02 },
    { metric: 'cpu.wait_share', role: 'symptom', features: ratio, zFloor: 0.02 },
    { metric: 'gc.share', role: 'symptom', features: ratio, zFloor: 0.01 },
    { metric: 'http.error_ratio', role: 'symptom', features: ratio, zFloor: 0.005 },
    { metric: 'dependency.error_ratio', role: 'symptom', features: ratio, zFloor: 0.005 },
    { metric: 'network.retransmit_ratio', role: 'symptom', features: ratio, zFloor: 0.005 },
    { metric: 'retry.ratio', role: 'symptom', features: ratio, zFloor: 0.02 },
    { metric: 'cache.hit_ratio', role: 'load', features: ratio, zFloor: 0.02 },
    { metric: 'http.in_flight', role: 'symptom', features: level, zFloor: 1 },
    { metric: 'event_loop.delay_p99_s', role: 'symptom', features: level, zFloor: 0.002 },
    { metric: 'http.latency_p50_s', role: 'symptom', features: level, zFloor: 0.001 },
    { metric: 'http.latency_p99_s', role: 'symptom', features: level, zFloor: 0.005 },
    { metric: 'queue.depth', role: 'symptom', features: level, zFloor: 1 },
    { metric: 'queue.oldest_age_s', role: 'symptom', features: level, zFloor: 0.02 },
    { metric: 'pool.wait_p99_s', role: 'symptom', features: level, zFloor: 0.002 },
    { metric: 'disk.write_latency_s', role: 'symptom', features: level, zFloor: 0.002 },
    { metric: 'network.rtt_s', role: 'symptom', features: level, zFloor: 0.001 },
    { metric: 'dependency.latency_p99_s', role: 'symptom', features: level, zFloor: 0.002 },
    { metric: 'dependency.request_rate', role: 'load', features: level, zFloor: 1 },
    { metric: 'disk.write_rate', role: 'load', features: level, zFloor: 10_000 },
    { metric: 'http.request_rate', role: 'load', features: level, zFloor: 1 },
  ],
  cross: [
    { feature: 'p99-per-slo', metric: 'http.latency_p99_s' },
    { feature: 'p99-per-slo-mean', metric: 'http.latency_p99_s' },
    { feature: 'p50-per-slo', metric: 'http.latency_p50_s' },
    { feature: 'p99-slo-slope-mid', metric: 'http.latency_p99_s' },
    { feature: 'log-steps-to-slo', metric: 'http.latency_p99_s' },
    { feature: 'log-steps-to-slo-long', metric: 'http.latency_p99_s' },
    { feature: 'error-per-limit', metric: 'http.error_ratio' },
    { feature: 'log-steps-to-error-limit', metric: 'http.error_ratio' },
    { feature: 'breach-share', metric: null },
    { feature: 'log-steps-to-breach', metric: null },
    { feature: 'resource-share', metric: null },
    { feature: 'resource-share-second', metric: null },
    { feature: 'resource-log-steps', metric: null },
    { feature: 'resource-log-steps-long', metric: null },
    { feature: 'resource-floor-slope-mid', metric: null },
    { feature: 'resource-floor-slope-long', metric: null },
    { feature: 'resource-rel-slope-long', metric: null },
    { feature: 'resource-peer', metric: null },
    { feature: 'saturation', metric: null },
    { feature: 'symptom-z', metric: null },
    { feature: 'symptom-z-second', metric: null },
    { feature: 'symptom-log-ratio', metric: null },
    { feature: 'symptom-log-ratio-second', metric: null },
    { feature: 'symptom-rel-slope-mid', metric: null },
    { feature: 'symptom-rel-slope-long', metric: null },
    { feature: 'symptoms-deviating', metric: null },
    { feature: 'symptom-peer', metric: null },
    { feature: 'latency-spread', metric: 'http.latency_p99_s' },
    { feature: 'latency-per-load', metric: 'http.latency_p50_s' },
    { feature: 'cpu-per-request', metric: 'cpu.utilization' },
    { feature: 'in-flight-per-load', metric: 'http.in_flight' },
    { feature: 'dependency-latency-share', metric: 'dependency.latency_p99_s' },
    { feature: 'dependency-amplification', metric: 'dependency.request_rate' },
    { feature: 'error-times-retry', metric: 'retry.ratio' },
    { feature: 'disk-latency-per-rate', metric: 'disk.write_latency_s' },
    { feature: 'log-change-age', metric: 'change.age_s' },
    { feature: 'log-certificate-left', metric: 'certificate.left_s' },
    { feature: 'fresh-instances', metric: null },
    { feature: 'missing', metric: null },
    { feature: 'sample-age', metric: null },
    { feature: 'log-uptime', metric: 'process.uptime_s' },
    { feature: 'log-history', metric: null },
  ],
  constants: {
    blockSteps,
    shortBlocks,
    midBlocks,
    longBlocks,
    baselineBlocks,
    lagBlocks,
    holdSteps: 3,
    forgetInstanceSteps: 60,
    maxStepsToLimit: 604_800,
    relativeZFloor: 0.05,
    limitZFloor: 0.01,
    largestZ: 50,
    deviatingZ: 4,
    errorLimit: 0.05,
    /** The latency objective of a cell that declares none: so many times its usual p99. */
    defaultSloPerBaseline: 5,
    minPeers: 2,
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
export const historySteps = (baselineBlocks + lagBlocks + 1) * blockSteps + longBlocks * blockSteps;
