/**
 * What is normal for one metric of one cell: robust centre and scale of its own recent past, lagging behind the present.
 * As with trends, its numbers lie in a stretch of an array that its owner keeps.
 */

/** Blocks (see trend.ts) in the baseline: 240 steps. */
export const baselineBlocks = 48;
/** Newest blocks kept out, 20 steps, so that a degradation does not become normal while it begins. */
export const lagBlocks = 4;
const minBlocks = 2;

/** Where a baseline's figures lie: NaN until 30 steps have been seen. */
export const CENTRE = 0;
export const SCALE = 1;
/** Blocks that wait to be admitted, and how many are in the baseline. */
const LAGGING = 2;
const SIZE = 3;
/** Where the next admitted block goes in the rings. */
const NEXT = 4;
const lagMeans = 5;
const lagVariances = lagMeans + lagBlocks;
const means = lagVariances + lagBlocks;
const variances = means + baselineBlocks;
const sortedMeans = variances + baselineBlocks;
const sortedVariances = sortedMeans + baselineBlocks;
export const baselineSize = sortedVariances + baselineBlocks;

/** Numbers from the beginning of a baseline on that cannot be made again from the rest: see `rebuildBaseline`. */
export const keptOfBaseline = sortedMeans;

/** Makes the order of the blocks again from the blocks. */
export function rebuildBaseline(d: Float64Array, at: number): void {
  const size = d[at + SIZE]!;
  if (!Number.isInteger(size) || size < 0 || size > baselineBlocks) throw new RangeError(`no ${size} blocks`);
  // A ring that is not full is filled from its beginning.
  d.copyWithin(at + sortedMeans, at + means, at + means + size);
  d.copyWithin(at + sortedVariances, at + variances, at + variances + size);
  d.subarray(at + sortedMeans, at + sortedMeans + size).sort();
  d.subarray(at + sortedVariances, at + sortedVariances + size).sort();
}

/** Makes the stretch that begins at `at` (zeros so far) a baseline that has seen nothing. */
export function emptyBaseline(d: Float64Array, at: number): void {
  d[at + CENTRE] = d[at + SCALE] = NaN;
}

/** Takes the block closed last, whose mean and variance lie at these places; one with fewer than 3 values is passed over. */
export function closeBaseline(
  d: Float64Array,
  at: number,
  meanAt: number,
  varianceAt: number,
  count: number,
  frozen: boolean,
): void {
  if (frozen) d[at + LAGGING] = 0;
  else if (count >= 3) queue(d, at, meanAt, varianceAt);
}

function queue(d: Float64Array, at: number, meanAt: number, varianceAt: number): void {
  let lagging = d[at + LAGGING]!;
  if (lagging === lagBlocks) {
    admit(d, at);
    d.copyWithin(at + lagMeans, at + lagMeans + 1, at + lagMeans + lagBlocks);
    d.copyWithin(at + lagVariances, at + lagVariances + 1, at + lagVariances + lagBlocks);
    lagging -= 1;
  }
  d[at + lagMeans + lagging] = d[meanAt]!;
  d[at + lagVariances + lagging] = d[varianceAt]!;
  d[at + LAGGING] = lagging + 1;
}

/** Takes in the block that has waited longest. */
function admit(d: Float64Array, at: number): void {
  const mean = d[at + lagMeans]!;
  const variance = d[at + lagVariances]!;
  const next = d[at + NEXT]!;
  let size = d[at + SIZE]!;
  if (size === baselineBlocks) {
    remove(d, at + sortedMeans, size, d[at + means + next]!);
    remove(d, at + sortedVariances, size, d[at + variances + next]!);
    size -= 1;
  }
  d[at + means + next] = mean;
  d[at + variances + next] = variance;
  d[at + NEXT] = (next + 1) % baselineBlocks;
  insert(d, at + sortedMeans, size, mean);
  insert(d, at + sortedVariances, size, variance);
  size += 1;
  d[at + SIZE] = size;
  if (size < minBlocks) return;
  d[at + CENTRE] = quantile(d, at + sortedMeans, size, 0.5);
  // Spread within blocks and between them; 1.349 is the interquartile range of a standard normal.
  const between = (quantile(d, at + sortedMeans, size, 0.75) - quantile(d, at + sortedMeans, size, 0.25)) / 1.349;
  d[at + SCALE] = Math.sqrt(quantile(d, at + sortedVariances, size, 0.5) + between * between);
}

/** Into `size` ascending values from `at` on: by shifting, which is cheaper than sorting anew each block. */
function insert(d: Float64Array, at: number, size: number, value: number): void {
  let i = at + size;
  while (i > at && d[i - 1]! > value) {
    d[i] = d[i - 1]!;
    i -= 1;
  }
  d[i] = value;
}

function remove(d: Float64Array, at: number, size: number, value: number): void {
  let i = at;
  while (d[i] !== value) i += 1;
  for (const last = at + size - 1; i < last; i++) d[i] = d[i + 1]!;
}

function quantile(d: Float64Array, at: number, size: number, q: number): number {
  const position = q * (size - 1);
  const low = Math.floor(position);
  const below = d[at + low]!;
  const above = d[at + Math.min(low + 1, size - 1)]!;
  return below + (above - below) * (position - low);
}
