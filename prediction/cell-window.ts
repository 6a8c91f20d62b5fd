/** What the extractor remembers of one cell: its instances' newest samples and, per metric it sends, trend and baseline. */
import { metricNames, metrics, type MetricName } from './metrics';
import { Track, trackSize } from './track';
import { blockSteps } from './trend';
import type { WordReader, WordWriter } from './words';

/** More instances than this in one cell are ignored: telemetry is not trusted to be small. */
export const maxInstancesPerCell = 64;

/** Larger values are taken as this: their squares still have to be numbers. */
const largestValue = 1e15;

export const metricIndex: Readonly<Record<MetricName, number>> = Object.fromEntries(
  metricNames.map((name, i) => [name, i]),
) as Record<MetricName, number>;

const aggregates = metricNames.map((name) => metrics[name].aggregate);

/** The newest value per metric and its time, side by side. */
class InstanceSamples {
  private static readonly unseen = new Float64Array(2 * metricNames.length).fill(-Infinity);
  readonly valuesAndTimes = InstanceSamples.unseen.slice();
  newestMs = -Infinity;
}

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

export class CellWindow {
  /** By the specification's order of metrics; made when the metric is first sent. */
  readonly tracks: (Track | undefined)[];
  /** The numbers of all tracks. */
  private numbers = new Float64Array(0);
  private tracksMade = 0;
  /** The cell's value per metric at the newest step; NaN if missing. */
  readonly current = new Float64Array(metricNames.length).fill(NaN);
  readonly info: TickInfo = {
    coverage: 0,
    newestSampleAgeMs: Infinity,
    freshInstances: 0,
    knownInstances: 0,
    historySteps: 0,
  };
  /** As declared; NaN if nothing is. */
  sloLatencyS = NaN;
  /** Cells of one service are compared with each other; undefined: with none. */
  cohort: string | undefined;
  frozen = false;
  firstStep = -Infinity;
  lastStep = -Infinity;
  newestMs = -Infinity;
  freshInstances = 0;
  private readonly instances = new Map<string, InstanceSamples>();
  /** Spreads the closing of blocks over steps, so that not all cells do it at once. */
  readonly blockOffset: number;

  constructor(cell: string, trackCount: number) {
    this.tracks = new Array<Track | undefined>(trackCount).fill(undefined);
    let hash = 0;
    for (let i = 0; i < cell.length; i++) hash = (Math.imul(hash, 31) + cell.charCodeAt(i)) >>> 0;
    this.blockOffset = hash % blockSteps;
  }

  get instanceCount(): number {
    return this.instances.size;
  }

  /** Makes room for tracks that are about to be added: once for all metrics that a cell begins with. */
  private reserve(count: number): void {
    const needed = (this.tracksMade + count) * trackSize;
    if (this.numbers.length >= needed) return;
    const larger = new Float64Array(needed);
    larger.set(this.numbers);
    this.numbers = larger;
    for (const track of this.tracks) if (track) track.d = larger;
  }

  /** Adds tracks for the metrics, by their place in the specification, that have a value now and had none before. */
  addTracks(tracked: readonly number[]): void {
    const isNew = (metric: number, i: number) => {
      const value = this.current[metric] as number;
      return this.tracks[i] === undefined && value === value;
    };
    let fresh = 0;
    for (let i = 0; i < tracked.length; i++) if (isNew(tracked[i] as number, i)) fresh += 1;
    if (fresh === 0) return;
    this.reserve(fresh);
    for (let i = 0; i < tracked.length; i++) {
      if (!isNew(tracked[i] as number, i)) continue;
      this.tracks[i] = new Track(this.numbers, this.tracksMade * trackSize);
      this.tracksMade += 1;
    }
  }

  /** What the configuration says: the latency objective, and the service whose cells it is compared with. */
  describe(sloLatencyMs: number | undefined, cohort: string | undefined): void {
    this.sloLatencyS = sloLatencyMs === undefined ? NaN : sloLatencyMs / 1000;
    this.cohort = cohort;
  }

