/** The figures of probabilities against what happened, row by row. Pure; each has a definition in the literature. */

/** Scored rows: probability of failure within the horizon, and whether it failed within it (1) or not (0). */
export interface LabelledRows {
  probability: Float64Array;
  failed: Uint8Array;
  /** How many rows each stands for: those whose answer is not known are spoken for by others. */
  weight: Float64Array;
}

/** Rows from pairs, or triples with the row's weight. */
export function labelledRows(pairs: Iterable<readonly [number, boolean, number?]>): LabelledRows {
  const probability: number[] = [];
  const failed: number[] = [];
  const weights: number[] = [];
  for (const [p, f, weight = 1] of pairs) {
    probability.push(p);
    failed.push(f ? 1 : 0);
    weights.push(weight);
  }
  return {
    probability: Float64Array.from(probability),
    failed: Uint8Array.from(failed),
    weight: Float64Array.from(weights),
  };
}

const total = (values: Float64Array): number => values.reduce((sum, v) => sum + v, 0);

const failing = ({ failed, weight }: LabelledRows): number =>
  weight.reduce((sum, w, i) => sum + w * (failed[i] as number), 0);

export interface CurvePoint {
  threshold: number;
  recall: number;
  precision: number;
}

export interface PrecisionRecall {
  /** Average precision: the step-wise area, without the optimism of interpolation. NaN without a positive row. */
  area: number;
  /** Share of positive rows: what a score at chance gets. */
  baseRate: number;
  /** Descending threshold, at most some 200 points. */
  curve: CurvePoint[];
}

export function precisionRecall(rows: LabelledRows): PrecisionRecall {
  const { probability, failed, weight } = rows;
  const order = byProbability(probability).reverse();
  const positives = failing(rows);
  const curve: CurvePoint[] = [];
  let area = 0;
  let hits = 0;
  let seen = 0;
  let recallBefore = 0;
  for (let i = 0; i < order.length; i++) {
    const at = order[i] as number;
    hits += (failed[at] as number) * (weight[at] as number);
    seen += weight[at] as number;
    const threshold = probability[at] as number;
    // Rows of one score are taken together: no order among them is better than another.
    if (i + 1 < order.length && probability[order[i + 1] as number] === threshold) continue;
    const recall = hits / positives;
    const precision = hits / seen;
    area += (recall - recallBefore) * precision;
    recallBefore = recall;
    curve.push({ threshold, recall, precision });
  }
  return {
    area: positives === 0 ? NaN : area,
    baseRate: positives / total(weight),
    curve: positives === 0 ? [] : thinned(curve, 200),
  };
}

function byProbability(probability: Float64Array): Uint32Array {
  return Uint32Array.from(probability, (_, i) => i).sort(
    (a, b) => (probability[a] as number) - (probability[b] as number) || a - b,
  );
}

/** Evenly spread in recall, first and last kept. */
function thinned(curve: readonly CurvePoint[], most: number): CurvePoint[] {
  if (curve.length <= most) return [...curve];
  const kept: CurvePoint[] = [];
  let next = 0;
  for (const [i, point] of curve.entries()) {
    if (point.recall < next && i < curve.length - 1 && i > 0) continue;
    kept.push(point);
    next = point.recall + 1 / most;
  }
  return kept;
}

export interface ReliabilityBin {
  rows: number;
  /** Sum of the rows' weights. */
  mass: number;
  meanProbability: number;
  observed: number;
}

export interface Calibration {
  /** Mean squared difference between probability and outcome. */
  brier: number;
  /** 1 - Brier / Brier of the base rate: 0 for knowing the base rate only, 1 for certainty. */
  brierSkill: number;
  /** Expected calibration error over bins of equal mass. */
  ece: number;
  /** Logistic regression of the outcome on the log-odds: slope 1 and intercept 0 are perfect. */
  slope: number;
  intercept: number;
  bins: ReliabilityBin[];
}

export function calibration(rows: LabelledRows, bins = 15): Calibration {
  const { probability, failed, weight } = rows;
  const n = total(weight);
  let brier = 0;
  for (let i = 0; i < failed.length; i++) {
    brier += (weight[i] as number) * ((probability[i] as number) - (failed[i] as number)) ** 2;
  }
  brier /= n;
  const base = failing(rows) / n;
  const reliability = equalMassBins(rows, bins);
  let ece = 0;
  for (const bin of reliability) ece += (bin.mass / n) * Math.abs(bin.meanProbability - bin.observed);
  return { brier, brierSkill: 1 - brier / (base * (1 - base)), ece, ...logisticFit(rows), bins: reliability };
}

