/** Compares the cells of one service with each other: each metric of a cell with the median of the other cells'. */
import type { FeatureSpec } from './feature-spec';
import type { Track } from './track';

/** The median of ascending values without the one at `skip`. */
function medianWithout(sorted: Float64Array, count: number, skip: number): number {
  const n = count - 1;
  const at = (i: number) => sorted[i < skip ? i : i + 1] as number;
  const half = n >> 1;
  return n % 2 === 1 ? at(half) : (at(half - 1) + at(half)) / 2;
}

/** Where the first of the values that are not below `value` stands. */
function rankOf(sorted: Float64Array, value: number): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((sorted[middle] as number) < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Columns of a row that a metric's distance from its peers goes to; -1: none. */
interface PeerColumns {
  own: number;
  /** The worst of the cell's resources or symptoms. */
  worst: number;
}

/**
 * One for all cells. At each tick the cells are added with the place of their row; the columns about peers are the only
 * ones that have to wait for all cells, so they alone are written at the end.
 */
export class Cohorts {
  private readonly members = new Map<string, number[]>();
  private readonly columns: readonly PeerColumns[];
  private readonly metrics: number;
  /** Fewer other cells than this are no standard to be measured by. */
  private readonly minPeers: number;
  /** Per member and metric: where it is at (NaN: not known) and its scale. */
  private means = new Float64Array(0);
  private scales = new Float64Array(0);
  private rows: number[] = [];
  private scratch = new Float64Array(16);

  constructor(spec: FeatureSpec, featureNames: readonly string[]) {
    this.metrics = spec.tracked.length;
    this.minPeers = spec.constants.minPeers ?? 2;
    this.columns = spec.tracked.map(({ metric, role }) => ({
      own: featureNames.indexOf(`${metric}:peer`),
      worst: featureNames.indexOf(`cell:${role}-peer`),
    }));
  }

  /** Before a tick of at most so many cells. */
  begin(cells: number): void {
    for (const [cohort, members] of this.members) {
      if (members.length === 0) this.members.delete(cohort);
      else members.length = 0;
    }
    this.rows.length = 0;
    if (this.means.length >= cells * this.metrics) return;
    this.means = new Float64Array(cells * this.metrics);
    this.scales = new Float64Array(cells * this.metrics);
  }

  /** A cell whose trends and scales are those of this tick. `row`: where its features begin. */
  add(cohort: string, tracks: readonly (Track | undefined)[], row: number): void {
    const member = this.rows.push(row) - 1;
    const known = this.members.get(cohort);
    if (known) known.push(member);
    else this.members.set(cohort, [member]);
    const { means, scales, metrics } = this;
    for (let m = 0, at = member * metrics; m < metrics; m++, at++) {
      const track = tracks[m];
      means[at] = track ? track.recent : NaN;
      scales[at] = track ? track.scale : NaN;
    }
  }

  /** Writes every metric's distance from its peers, and the worst of them per cell, into the cells' rows. */
  compare(out: Float32Array): void {
    for (const members of this.members.values()) {
      if (members.length <= this.minPeers) continue;
      for (let m = 0; m < this.metrics; m++) this.compareMetric(members, m, out);
    }
  }

  private compareMetric(members: readonly number[], metric: number, out: Float32Array): void {
    if (this.scratch.length < members.length) this.scratch = new Float64Array(2 * members.length);
    const { scratch, means, scales, metrics, rows } = this;
    const { own, worst } = this.columns[metric] as PeerColumns;
    let count = 0;
    for (const member of members) {
      const mean = means[member * metrics + metric] as number;
      if (mean === mean) scratch[count++] = mean;
    }
    if (count <= this.minPeers) return;
    const sorted = scratch.subarray(0, count).sort();
    for (const member of members) {
      const mean = means[member * metrics + metric] as number;
      if (mean !== mean) continue;
      const distance = mean - medianWithout(sorted, count, rankOf(sorted, mean));
      const inScales = distance / (scales[member * metrics + metric] as number);
      const peer = inScales > 50 ? 50 : inScales < -50 ? -50 : inScales;
      const row = rows[member] as number;
      if (own >= 0) out[row + own] = peer;
      if (worst >= 0 && peer === peer && !(peer <= (out[row + worst] as number))) out[row + worst] = peer;
    }
  }
}
