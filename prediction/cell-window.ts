/** What the extractor remembers of one cell: its instances' newest samples and, per metric, recent steps and baseline. */
import { Baseline } from './baseline';
import { metricNames, metrics, type MetricName } from './metrics';
import { Ring } from './ring';
import { computeTrend, emptyTrend } from './trend';

/** More instances than this in one cell are ignored: telemetry is not trusted to be small. */
export const maxInstancesPerCell = 64;

export const metricIndex: Readonly<Record<MetricName, number>> = Object.fromEntries(
  metricNames.map((name, i) => [name, i]),
) as Record<MetricName, number>;

const aggregates = metricNames.map((name) => metrics[name].aggregate);

class InstanceSamples {
  readonly values = new Float64Array(metricNames.length);
  readonly times = new Float64Array(metricNames.length).fill(-Infinity);
  newestMs = -Infinity;
}

/** One metric of one cell over time. */
export class Track {
  readonly ring = new Ring();
  readonly baseline = new Baseline();
  readonly trend = emptyTrend();
  /** The newest step's value; NaN if missing. */
  last = NaN;
  /** Distance of `last` from the baseline in robust standard deviations; NaN without a baseline. */
  z = NaN;
  /** The value at which the metric is exhausted; NaN if unknown. */
  limit = NaN;
  private lastSeenStep = -Infinity;

  step(value: number, step: number, closesBlock: boolean, frozen: boolean): void {
    this.last = value;
    if (value === value) this.lastSeenStep = step;
    this.ring.push(value);
    // z is taken before the value can move the baseline (which lags anyway).
    this.baseline.observe(value, closesBlock, frozen);
  }

  /** Whether the cell sends this metric at all, as far as the window reaches. */
  isKnown(step: number, windowSteps: number): boolean {
    return step - this.lastSeenStep <= windowSteps;
  }

  computeTrend(): void {
    computeTrend(this.ring, this.trend);
  }
}

export class CellWindow {
  readonly tracks: readonly Track[];
  /** The cell's value per metric at the newest step; NaN if missing. */
  readonly current = new Float64Array(metricNames.length).fill(NaN);
  sloLatencyS = NaN;
  frozen = false;
  firstStep = -Infinity;
  lastStep = -Infinity;
  newestMs = -Infinity;
  freshInstances = 0;
  private readonly instances = new Map<string, InstanceSamples>();
  /** Spreads the closing of baseline blocks over steps, so that not all cells do it at once. */
  readonly blockOffset: number;

  constructor(cell: string, trackCount: number, blockSteps: number) {
    this.tracks = Array.from({ length: trackCount }, () => new Track());
    let hash = 0;
    for (let i = 0; i < cell.length; i++) hash = (Math.imul(hash, 31) + cell.charCodeAt(i)) >>> 0;
    this.blockOffset = hash % blockSteps;
  }

  get instanceCount(): number {
    return this.instances.size;
  }

  /** False if the sample was not taken: older than what is known, or one instance too many. */
  observe(instance: string, metric: MetricName, atMs: number, value: number): boolean {
    let samples = this.instances.get(instance);
    if (!samples) {
      if (this.instances.size >= maxInstancesPerCell) return false;
      samples = new InstanceSamples();
      this.instances.set(instance, samples);
    }
    const index = metricIndex[metric];
    const known = samples.times[index] as number;
    // Equal times happen by redelivery; should the values differ, the larger wins whatever the order.
    if (atMs < known || (atMs === known && value <= (samples.values[index] as number))) return false;
    samples.times[index] = atMs;
    samples.values[index] = value;
    if (atMs > samples.newestMs) samples.newestMs = atMs;
    if (atMs > this.newestMs) this.newestMs = atMs;
    return true;
  }

  /** Brings `current` to `atMs`: values not older than `holdMs`, put together by each metric's rule. */
  aggregate(atMs: number, holdMs: number, forgetMs: number): void {
    this.current.fill(NaN);
    this.freshInstances = 0;
    for (const [name, samples] of this.instances) {
      if (samples.newestMs <= atMs - forgetMs) {
        this.instances.delete(name);
        continue;
      }
      if (samples.newestMs > atMs - holdMs) this.freshInstances += 1;
    }
    for (let m = 0; m < metricNames.length; m++) {
      const aggregate = aggregates[m];
      let n = 0;
      let result = NaN;
      for (const samples of this.instances.values()) {
        if ((samples.times[m] as number) <= atMs - holdMs) continue;
        const value = samples.values[m] as number;
        if (n === 0) result = value;
        else if (aggregate === 'max') result = Math.max(result, value);
        else if (aggregate === 'min') result = Math.min(result, value);
        else result += value;
        n += 1;
      }
      this.current[m] = aggregate === 'mean' && n > 0 ? result / n : result;
    }
  }
}
