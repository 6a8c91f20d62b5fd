/** The streaming feature extractor, the only place where a feature is computed, for training and for serving. */
import { CellWindow, metricIndex, type Track } from './cell-window';
import type { Sample } from './contracts';
import { featuresOf, historySteps, type CrossFeature, type FeatureSpec, type MetricFeature } from './feature-spec';
import { metrics, type MetricName } from './metrics';

export { featureNames, featureSpec, featureSpecHash, historySteps } from './feature-spec';

/** How far a tick's features can be believed. The extractor reuses the object: copy what is kept. */
export interface TickInfo {
  /** Share of the metrics this cell is known to send that have a value at this tick; 0 if none is known. */
  coverage: number;
  /** Age of the cell's newest sample; Infinity if there is none. */
  newestSampleAgeMs: number;
  /** Instances heard of within the last 3 steps, of those heard of within the last 60. */
  freshInstances: number;
  knownInstances: number;
  /** Steps since the cell was first seen, at most `historySteps`. */
  historySteps: number;
}

/** The figures behind a sentence about one metric of one cell. NaN where unknown. */
export interface MetricFigures {
  value: number;
  /** Mean of the last 10 steps: what a metric that jumps about is at. NaN while there are too few. */
  recent: number;
  limit: number;
  /** Per step, over the last 30 steps. */
  slope: number;
  /** Steps until the limit at the present slope; Infinity if it does not rise. */
  stepsToLimit: number;
  baseline: number;
  z: number;
}

const clamp = (value: number, low: number, high: number) => (value < low ? low : value > high ? high : value);

/** NaN stays NaN; absurd telemetry becomes a large number rather than an infinite one. */
const bounded = (value: number) => clamp(value, -1e6, 1e6);

export class FeatureExtractor {
  readonly featureCount: number;
  private readonly cells = new Map<string, CellWindow>();
  private readonly trackOf = new Map<MetricName, number>();
  private readonly limits: readonly (number | MetricName | undefined)[];
  private readonly info: TickInfo = {
    coverage: 0,
    newestSampleAgeMs: Infinity,
    freshInstances: 0,
    knownInstances: 0,
    historySteps: 0,
  };

  constructor(
    readonly spec: FeatureSpec,
    readonly stepMs: number = 1000,
  ) {
    this.featureCount = featuresOf(spec).length;
    spec.tracked.forEach(({ metric }, i) => this.trackOf.set(metric, i));
    this.limits = spec.tracked.map(({ metric }) => metrics[metric].limit);
  }

  get cellCount(): number {
    return this.cells.size;
  }

  /** Takes a sample that belongs to the next tick or an earlier one. Returns whether it was new. */
  observe(sample: Sample): boolean {
    return this.window(sample.cell).observe(sample.instance, sample.metric, sample.atMs, sample.value);
  }

  /** What the configuration says about a cell; without it the features that need it are missing. */
  describe(cell: string, facts: { sloLatencyMs?: number }): void {
    this.window(cell).sloLatencyS = facts.sloLatencyMs === undefined ? NaN : facts.sloLatencyMs / 1000;
  }

  /** While a cell's risk is high its baseline must not learn: a slow leak would become normal. */
  freezeBaseline(cell: string, frozen: boolean): void {
    const window = this.cells.get(cell);
    if (window) window.frozen = frozen;
  }

  forget(cell: string): void {
    this.cells.delete(cell);
  }

  /**
   * Closes the step that ends at `atMs` (a multiple of the step) and writes the cell's features to `out` from
   * `offset` on. Steps that were left out since the last tick count as missing.
   */
  tick(cell: string, atMs: number, out: Float32Array, offset: number): TickInfo {
    const window = this.window(cell);
    const step = Math.round(atMs / this.stepMs);
    if (window.firstStep === -Infinity) window.firstStep = step;
    const skipped = window.lastStep === -Infinity ? 0 : Math.min(step - window.lastStep - 1, historySteps);
    for (let s = step - skipped; s < step; s++) this.advance(window, s, true);
    const { constants } = this.spec;
    window.aggregate(
      atMs,
      (constants.holdSteps ?? 3) * this.stepMs,
      (constants.forgetInstanceSteps ?? 60) * this.stepMs,
    );
    this.advance(window, step, false);
    window.lastStep = step;
    this.write(window, atMs, step, out, offset);
    return this.info;
  }

