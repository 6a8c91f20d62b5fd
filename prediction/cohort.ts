/** Compares the cells of one service with each other: each metric of a cell with the median of the other cells'. */
import type { CellWindow, Track } from './cell-window';

/** The median of ascending values without the one at `skip`. */
function medianWithout(sorted: Float64Array, count: number, skip: number): number {
  const n = count - 1;
  const at = (i: number) => sorted[i < skip ? i : i + 1] as number;
  const half = n >> 1;
  return n % 2 === 1 ? at(half) : (at(half - 1) + at(half)) / 2;
}

export class Cohorts {
  private readonly members = new Map<string, CellWindow[]>();
  private scratch = new Float64Array(16);

  constructor(
    private readonly metrics: number,
    /** Fewer other cells than this are no standard to be measured by. */
    private readonly minPeers: number,
  ) {}

  clear(): void {
    this.members.clear();
  }

  add(window: CellWindow): void {
    if (window.cohort === undefined) return;
    const known = this.members.get(window.cohort);
    if (known) known.push(window);
    else this.members.set(window.cohort, [window]);
  }

  /** Writes every track's distance from its peers. Needs every member's trends and scales of this tick. */
  compare(): void {
    for (const windows of this.members.values()) {
      if (windows.length <= this.minPeers) continue;
      for (let m = 0; m < this.metrics; m++) this.compareMetric(windows, m);
    }
  }

  private compareMetric(windows: readonly CellWindow[], metric: number): void {
    if (this.scratch.length < windows.length) this.scratch = new Float64Array(2 * windows.length);
    const { scratch } = this;
    let count = 0;
    for (const window of windows) {
      const mean = window.tracks[metric]?.trend.short.mean ?? NaN;
      if (mean === mean) scratch[count++] = mean;
    }
    if (count <= this.minPeers) return;
    const sorted = scratch.subarray(0, count).sort();
    for (const window of windows) {
      const track: Track | undefined = window.tracks[metric];
      if (!track || track.trend.short.mean !== track.trend.short.mean) continue;
      const { mean } = track.trend.short;
      let rank = 0;
      while (sorted[rank] !== mean) rank += 1;
      const distance = (mean - medianWithout(sorted, count, rank)) / track.scale;
      track.peer = distance > 50 ? 50 : distance < -50 ? -50 : distance;
    }
  }
}
