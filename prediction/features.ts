/** The streaming feature extractor, the only place where a feature is computed, for training and for serving. */
import { CellWindow, metricIndex, type TickInfo } from './cell-window';
import { Cohorts } from './cohort';
import type { Sample } from './contracts';
import { CrossFeatures, hasOwnLimit } from './cross-features';
import { featuresOf, historySteps, type FeatureSpec, type TrackedMetric } from './feature-spec';
import { bounded, metricFeature, placeAgainstBaseline, stepsToLimit } from './metric-features';
import { metrics, type MetricName } from './metrics';
import { blockSteps, midWindow } from './trend';

export type { TickInfo } from './cell-window';
export { featureNames, featureSpec, featureSpecHash, historySteps } from './feature-spec';

/** The figures behind a sentence about one metric of one cell. NaN where unknown. */
export interface MetricFigures {
  value: number;
  /** Mean of the last 6 to 10 steps: what a metric that jumps about is at. NaN while there are too few. */
  recent: number;
  limit: number;
  /** Per step, over the last 26 to 30 steps. */
  slope: number;
  /** Steps until the limit at the present slope; Infinity if it does not rise. */
  stepsToLimit: number;
  baseline: number;
  z: number;
}

/** What the configuration says about a cell. Without an objective a multiple of the usual p99 stands for it. */
export interface CellFacts {
  sloLatencyMs?: number | undefined;
  /** Cells of one cohort (a service) are compared with each other. */
  cohort?: string | undefined;
}

export class FeatureExtractor {
  readonly featureCount: number;
  private readonly cells = new Map<string, CellWindow>();
  private readonly trackOf = new Map<MetricName, number>();
  /** Per tracked metric: its index, and its limit as a constant or else as the index of another metric (-1: none). */
  private readonly indexOf: readonly number[];
  private readonly constantLimits: readonly number[];
  private readonly limitIndex: readonly number[];
  /** Per tracked metric: whether it fills up to a limit of its own. */
  private readonly fills: readonly boolean[];
  private readonly cross: CrossFeatures;
  private readonly cohorts: Cohorts;
  private readonly most: number;

  constructor(
    readonly spec: FeatureSpec,
    readonly stepMs: number = 1000,
  ) {
    const features = featuresOf(spec);
    this.featureCount = features.length;
    spec.tracked.forEach(({ metric }, i) => this.trackOf.set(metric, i));
    this.indexOf = spec.tracked.map(({ metric }) => metricIndex[metric]);
    const limits = spec.tracked.map(({ metric }) => metrics[metric].limit);
    this.constantLimits = limits.map((limit) => (typeof limit === 'number' ? limit : NaN));
    this.limitIndex = limits.map((limit) => (typeof limit === 'string' ? metricIndex[limit] : -1));
    this.fills = spec.tracked.map(hasOwnLimit);
    this.cross = new CrossFeatures(spec, stepMs);
    this.cohorts = new Cohorts(
      spec,
      features.map(({ name }) => name),
    );
    this.most = spec.constants.maxStepsToLimit ?? Infinity;
  }

  get cellCount(): number {
    return this.cells.size;
  }

  /** What is remembered of a cell: for callers with many cells, who look each up once and keep it until `forget`. */
  window(cell: string): CellWindow {
    let window = this.cells.get(cell);
    if (!window) {
      window = new CellWindow(cell, this.spec.tracked.length);
      this.cells.set(cell, window);
    }
    return window;
  }

  /** Takes a sample that belongs to the next tick or an earlier one. Returns whether it was new. */
  observe(sample: Sample): boolean {
    return this.window(sample.cell).observe(sample.instance, sample.metric, sample.atMs, sample.value);
  }

