/** Level, trend and spread of one metric over three windows, in constant work per step: sums over blocks of steps. */

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

/** Figures over one window; NaN where too little of it is present. */
export interface WindowTrend {
  mean: number;
  sd: number;
  /** Least-squares slope per step. */
  slope: number;
  r2: number;
}

const emptyWindow = (): WindowTrend => ({ mean: NaN, sd: NaN, slope: NaN, r2: NaN });

/** Sums of a block or a window: n, t, y, tt, ty, yy, with t in steps relative to the end of the newest closed block. */
const fields = 6;
const [N, T, Y, TT, TY, YY] = [0, 1, 2, 3, 4, 5] as const;

export class Trend {
  readonly short = emptyWindow();
  readonly mid = emptyWindow();
  readonly long = emptyWindow();
  /** Lowest value of the newest 11 to 15 steps. A saw-tooth (garbage collection) has a floor. */
  floor = NaN;
  /** Change of the floor per step: the newest 11 to 15 steps against the 15 before. */
  floorSlopeMid = NaN;
  /** The same, the newest 56 to 60 steps against the 60 before. */
  floorSlopeLong = NaN;
  /** Values in the last 26 to 30 steps, as a share. */
  present = 0;
  /** Of the block that was closed last. */
  blockCount = 0;
  blockMean = NaN;
  blockVariance = NaN;

  private readonly blocks = new Float64Array(longBlocks * fields);
  private readonly lows = new Float64Array(longBlocks).fill(Infinity);
  private newest = longBlocks - 1;
  private readonly closedShort = new Float64Array(fields);
  private readonly closedMid = new Float64Array(fields);
  private readonly closedLong = new Float64Array(fields);
  /** Lowest values among closed blocks: the newest 2, the 3 before; the newest 11, the 12 before. */
  private low2 = Infinity;
  private low5 = Infinity;
  private low11 = Infinity;
  private low23 = Infinity;
  private readonly open = new Float64Array(fields);
  private openLow = Infinity;
  private openSteps = 0;

  /** Takes the value of one step, NaN if there is none. `t`: the step's place in its block, 1 to `blockSteps`, which closes it. */
  step(value: number, t: number): void {
    const { open } = this;
    this.openSteps = t;
    if (value === value) {
      open[N]! += 1;
      open[T]! += t;
      open[Y]! += value;
      open[TT]! += t * t;
      open[TY]! += t * value;
      open[YY]! += value * value;
      if (value < this.openLow) this.openLow = value;
    }
    if (t === blockSteps) this.close();
    this.finish();
  }

  private close(): void {
    const { open, blocks } = this;
    this.newest = (this.newest + 1) % longBlocks;
    blocks.set(open, this.newest * fields);
    this.lows[this.newest] = this.openLow;
    const n = open[N]!;
    this.blockCount = n;
    this.blockMean = n > 0 ? open[Y]! / n : NaN;
    this.blockVariance = n > 0 ? Math.max(0, open[YY]! / n - this.blockMean * this.blockMean) : NaN;
    open.fill(0);
    this.openLow = Infinity;
    this.openSteps = 0;
    this.closedLong.fill(0);
    this.low2 = this.low5 = this.low11 = this.low23 = Infinity;
    for (let j = 0; j < longBlocks; j++) {
      const at = (this.newest - j + longBlocks) % longBlocks;
      addShifted(this.closedLong, blocks, at * fields, -blockSteps * (j + 1));
      const low = this.lows[at]!;
      if (j < 2) this.low2 = Math.min(this.low2, low);
      else if (j < 5) this.low5 = Math.min(this.low5, low);
      if (j < 11) this.low11 = Math.min(this.low11, low);
      else this.low23 = Math.min(this.low23, low);
      if (j === shortBlocks - 1) this.closedShort.set(this.closedLong);
      else if (j === midBlocks - 1) this.closedMid.set(this.closedLong);
    }
  }

  private finish(): void {
    const { open, openLow } = this;
    finishWindow(this.short, this.closedShort, open, neededShort);
    finishWindow(this.mid, this.closedMid, open, neededMid);
    finishWindow(this.long, this.closedLong, open, neededLong);
    this.present = (this.closedMid[N]! + open[N]!) / (midBlocks * blockSteps + this.openSteps);
    const low2 = Math.min(openLow, this.low2);
    this.floor = finite(low2);
    this.floorSlopeMid = finite((low2 - this.low5) / 15);
    this.floorSlopeLong = finite((Math.min(openLow, this.low11) - this.low23) / 60);
  }
}

function addShifted(sums: Float64Array, blocks: Float64Array, at: number, by: number): void {
  const n = blocks[at + N]!;
  const t = blocks[at + T]!;
  const y = blocks[at + Y]!;
  sums[N]! += n;
  sums[T]! += t + by * n;
  sums[Y]! += y;
  sums[TT]! += blocks[at + TT]! + 2 * by * t + by * by * n;
  sums[TY]! += blocks[at + TY]! + by * y;
  sums[YY]! += blocks[at + YY]!;
}

function finite(value: number): number {
  return Number.isFinite(value) ? value : NaN;
}

function finishWindow(out: WindowTrend, closed: Float64Array, open: Float64Array, needed: number): void {
  const n = closed[N]! + open[N]!;
  if (n < needed) {
    out.mean = out.sd = out.slope = out.r2 = NaN;
    return;
  }
  const t = closed[T]! + open[T]!;
  const y = closed[Y]! + open[Y]!;
  const varT = closed[TT]! + open[TT]! - (t * t) / n;
  const covariance = closed[TY]! + open[TY]! - (t * y) / n;
  const yy = closed[YY]! + open[YY]!;
  // What is left of a difference of equal squares is rounding, not spread.
  const varY = Math.max(0, yy - (y * y) / n - 1e-13 * yy);
  out.mean = y / n;
  out.sd = Math.sqrt(varY / n);
  out.slope = varT > 0 ? covariance / varT : NaN;
  out.r2 = varT > 0 && varY > 0 ? Math.min(1, (covariance * covariance) / (varT * varY)) : 0;
}
