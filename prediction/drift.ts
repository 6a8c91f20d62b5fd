/**
 * Watches at run time whether the model still sees what it was trained on: the spread of each feature (PSI) and of the
 * scores, and whether as many failures happen as it expects. Counts only, on one row in many.
 */
import { z } from 'zod';

/** How a feature was spread over the training rows: as the manifest tells it. */
export const driftReferenceSchema = z.object({
  feature: z.string(),
  /** Ascending; n edges make n + 1 bins, the value of an edge belongs to the bin above it. */
  edges: z.array(z.number()),
  shares: z.array(z.number().min(0)),
  /** Share of rows that had no value. */
  missing: z.number().min(0).max(1),
});

export type DriftReference = z.infer<typeof driftReferenceSchema>;

export interface DriftReport {
  /** Event time at which the window ended. */
  atMs: number;
  rows: number;
  /** Features beyond the level at which a shift is worth a warning, and of how many. */
  shifted: number;
  features: number;
  worst: { feature: string; psi: number }[];
  /** PSI of the probabilities against the first window since the start; null in that window. */
  scoreShift: number | null;
  failures: FailureBalance;
}

export interface FailureBalance {
  observed: number;
  expected: number;
  /** Probability of a number as far or farther off, were the model right (Poisson, two-sided). */
  chance: number;
}

/** A PSI above this is commonly taken for a shift worth looking at. */
export const psiWarning = 0.2;
/** A bin that one side lacks altogether must not make the index infinite. */
const smallestShare = 1e-4;
const worstTold = 5;
/** Bins of probabilities, in log-odds: the interesting ones lie near 0 and would share one bin of equal width. */
const scoreEdges = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.6, 0.9];

/** Population stability index of counts against shares: sum of (a - e) ln(a / e). */
export function psi(counts: Readonly<Float64Array>, shares: readonly number[]): number {
  let total = 0;
  for (const count of counts) total += count;
  if (total === 0) return 0;
  let index = 0;
  for (let i = 0; i < shares.length; i++) {
    const actual = Math.max(smallestShare, (counts[i] ?? 0) / total);
    const expected = Math.max(smallestShare, shares[i] as number);
    index += (actual - expected) * Math.log(actual / expected);
  }
  return index;
}

/** Probability under a Poisson law of a count as far from `expected` as `observed` or farther, on either side. */
export function poissonChance(observed: number, expected: number): number {
  if (expected <= 0) return observed === 0 ? 1 : 0;
  // P(count <= k) by its terms in logarithms; the counts of a window are small.
  const atMost = (k: number) => {
    let logTerm = -expected;
    let sum = Math.exp(logTerm);
    for (let i = 1; i <= k; i++) {
      logTerm += Math.log(expected / i);
      sum += Math.exp(logTerm);
    }
    return Math.min(1, sum);
  };
  const tail = observed > expected ? 1 - atMost(observed - 1) : atMost(observed);
  return Math.min(1, 2 * Math.max(0, tail));
}

/** Number of edges not above the value. */
function binOf(edges: readonly number[], value: number): number {
  let low = 0;
  let high = edges.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (value >= (edges[middle] as number)) low = middle + 1;
    else high = middle;
  }
  return low;
}

interface WatchedFeature {
  feature: string;
  column: number;
  edges: readonly number[];
  /** Of the bins, then of rows without a value. */
  shares: readonly number[];
  counts: Float64Array;
}

export interface DriftOptions {
  references: readonly DriftReference[];
  featureNames: readonly string[];
  /** Rows looked at before the counts are judged and begun anew. @default 5,000 */
  windowRows?: number;
  /** One row in so many is looked at. @default 16 */
  every?: number;
}

export class DriftWatch {
  private readonly watched: readonly WatchedFeature[];
  private readonly windowRows: number;
  private readonly every: number;
  private readonly scores = new Float64Array(scoreEdges.length + 1);
  private firstScores: readonly number[] | undefined;
  private seen = 0;
  private rows = 0;
  private observed = 0;
  private expected = 0;
  /** Of the last full window; undefined before there is one. */
  last: DriftReport | undefined;

  constructor({ references, featureNames, windowRows = 5_000, every = 16 }: DriftOptions) {
    this.windowRows = windowRows;
    this.every = every;
    this.watched = references.flatMap(({ feature, edges, shares, missing }) => {
      const column = featureNames.indexOf(feature);
      if (column < 0) return [];
      const all = [...shares.map((share) => share * (1 - missing)), missing];
      return [{ feature, column, edges, shares: all, counts: new Float64Array(edges.length + 2) }];
    });
  }

  /**
   * One scored row. `probability`: of failure within the longest horizon; `expectedFailures`: how many failures the model
   * expects to begin in this step, a small fraction.
   */
  row(features: Float32Array, offset: number, probability: number, expectedFailures: number): void {
    this.expected += expectedFailures;
    if (this.seen++ % this.every !== 0) return;
    this.rows += 1;
    this.scores[binOf(scoreEdges, probability)]! += 1;
    for (const { column, edges, counts } of this.watched) {
      const value = features[offset + column] as number;
      counts[value === value ? binOf(edges, value) : counts.length - 1]! += 1;
    }
  }

  /** A cell has begun to fail: its users feel it for the third tick running. */
  failed(): void {
    this.observed += 1;
  }

  /** The report of a window that has become full, once; else undefined. */
  report(atMs: number): DriftReport | undefined {
    if (this.rows < this.windowRows) return undefined;
    const indices = this.watched
      .map(({ feature, shares, counts }) => ({ feature, psi: psi(counts, shares) }))
      .sort((a, b) => b.psi - a.psi);
    const { observed, expected } = this;
    this.last = {
      atMs,
      rows: this.rows,
      shifted: indices.filter((index) => index.psi > psiWarning).length,
      features: indices.length,
      worst: indices.slice(0, worstTold).map((index) => ({ ...index, psi: Number(index.psi.toFixed(3)) })),
      scoreShift: this.firstScores ? Number(psi(this.scores, this.firstScores).toFixed(3)) : null,
      failures: { observed, expected: Number(expected.toFixed(3)), chance: poissonChance(observed, expected) },
    };
    this.firstScores ??= [...this.scores].map((count) => count / this.rows);
    for (const { counts } of this.watched) counts.fill(0);
    this.scores.fill(0);
    this.rows = this.observed = this.expected = 0;
    return this.last;
  }
}