  /** The cell's value of a metric at its last tick; NaN if there is none. */
  latest(metric: MetricName): number {
    return this.current[metricIndex[metric]] as number;
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
    const { valuesAndTimes } = samples;
    const known = valuesAndTimes[2 * index + 1] as number;
    const bounded = value > largestValue ? largestValue : value < -largestValue ? -largestValue : value;
    // Equal times happen by redelivery; should the values differ, the larger wins whatever the order.
    if (atMs < known || (atMs === known && bounded <= (valuesAndTimes[2 * index] as number))) return false;
    valuesAndTimes[2 * index] = bounded;
    valuesAndTimes[2 * index + 1] = atMs;
    if (atMs > samples.newestMs) samples.newestMs = atMs;
    if (atMs > this.newestMs) this.newestMs = atMs;
    return true;
  }

  /** Everything that is carried from one tick to the next. */
  save(out: WordWriter): void {
    for (const number of [this.firstStep, this.lastStep, this.newestMs, Number(this.frozen)]) out.number(number);
    out.number(this.instances.size);
    // In this order, in which sums over instances are made.
    for (const [name, { newestMs, valuesAndTimes }] of this.instances) {
      out.text(name);
      out.number(newestMs);
      const seen = metricNames.map((_, m) => m).filter((m) => valuesAndTimes[2 * m + 1] !== -Infinity);
      out.number(seen.length);
      for (const m of seen) {
        out.number(m);
        out.numbers(valuesAndTimes, 2 * m, 2 * m + 2);
      }
    }
    out.number(this.tracksMade);
    this.tracks.forEach((track, i) => {
      if (!track) return;
      out.number(i);
      track.save(out);
    });
  }

  /** Brings a new window to where the one that was saved stood. Throws RangeError for what no window can be. */
  restore(from: WordReader): void {
    this.firstStep = from.number();
    this.lastStep = from.number();
    this.newestMs = from.number();
    this.frozen = from.number() === 1;
    for (let left = from.count(maxInstancesPerCell); left > 0; left--) {
      const samples = new InstanceSamples();
      this.instances.set(from.text(), samples);
      samples.newestMs = from.number();
      for (let metrics = from.count(metricNames.length); metrics > 0; metrics--) {
        const m = from.count(metricNames.length - 1);
        from.numbers(samples.valuesAndTimes, 2 * m, 2 * m + 2);
      }
    }
    const tracks = from.count(this.tracks.length);
    this.reserve(tracks);
    for (let left = tracks; left > 0; left--) {
      const track = new Track(this.numbers, this.tracksMade * trackSize);
      this.tracksMade += 1;
      this.tracks[from.count(this.tracks.length - 1)] = track;
      track.restore(from);
    }
  }

  /** Whether every instance that is known to send the metric has a value not older than `holdMs`. */
  isWhole(metric: number, atMs: number, holdMs: number): boolean {
    for (const { valuesAndTimes } of this.instances.values()) {
      const sentMs = valuesAndTimes[2 * metric + 1] as number;
      if (sentMs !== -Infinity && sentMs <= atMs - holdMs) return false;
    }
    return true;
  }

  /** Brings `current` to `atMs`: values not older than `holdMs`, put together by each metric's rule. */
  aggregate(atMs: number, holdMs: number, forgetMs: number): void {
    const { current } = this;
    current.fill(NaN);
    this.freshInstances = 0;
    for (const [name, samples] of this.instances) {
      if (samples.newestMs <= atMs - forgetMs) {
        this.instances.delete(name);
        continue;
      }
      if (samples.newestMs <= atMs - holdMs) continue;
      this.freshInstances += 1;
      const { valuesAndTimes } = samples;
      for (let m = 0; m < current.length; m++) {
        if ((valuesAndTimes[2 * m + 1] as number) <= atMs - holdMs) continue;
        const value = valuesAndTimes[2 * m] as number;
        const before = current[m] as number;
        if (before !== before) current[m] = value;
        else {
          const aggregate = aggregates[m];
          if (aggregate === 'max') current[m] = value > before ? value : before;
          else if (aggregate === 'min') current[m] = value < before ? value : before;
          else current[m] = before + value;
        }
      }
    }
  }
}