  /** The figures of the last tick. Undefined for an unknown cell or a metric without features. */
  figures(cell: string, metric: MetricName): MetricFigures | undefined {
    const window = this.cells.get(cell);
    const track = window?.tracks[this.trackOf.get(metric) ?? -1];
    if (!track) return undefined;
    const { slope } = track.trend.mid;
    return {
      value: track.last,
      recent: track.trend.short.mean,
      limit: track.limit,
      slope,
      stepsToLimit: stepsToLimit(track, this.spec.constants.maxStepsToLimit ?? Infinity),
      baseline: track.baseline.centre,
      z: track.z,
    };
  }

  private window(cell: string): CellWindow {
    let window = this.cells.get(cell);
    if (!window) {
      window = new CellWindow(cell, this.spec.tracked.length, this.spec.constants.blockSteps ?? 5);
      this.cells.set(cell, window);
    }
    return window;
  }

  private advance(window: CellWindow, step: number, missing: boolean): void {
    const blockSteps = this.spec.constants.blockSteps ?? 5;
    const closesBlock = (step + window.blockOffset) % blockSteps === 0;
    this.spec.tracked.forEach(({ metric }, i) => {
      const value = missing ? NaN : (window.current[metricIndex[metric]] as number);
      (window.tracks[i] as Track).step(value, step, closesBlock, window.frozen);
    });
  }

  private write(window: CellWindow, atMs: number, step: number, out: Float32Array, offset: number): void {
    const { spec } = this;
    const relativeFloor = spec.constants.relativeZFloor ?? 0;
    const largest = spec.constants.largestZ ?? 50;
    let at = offset;
    let known = 0;
    let present = 0;
    let missing = 0;
    let deviating = 0;
    let largestZ = 0;
    for (let i = 0; i < spec.tracked.length; i++) {
      const tracked = spec.tracked[i] as (typeof spec.tracked)[number];
      const track = window.tracks[i] as Track;
      const limit = this.limits[i];
      track.computeTrend();
      track.limit =
        typeof limit === 'number' ? limit : limit === undefined ? NaN : (window.current[metricIndex[limit]] as number);
      const { centre, scale } = track.baseline;
      const floor = Math.max(tracked.zFloor, relativeFloor * Math.abs(centre), scale);
      track.z = clamp((track.last - centre) / floor, -largest, largest);
      if (track.isKnown(step, historySteps)) {
        known += 1;
        missing += track.trend.missing;
        if (track.last === track.last) present += 1;
      }
      const deviation = Math.abs(track.z);
      if (deviation > (spec.constants.deviatingZ ?? 4)) deviating += 1;
      if (deviation > largestZ) largestZ = deviation;
      for (const feature of tracked.features) out[at++] = bounded(this.metricFeature(feature, track));
    }
    const { info } = this;
    info.coverage = known === 0 ? 0 : present / known;
    info.newestSampleAgeMs = atMs - window.newestMs;
    info.freshInstances = window.freshInstances;
    info.knownInstances = window.instanceCount;
    info.historySteps = Math.min(step - window.firstStep, historySteps);
    const missingShare = known === 0 ? NaN : missing / known;
    for (const { feature } of spec.cross) {
      out[at++] = bounded(this.crossFeature(feature, window, known === 0 ? NaN : deviating, largestZ, missingShare));
    }
  }