export function equalMassBins({ probability, failed, weight }: LabelledRows, bins: number): ReliabilityBin[] {
  const order = byProbability(probability);
  const all = total(weight);
  const result: ReliabilityBin[] = [];
  let next = 0;
  let passed = 0;
  for (let bin = 1; bin <= bins; bin++) {
    let rows = 0;
    let mass = 0;
    let p = 0;
    let f = 0;
    // The last bin takes whatever rounding has left.
    while (next < order.length && (bin === bins || passed + mass < (bin * all) / bins - 1e-9)) {
      const at = order[next] as number;
      const w = weight[at] as number;
      rows += 1;
      mass += w;
      p += w * (probability[at] as number);
      f += w * (failed[at] as number);
      next += 1;
    }
    passed += mass;
    if (rows > 0) result.push({ rows, mass, meanProbability: p / mass, observed: f / mass });
  }
  return result;
}

const clampedLogit = (p: number): number => {
  const inner = Math.min(1 - 1e-6, Math.max(1e-6, p));
  return Math.log(inner / (1 - inner));
};

/** Newton's method on two parameters; NaN where all rows went one way. */
function logisticFit({ probability, failed, weight }: LabelledRows): { slope: number; intercept: number } {
  if (failed.every((f) => f === failed[0])) return { slope: NaN, intercept: NaN };
  const x = Float64Array.from(probability, clampedLogit);
  let slope = 1;
  let intercept = 0;
  for (let round = 0; round < 30; round++) {
    let g0 = 0;
    let g1 = 0;
    let h00 = 1e-9;
    let h01 = 0;
    let h11 = 1e-9;
    for (let i = 0; i < x.length; i++) {
      const xi = x[i] as number;
      const p = 1 / (1 + Math.exp(-(intercept + slope * xi)));
      const w = (weight[i] as number) * p * (1 - p);
      const error = (weight[i] as number) * ((failed[i] as number) - p);
      g0 += error;
      g1 += error * xi;
      h00 += w;
      h01 += w * xi;
      h11 += w * xi * xi;
    }
    const determinant = h00 * h11 - h01 * h01;
    if (!(determinant > 0)) return { slope: NaN, intercept: NaN };
    const d0 = (h11 * g0 - h01 * g1) / determinant;
    const d1 = (h00 * g1 - h01 * g0) / determinant;
    // A step that leaps is cut: the likelihood is concave, so shorter ones still arrive.
    const cut = Math.min(1, 5 / Math.max(1e-12, Math.abs(d0), Math.abs(d1)));
    intercept += cut * d0;
    slope += cut * d1;
    if (Math.abs(d0) + Math.abs(d1) < 1e-8) break;
  }
  return { slope, intercept };
}

/** Linear interpolation between the closest ranks; NaN of nothing. NaN values are left out. */
export function quantile(values: readonly number[], q: number): number {
  const sorted = values.filter((v) => !Number.isNaN(v)).sort((a, b) => a - b);
  if (sorted.length === 0) return NaN;
  const at = q * (sorted.length - 1);
  const low = sorted[Math.floor(at)] as number;
  const high = sorted[Math.ceil(at)] as number;
  return low + (high - low) * (at - Math.floor(at));
}

/**
 * Population stability index of a sample against the bins it had in training: sum of (p - q) ln(p / q). Above 0.1 worth
 * a look, above 0.2 shifted. `edges` ascend; `expected` has one share more than edges, for what lies beyond; a value on an edge belongs above it.
 */
export function populationStability(
  values: Iterable<number>,
  edges: readonly number[],
  expected: readonly number[],
): number {
  const counts = new Array<number>(edges.length + 1).fill(0);
  let total = 0;
  for (const value of values) {
    if (Number.isNaN(value)) continue;
    let bin = 0;
    while (bin < edges.length && value >= (edges[bin] as number)) bin += 1;
    counts[bin] = (counts[bin] ?? 0) + 1;
    total += 1;
  }
  if (total === 0) return NaN;
  // An empty bin would make the index infinite; it counts as a ten-thousandth.
  const floor = 1e-4;
  return counts.reduce((sum, count, i) => {
    const p = Math.max(floor, count / total);
    const q = Math.max(floor, expected[i] ?? 0);
    return sum + (p - q) * Math.log(p / q);
  }, 0);
}
