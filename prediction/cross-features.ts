/** The features that take several metrics of a cell, or none: what users feel, and the worst of what any metric shows. */
import { metricIndex, type CellWindow } from './cell-window';
import type { CrossFeature, FeatureSpec, TrackedMetric } from './feature-spec';
import { borneOut, clamp, relSlope, stepsToLevel, stepsToLimit, stepsToLimitLong } from './metric-features';
import type { MetricName } from './metrics';
import type { Track } from './track';
import { longWindow, midWindow, type WindowPlace } from './trend';

/** The largest and second largest of what was offered; NaN while nothing was. */
class TopTwo {
  first = NaN;
  second = NaN;

  reset(): void {
    this.first = NaN;
    this.second = NaN;
  }

  offer(value: number): void {
    if (value !== value) return;
    if (!(value <= this.first)) {
      this.second = this.first;
      this.first = value;
    } else if (!(value <= this.second)) this.second = value;
  }
}

/** Nothing is said by metrics that share a limit of 1 about when they reach it: a busy CPU is no exhausted one. */
export const hasOwnLimit = (tracked: TrackedMetric) => tracked.features.includes('log-steps-to-limit');

/** One for all cells: it is filled anew for each. */
export class CrossFeatures {
  private readonly trackOf = new Map<MetricName, number>();
  private readonly resourceShare = new TopTwo();
  private readonly resourceFloorMid = new TopTwo();
  private readonly resourceFloorLong = new TopTwo();
  private readonly resourceRelSlope = new TopTwo();
  private readonly saturation = new TopTwo();
  private readonly symptomZ = new TopTwo();
  private readonly symptomLogRatio = new TopTwo();
  private readonly symptomSlopeMid = new TopTwo();
  private readonly symptomSlopeLong = new TopTwo();
  private soonest = NaN;
  private soonestLong = NaN;
  private symptoms = 0;
  private deviating = 0;
  private missing = 0;
  private readonly most: number;
  private readonly limited: readonly boolean[];

  constructor(
    private readonly spec: FeatureSpec,
    private readonly stepMs: number,
  ) {
    this.most = spec.constants.maxStepsToLimit ?? Infinity;
    spec.tracked.forEach(({ metric }, i) => this.trackOf.set(metric, i));
    this.limited = spec.tracked.map(hasOwnLimit);
  }

  /** Goes through the cell's metrics once. `missing`: share of the known metrics' values that were missing of late. */
  gather(window: CellWindow, missing: number): void {
    this.missing = missing;
    this.soonest = this.soonestLong = NaN;
    this.symptoms = this.deviating = 0;
    for (const top of this.tops) top.reset();
    const { tracked, constants } = this.spec;
    const deviatingZ = constants.deviatingZ ?? 4;
    for (let i = 0; i < tracked.length; i++) {
      const track = window.tracks[i];
      if (!track) continue;
      const about = tracked[i] as TrackedMetric;
      if (about.role === 'resource') this.gatherResource(track, about, this.limited[i] as boolean);
      else if (about.role === 'symptom') this.gatherSymptom(track, about, deviatingZ);
    }
  }

  private readonly tops = [
    this.resourceShare,
    this.resourceFloorMid,
    this.resourceFloorLong,
    this.resourceRelSlope,
    this.saturation,
    this.symptomZ,
    this.symptomLogRatio,
    this.symptomSlopeMid,
    this.symptomSlopeLong,
  ];

  private gatherResource(track: Track, { zFloor }: TrackedMetric, limited: boolean): void {
    const { limit } = track;
    this.resourceRelSlope.offer(relSlope(track, longWindow, zFloor) * track.r2(longWindow));
    if (!limited) {
      this.saturation.offer(track.recent / limit);
      return;
    }
    this.resourceShare.offer(track.recent / limit);
    this.resourceFloorMid.offer(track.floorSlopeMid / limit);
    this.resourceFloorLong.offer(track.floorSlopeLong / limit);
    const steps = stepsToLimit(track, this.most);
    if (!(steps >= this.soonest)) this.soonest = steps === steps ? steps : this.soonest;
    const stepsLong = stepsToLimitLong(track, this.most);
    if (!(stepsLong >= this.soonestLong)) this.soonestLong = stepsLong === stepsLong ? stepsLong : this.soonestLong;
  }

