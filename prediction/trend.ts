/**
 * Level, trend and spread of one metric over three windows, in constant work per step: sums over blocks of steps. All
 * numbers of one trend lie in a stretch of an array that its owner keeps, so that ten thousand cells are not millions of
 * objects.
 */

/** Steps per block. Windows are whole closed blocks and the block that is being filled. */
export const blockSteps = 5;
/** Closed blocks per window: 6 to 10, 26 to 30 and 116 to 120 steps. */
export const shortBlocks = 1;
export const midBlocks = 5;
export const longBlocks = 23;

/** Values a window needs before anything is said about it; the long one speaks late rather than loosely. */
const neededShort = 3;
const neededMid = 10;
const neededLong = 35;

/** Where the figures of each window lie within a trend: mean, slope, r2, in this order; NaN where too little is present. */
export const shortWindow = 0;
export const midWindow = 3;
export const longWindow = 6;
export type WindowPlace = typeof shortWindow | typeof midWindow | typeof longWindow;
export const MEAN = 0;
/** Least squares, per step. */
export const SLOPE = 1;
export const R2 = 2;

/** Lowest value of the newest 11 to 15 steps. A saw-tooth (garbage collection) has a floor. */
export const FLOOR = 9;
/** Change of the floor per step: the newest 11 to 15 steps against the 15 before. */
export const FLOOR_SLOPE_MID = 10;
/** The same, the newest 56 to 60 steps against the 60 before. */
export const FLOOR_SLOPE_LONG = 11;
/** Values in the last 26 to 30 steps, as a share. */
export const PRESENT = 12;
/** Of the block that was closed last. */
export const BLOCK_COUNT = 13;
export const BLOCK_MEAN = 14;
export const BLOCK_VARIANCE = 15;

/** Sums of the closed blocks of each window: n, t, y, tt, ty, yy, with t in steps relative to the end of the newest one. */
const closedShort = 16;
const closedMid = 22;
const closedLong = 28;
const [N, T, Y, TT, TY, YY] = [0, 1, 2, 3, 4, 5] as const;

/** A block: which of its steps have a value (bit 0: the first), and the sums y, ty, yy. The first three follow from it. */
const blockFields = 4;
const [STEPS, BLOCK_Y, BLOCK_TY, BLOCK_YY] = [0, 1, 2, 3] as const;
const open = 34;
const openLow = 38;
/** Lowest values among closed blocks: the newest 2, the 3 before; the newest 11, the 12 before. */
const low2 = 39;
const low5 = 40;
const low11 = 41;
const low23 = 42;
/** Index of the newest closed block in the rings. */
const newestBlock = 43;
/** Steps since the trend began anew; Infinity if it never did. */
const stepsSinceAnew = 44;
const blocks = 45;
const lows = blocks + longBlocks * blockFields;
export const trendSize = lows + longBlocks;

/** What cannot be made again from the rest, as stretches from the beginning of a trend: see `rebuildTrend`. */
export const keptOfTrend: readonly (readonly [from: number, to: number])[] = [
  [open, openLow + 1],
  [newestBlock, trendSize],
];

/** n, t and tt by which steps of a block have a value. */
const countOf = new Float64Array(1 << blockSteps);
const timeOf = new Float64Array(1 << blockSteps);
const squaredTimeOf = new Float64Array(1 << blockSteps);
for (let steps = 0; steps < countOf.length; steps++) {
  for (let t = 1; t <= blockSteps; t++) {
    if ((steps & (1 << (t - 1))) === 0) continue;
    countOf[steps]! += 1;
    timeOf[steps]! += t;
    squaredTimeOf[steps]! += t * t;
  }
}