  private metricFeature(feature: MetricFeature, track: Track): number {
    const { trend, limit } = track;
    switch (feature) {
      case 'share':
        return track.last / limit;
      case 'floor-share':
        return trend.floor / limit;
      case 'slope-10':
        return trend.short.slope / limit;
      case 'slope-30':
        return trend.mid.slope / limit;
      case 'r2-30':
        return trend.mid.r2;
      case 'floor-slope-10':
        return trend.floorSlopeShort / limit;
      case 'floor-slope-20':
        return trend.floorSlopeLong / limit;
      case 'log-steps-to-limit':
        return Math.log1p(stepsToLimit(track, this.spec.constants.maxStepsToLimit ?? Infinity));
      case 'z':
        return track.z;
      case 'gap':
        return relative(trend.short.mean - trend.long.mean, trend.long.mean);
      case 'relative-slope-30':
        return relative(trend.mid.slope, trend.mid.mean);
      case 'sd-ratio':
        return trend.long.sd > 0 ? clamp(trend.short.sd / trend.long.sd, 0, 10) : NaN;
    }
  }

  private crossFeature(
    feature: CrossFeature,
    window: CellWindow,
    deviating: number,
    largestZ: number,
    missing: number,
  ): number {
    const p99 = window.current[metricIndex['http.latency_p99_s']] as number;
    const p50 = window.current[metricIndex['http.latency_p50_s']] as number;
    switch (feature) {
      case 'latency-p99-per-slo':
        return clamp(p99 / window.sloLatencyS, 0, 50);
      case 'latency-spread':
        return logRatio(p99, p50);
      case 'latency-per-load':
        return this.perLoad(window, 'http.latency_p50_s');
      case 'cpu-per-request':
        return this.perLoad(window, 'cpu.utilization');
      case 'in-flight-per-load': {
        // Little's law: requests in flight that rate and latency do not account for.
        const rate = window.current[metricIndex['http.request_rate']] as number;
        const inFlight = window.current[metricIndex['http.in_flight']] as number;
        return Math.log1p(clamp(inFlight / Math.max(1, rate * p50), 0, 1e6));
      }
      case 'deviating-metrics':
        return deviating;
      case 'largest-z':
        return largestZ;
      case 'fresh-instances':
        return this.info.knownInstances === 0 ? NaN : this.info.freshInstances / this.info.knownInstances;
      case 'missing':
        return missing;
      case 'sample-age':
        return clamp(this.info.newestSampleAgeMs / this.stepMs, 0, 60);
      case 'log-uptime':
        return Math.log1p(((window.current[metricIndex['process.uptime_s']] as number) * 1000) / this.stepMs);
      case 'log-history':
        return Math.log1p(this.info.historySteps);
    }
  }

  /** How much more of the metric a request costs than it usually does, as a logarithm. */
  private perLoad(window: CellWindow, metric: MetricName): number {
    const track = window.tracks[this.trackOf.get(metric) ?? -1];
    const rate = window.tracks[this.trackOf.get('http.request_rate') ?? -1];
    if (!track || !rate) return NaN;
    return clamp(logRatio(track.last, track.baseline.centre) - logRatio(rate.last, rate.baseline.centre), -5, 5);
  }
}

function logRatio(a: number, b: number): number {
  return a > 0 && b > 0 ? clamp(Math.log(a / b), -10, 10) : NaN;
}

function relative(value: number, to: number): number {
  const base = Math.abs(to);
  return base > 0 ? clamp(value / base, -10, 10) : value === 0 ? 0 : NaN;
}

/** By the slope of the last 30 steps or that of the floor, whichever is steeper: being early costs less than being late. */
function stepsToLimit(track: Track, most: number): number {
  const left = track.limit - track.last;
  const { slope } = track.trend.mid;
  if (!(left === left) || !(slope === slope)) return NaN;
  if (left <= 0) return 0;
  const floorSlope = track.trend.floorSlopeLong;
  const steepest = floorSlope > slope ? floorSlope : slope;
  return steepest > 0 ? Math.min(left / steepest, most) : most;
}