  private gatherSymptom(track: Track, { zFloor }: TrackedMetric, deviatingZ: number): void {
    this.symptomZ.offer(track.z);
    this.symptomLogRatio.offer(track.logRatio);
    this.symptomSlopeMid.offer(relSlope(track, midWindow, zFloor) * track.r2(midWindow));
    this.symptomSlopeLong.offer(relSlope(track, longWindow, zFloor) * track.r2(longWindow));
    if (track.z !== track.z) return;
    this.symptoms += 1;
    if (track.z > deviatingZ) this.deviating += 1;
  }

  /** The latency objective in seconds: as declared, else a multiple of what is usual for the cell. */
  private sloS(window: CellWindow): number {
    if (window.sloLatencyS === window.sloLatencyS) return window.sloLatencyS;
    const p99 = this.track(window, 'http.latency_p99_s');
    return p99 ? p99.centre * (this.spec.constants.defaultSloPerBaseline ?? 5) : NaN;
  }

  private track(window: CellWindow, metric: MetricName): Track | undefined {
    return window.tracks[this.trackOf.get(metric) ?? -1];
  }

  private mean(window: CellWindow, metric: MetricName): number {
    return this.track(window, metric)?.recent ?? NaN;
  }

  private current(window: CellWindow, metric: MetricName): number {
    return window.current[metricIndex[metric]] as number;
  }

  private stepsTo(window: CellWindow, metric: MetricName, level: number, by: WindowPlace): number {
    const track = this.track(window, metric);
    return track ? stepsToLevel(track, by, level, this.most) : NaN;
  }

  /** How much more of the metric a request costs than it usually does, as a logarithm. */
  private perLoad(window: CellWindow, metric: MetricName, load: MetricName): number {
    const track = this.track(window, metric);
    const rate = this.track(window, load);
    return track && rate ? clamp(track.logRatio - rate.logRatio, -5, 5) : NaN;
  }