/** Makes the stretch that begins at `at` (zeros so far) a trend that has seen nothing. */
export function emptyTrend(d: Float64Array, at: number): void {
  d.fill(NaN, at, at + PRESENT);
  d[at + BLOCK_MEAN] = d[at + BLOCK_VARIANCE] = NaN;
  d.fill(Infinity, at + openLow, at + low23 + 1);
  d.fill(Infinity, at + lows, at + trendSize);
  d[at + newestBlock] = longBlocks - 1;
  d[at + stepsSinceAnew] = Infinity;
}

/**
 * Forgets all but the newest steps, whose values are read from `valuesAt`, the oldest first: the trend is as if the first
 * of them had been the first it ever saw. `t`: the place in its block of the newest one.
 */
export function beginTrendAnew(d: Float64Array, at: number, valuesAt: readonly number[], t: number): void {
  d.fill(0, at, at + trendSize);
  emptyTrend(d, at);
  d[at + stepsSinceAnew] = 0;
  valuesAt.forEach((valueAt, i) => {
    const back = valuesAt.length - 1 - i;
    stepTrend(d, at, valueAt, ((t - 1 - back + blockSteps) % blockSteps) + 1);
  });
}

/** The lowest value of the last 116 to 120 steps; NaN without any. */
export function lowestOf(d: Float64Array, at: number): number {
  return finite(Math.min(d[at + openLow]!, d[at + low11]!, d[at + low23]!));
}

/** Makes the sums and lows again, bit by bit those of the trend that was kept; its figures follow with the next step. */
export function rebuildTrend(d: Float64Array, at: number): void {
  const newest = d[at + newestBlock]!;
  if (!Number.isInteger(newest) || newest < 0 || newest >= longBlocks) throw new RangeError(`no block ${newest}`);
  sumWindows(d, at, newest);
  findLows(d, at, newest);
}

/**
 * Takes the value of one step, read from `valueAt`, NaN if there is none. `t`: the step's place in its block, 1 to
 * `blockSteps`, which closes it.
 */
export function stepTrend(d: Float64Array, at: number, valueAt: number, t: number): void {
  const value = d[valueAt]!;
  if (value === value) {
    d[at + open + STEPS] = d[at + open + STEPS]! | (1 << (t - 1));
    d[at + open + BLOCK_Y]! += value;
    d[at + open + BLOCK_TY]! += t * value;
    d[at + open + BLOCK_YY]! += value * value;
    if (value < d[at + openLow]!) d[at + openLow] = value;
  }
  let openSteps = t;
  if (t === blockSteps) {
    closeBlock(d, at);
    openSteps = 0;
  }
  finishWindow(d, at, shortWindow, closedShort, neededShort);
  finishWindow(d, at, midWindow, closedMid, neededMid);
  finishWindow(d, at, longWindow, closedLong, neededLong);
  const n = d[at + closedMid + N]! + countOf[d[at + open + STEPS]!]!;
  d[at + stepsSinceAnew]! += 1;
  d[at + PRESENT] = n / Math.min(midBlocks * blockSteps + openSteps, d[at + stepsSinceAnew]!);
  const newest = Math.min(d[at + openLow]!, d[at + low2]!);
  d[at + FLOOR] = finite(newest);
  d[at + FLOOR_SLOPE_MID] = finite((newest - d[at + low5]!) / 15);
  d[at + FLOOR_SLOPE_LONG] = finite((Math.min(d[at + openLow]!, d[at + low11]!) - d[at + low23]!) / 60);
}

function closeBlock(d: Float64Array, at: number): void {
  const newest = (d[at + newestBlock]! + 1) % longBlocks;
  d[at + newestBlock] = newest;
  const block = at + blocks + newest * blockFields;
  for (let i = 0; i < blockFields; i++) d[block + i] = d[at + open + i]!;
  d[at + lows + newest] = d[at + openLow]!;
  const count = countOf[d[at + open + STEPS]!]!;
  const mean = d[at + open + BLOCK_Y]! / count;
  d[at + BLOCK_COUNT] = count;
  d[at + BLOCK_MEAN] = mean;
  d[at + BLOCK_VARIANCE] = count > 0 ? Math.max(0, d[at + open + BLOCK_YY]! / count - mean * mean) : NaN;
  for (let i = 0; i < blockFields; i++) d[at + open + i] = 0;
  d[at + openLow] = Infinity;
  sumWindows(d, at, newest);
  findLows(d, at, newest);
}