  describe(cell: string, { sloLatencyMs, cohort }: CellFacts): void {
    this.window(cell).describe(sloLatencyMs, cohort);
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
   * Closes the step that ends at `atMs` (a multiple of the step) for the cells and writes their features to `out`, one
   * row after the other. All cells of a cohort have to be in one call. Steps left out since a cell's last tick count as
   * missing.
   */
  tick(cells: readonly string[], atMs: number, out: Float32Array): void {
    this.tickWindows(
      cells.map((cell) => this.window(cell)),
      atMs,
      out,
    );
  }

  /** The same for cells that have been looked up. */
  tickWindows(windows: readonly CellWindow[], atMs: number, out: Float32Array): void {
    const { cohorts, featureCount } = this;
    cohorts.begin(windows.length);
    const step = Math.round(atMs / this.stepMs);
    for (let i = 0; i < windows.length; i++) {
      const window = windows[i] as CellWindow;
      this.close(window, atMs, step);
      this.write(window, atMs, step, out, i * featureCount);
      if (window.cohort !== undefined) cohorts.add(window.cohort, window.tracks, i * featureCount);
    }
    cohorts.compare(out);
  }

  /** How far the cell's last features can be believed. Used again at the next tick. */
  info(cell: string): TickInfo {
    return this.window(cell).info;
  }

  /** The figures of the last tick. Undefined for an unknown cell or a metric it never sent. */
  figures(cell: string, metric: MetricName): MetricFigures | undefined {
    const track = this.cells.get(cell)?.tracks[this.trackOf.get(metric) ?? -1];
    if (!track) return undefined;
    return {
      value: track.last,
      recent: track.recent,
      limit: track.limit,
      slope: track.slope(midWindow),
      stepsToLimit: stepsToLimit(track, this.most),
      baseline: track.centre,
      z: track.z,
    };
  }

  /** Brings a cell's tracks to the step: the part of a tick that looks at no other cell. */
  private close(window: CellWindow, atMs: number, step: number): void {
    const { constants, tracked } = this.spec;
    if (window.firstStep === -Infinity) window.firstStep = step;
    const skipped = window.lastStep === -Infinity ? 0 : Math.min(step - window.lastStep - 1, historySteps);
    for (let s = step - skipped; s < step; s++) {
      const place = placeInBlock(s, window);
      for (const track of window.tracks) track?.step(NaN, s, place, window.frozen);
    }
    const { stepMs } = this;
    const holdMs = (constants.holdSteps ?? 3) * stepMs;
    window.aggregate(atMs, holdMs, (constants.forgetInstanceSteps ?? 60) * stepMs);
    const place = placeInBlock(step, window);
    const { indexOf, limitIndex, constantLimits, fills } = this;
    window.addTracks(indexOf);
    for (let i = 0; i < tracked.length; i++) {
      const track = window.tracks[i];
      if (!track) continue;
      const metric = indexOf[i] as number;
      track.step(window.current[metric] as number, step, place, window.frozen);
      // The fullest instance may only be silent.
      if (fills[i] && track.findsLetGo(step, window.frozen) && window.isWhole(metric, atMs, holdMs))
        track.beginTrendAnew(place);
      const limit = limitIndex[i] as number;
      track.limit = limit < 0 ? (constantLimits[i] as number) : (window.current[limit] as number);
      placeAgainstBaseline(track, tracked[i] as TrackedMetric, this.spec);
    }
    window.lastStep = step;
  }

  private write(window: CellWindow, atMs: number, step: number, out: Float32Array, offset: number): void {
    const { tracked, cross } = this.spec;
    let at = offset;
    // Most metrics are sent by nobody: cheaper all at once than metric by metric.
    out.fill(NaN, offset, offset + this.featureCount);
    let known = 0;
    let present = 0;
    let recent = 0;
    for (let i = 0; i < tracked.length; i++) {
      const { features, zFloor } = tracked[i] as TrackedMetric;
      const track = window.tracks[i];
      if (!track) {
        at += features.length;
        continue;
      }
      if (track.isKnown(step, historySteps)) {
        known += 1;
        recent += track.present;
        if (track.last === track.last) present += 1;
      }
      for (let f = 0; f < features.length; f++) {
        out[at++] = bounded(metricFeature(features[f] as (typeof features)[number], track, zFloor, this.most));
      }
    }
    const { info } = window;
    info.coverage = known === 0 ? 0 : present / known;
    info.newestSampleAgeMs = atMs - window.newestMs;
    info.freshInstances = window.freshInstances;
    info.knownInstances = window.instanceCount;
    info.historySteps = Math.min(step - window.firstStep, historySteps);
    this.cross.gather(window, known === 0 ? NaN : 1 - recent / known);
    for (const { feature } of cross) out[at++] = bounded(this.cross.value(feature, window));
  }
}

const placeInBlock = (step: number, window: CellWindow) => ((step + window.blockOffset) % blockSteps) + 1;