  value(feature: CrossFeature, window: CellWindow): number {
    const { info } = window;
    const errorLimit = this.spec.constants.errorLimit ?? 0.05;
    switch (feature) {
      case 'p99-per-slo':
        return clamp(this.current(window, 'http.latency_p99_s') / this.sloS(window), 0, 50);
      case 'p99-per-slo-mean':
        return clamp(this.mean(window, 'http.latency_p99_s') / this.sloS(window), 0, 50);
      case 'p50-per-slo':
        return clamp(this.mean(window, 'http.latency_p50_s') / this.sloS(window), 0, 50);
      case 'p99-slo-slope-mid': {
        const track = this.track(window, 'http.latency_p99_s');
        return track ? clamp(borneOut(track, midWindow) / this.sloS(window), -1, 1) : NaN;
      }
      case 'log-steps-to-slo':
        return Math.log1p(this.stepsTo(window, 'http.latency_p99_s', this.sloS(window), midWindow));
      case 'log-steps-to-slo-long':
        return Math.log1p(this.stepsTo(window, 'http.latency_p99_s', this.sloS(window), longWindow));
      case 'error-per-limit':
        return clamp(this.mean(window, 'http.error_ratio') / errorLimit, 0, 20);
      case 'log-steps-to-error-limit':
        return Math.log1p(this.stepsTo(window, 'http.error_ratio', errorLimit, midWindow));
      case 'breach-share':
        return this.breachShare(window, errorLimit);
      case 'log-steps-to-breach': {
        const slow = this.stepsTo(window, 'http.latency_p99_s', this.sloS(window), midWindow);
        const failing = this.stepsTo(window, 'http.error_ratio', errorLimit, midWindow);
        return Math.log1p(slow !== slow ? failing : failing < slow ? failing : slow);
      }
      case 'resource-share':
        return this.resourceShare.first;
      case 'resource-share-second':
        return this.resourceShare.second;
      case 'resource-log-steps':
        return Math.log1p(this.soonest);
      case 'resource-log-steps-long':
        return Math.log1p(this.soonestLong);
      case 'resource-floor-slope-mid':
        return this.resourceFloorMid.first;
      case 'resource-floor-slope-long':
        return this.resourceFloorLong.first;
      case 'resource-rel-slope-long':
        return this.resourceRelSlope.first;
      case 'resource-peer':
      case 'symptom-peer':
        // Written when all cells of the cohort are known: see cohort.ts.
        return NaN;
      case 'saturation':
        return this.saturation.first;
      case 'symptom-z':
        return this.symptomZ.first;
      case 'symptom-z-second':
        return this.symptomZ.second;
      case 'symptom-log-ratio':
        return this.symptomLogRatio.first;
      case 'symptom-log-ratio-second':
        return this.symptomLogRatio.second;
      case 'symptom-rel-slope-mid':
        return this.symptomSlopeMid.first;
      case 'symptom-rel-slope-long':
        return this.symptomSlopeLong.first;
      case 'symptoms-deviating':
        return this.symptoms === 0 ? NaN : this.deviating / this.symptoms;
      case 'latency-spread':
        return logQuotient(this.mean(window, 'http.latency_p99_s'), this.mean(window, 'http.latency_p50_s'));
      case 'latency-per-load':
        return this.perLoad(window, 'http.latency_p50_s', 'http.request_rate');
      case 'cpu-per-request':
        return this.perLoad(window, 'cpu.utilization', 'http.request_rate');
      case 'in-flight-per-load': {
        // Little's law: requests in flight that rate and latency do not account for.
        const rate = this.mean(window, 'http.request_rate');
        const inFlight = this.mean(window, 'http.in_flight');
        return Math.log1p(clamp(inFlight / Math.max(1, rate * this.mean(window, 'http.latency_p50_s')), 0, 1e6));
      }
      case 'dependency-latency-share':
        return clamp(this.mean(window, 'dependency.latency_p99_s') / this.mean(window, 'http.latency_p99_s'), 0, 10);
      case 'dependency-amplification':
        return this.perLoad(window, 'dependency.request_rate', 'http.request_rate');
      case 'error-times-retry':
        return this.mean(window, 'retry.ratio') * (0.01 + this.mean(window, 'dependency.error_ratio'));
      case 'disk-latency-per-rate':
        return this.perLoad(window, 'disk.write_latency_s', 'disk.write_rate');
      case 'log-change-age':
        return Math.log1p(this.inSteps(this.current(window, 'change.age_s')));
      case 'log-certificate-left':
        return Math.log1p(Math.max(0, this.inSteps(this.current(window, 'certificate.left_s'))));
      case 'fresh-instances':
        return info.knownInstances === 0 ? NaN : info.freshInstances / info.knownInstances;
      case 'missing':
        return this.missing;
      case 'sample-age':
        return clamp(info.newestSampleAgeMs / this.stepMs, 0, 60);
      case 'log-uptime':
        return Math.log1p(this.inSteps(this.current(window, 'process.uptime_s')));
      case 'log-history':
        return Math.log1p(info.historySteps);
    }
  }

  private breachShare(window: CellWindow, errorLimit: number): number {
    const slow = clamp(this.mean(window, 'http.latency_p99_s') / this.sloS(window), 0, 50);
    const failing = clamp(this.mean(window, 'http.error_ratio') / errorLimit, 0, 20);
    return slow !== slow ? failing : failing > slow ? failing : slow;
  }

  private inSteps(seconds: number): number {
    return (seconds * 1000) / this.stepMs;
  }
}

function logQuotient(a: number, b: number): number {
  return a > 0 && b > 0 ? clamp(Math.log(a / b), -10, 10) : NaN;
}