/** Adds up the closed blocks of each window, the newest first: every window begins with those of the shorter one. */
function sumWindows(d: Float64Array, at: number, newest: number): void {
  let n = 0;
  let t = 0;
  let y = 0;
  let tt = 0;
  let ty = 0;
  let yy = 0;
  for (let j = 0, index = newest; j < longBlocks; j++, index = index === 0 ? longBlocks - 1 : index - 1) {
    const block = at + blocks + index * blockFields;
    const steps = d[block + STEPS]!;
    const by = -blockSteps * (j + 1);
    const blockN = countOf[steps]!;
    const blockT = timeOf[steps]!;
    const blockY = d[block + BLOCK_Y]!;
    n += blockN;
    t += blockT + by * blockN;
    y += blockY;
    tt += squaredTimeOf[steps]! + 2 * by * blockT + by * by * blockN;
    ty += d[block + BLOCK_TY]! + by * blockY;
    yy += d[block + BLOCK_YY]!;
    if (j !== shortBlocks - 1 && j !== midBlocks - 1 && j !== longBlocks - 1) continue;
    const sums = at + (j === shortBlocks - 1 ? closedShort : j === midBlocks - 1 ? closedMid : closedLong);
    d[sums + N] = n;
    d[sums + T] = t;
    d[sums + Y] = y;
    d[sums + TT] = tt;
    d[sums + TY] = ty;
    d[sums + YY] = yy;
  }
}

function findLows(d: Float64Array, at: number, newest: number): void {
  let lowest2 = Infinity;
  let lowest5 = Infinity;
  let lowest11 = Infinity;
  let lowest23 = Infinity;
  for (let j = 0, index = newest; j < longBlocks; j++, index = index === 0 ? longBlocks - 1 : index - 1) {
    const low = d[at + lows + index]!;
    if (j < 2) lowest2 = Math.min(lowest2, low);
    else if (j < 5) lowest5 = Math.min(lowest5, low);
    if (j < 11) lowest11 = Math.min(lowest11, low);
    else lowest23 = Math.min(lowest23, low);
  }
  d[at + low2] = lowest2;
  d[at + low5] = lowest5;
  d[at + low11] = lowest11;
  d[at + low23] = lowest23;
}

function finite(value: number): number {
  return Number.isFinite(value) ? value : NaN;
}

/** The figures of one window from its closed blocks and the open one. */
function finishWindow(d: Float64Array, at: number, window: WindowPlace, closed: number, needed: number): void {
  const out = at + window;
  const sums = at + closed;
  const steps = d[at + open + STEPS]!;
  const n = d[sums + N]! + countOf[steps]!;
  if (n < needed) {
    d[out + MEAN] = d[out + SLOPE] = d[out + R2] = NaN;
    return;
  }
  const t = d[sums + T]! + timeOf[steps]!;
  const y = d[sums + Y]! + d[at + open + BLOCK_Y]!;
  const varT = d[sums + TT]! + squaredTimeOf[steps]! - (t * t) / n;
  const covariance = d[sums + TY]! + d[at + open + BLOCK_TY]! - (t * y) / n;
  const yy = d[sums + YY]! + d[at + open + BLOCK_YY]!;
  // What is left of a difference of equal squares is rounding, not spread.
  const varY = Math.max(0, yy - (y * y) / n - 1e-13 * yy);
  d[out + MEAN] = y / n;
  d[out + SLOPE] = varT > 0 ? covariance / varT : NaN;
  d[out + R2] = varT > 0 && varY > 0 ? Math.min(1, (covariance * covariance) / (varT * varY)) : 0;
}
