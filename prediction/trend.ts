/** Level, trend and spread of one metric over its last steps, computed in one pass over the ring. */
import type { Ring } from './ring';

/** Window lengths in steps. */
export const shortWindow = 10;
export const midWindow = 30;
export const longWindow = 60;

/** Share of a window that must be present before anything is said about it. */
const minPresent = 0.5;

/** Figures over one window; NaN where too little of it is present. */
export interface WindowTrend {
  mean: number;
  sd: number;
  /** Least-squares slope per step. */
  slope: number;
  r2: number;
}

export interface Trend {
  short: WindowTrend;
  mid: WindowTrend;
  long: WindowTrend;
  /** Change per step of the lowest value: last 10 steps against the 10 before. A saw-tooth (garbage collection) has a floor. */
  floorSlopeShort: number;
  /** The same, last 20 steps against the 20 before. */
  floorSlopeLong: number;
  /** Lowest value of the last 10 steps. */
  floor: number;
  /** Share of the last 30 steps without a value. */
  missing: number;
}

const emptyWindow = (): WindowTrend => ({ mean: NaN, sd: NaN, slope: NaN, r2: NaN });

export function emptyTrend(): Trend {
  return {
    short: emptyWindow(),
    mid: emptyWindow(),
    long: emptyWindow(),
    floorSlopeShort: NaN,
    floorSlopeLong: NaN,
    floor: NaN,
    missing: 1,
  };
}

/** Writes the ring's trend into `out`; nothing is allocated. */
export function computeTrend(ring: Ring, out: Trend): void {
  // Sums over y minus a reference: squares of byte counts would otherwise lose the digits that matter.
  let reference = NaN;
  let n = 0;
  let sx = 0;
  let sy = 0;
  let sxx = 0;
  let sxy = 0;
  let syy = 0;
  let lowest0 = Infinity;
  let lowest10 = Infinity;
  let lowest20 = Infinity;
  for (let i = 0; i < longWindow; i++) {
    const value = ring.at(i);
    if (value === value) {
      if (n === 0) reference = value;
      const y = value - reference;
      const x = -i;
      n += 1;
      sx += x;
      sy += y;
      sxx += x * x;
      sxy += x * y;
      syy += y * y;
      if (i < 10) lowest0 = Math.min(lowest0, value);
      else if (i < 20) lowest10 = Math.min(lowest10, value);
      else if (i < 40) lowest20 = Math.min(lowest20, value);
    }
    if (i === shortWindow - 1) finish(out.short, shortWindow, reference, n, sx, sy, sxx, sxy, syy);
    else if (i === midWindow - 1) {
      finish(out.mid, midWindow, reference, n, sx, sy, sxx, sxy, syy);
      out.missing = 1 - n / midWindow;
    }
  }
  finish(out.long, longWindow, reference, n, sx, sy, sxx, sxy, syy);
  out.floor = finite(lowest0);
  out.floorSlopeShort = finite((lowest0 - lowest10) / 10);
  out.floorSlopeLong = finite((Math.min(lowest0, lowest10) - lowest20) / 20);
}

function finite(value: number): number {
  return Number.isFinite(value) ? value : NaN;
}

function finish(
  out: WindowTrend,
  length: number,
  reference: number,
  n: number,
  sx: number,
  sy: number,
  sxx: number,
  sxy: number,
  syy: number,
): void {
  // The long window may speak earlier: from 12 steps on it is the best there is.
  const needed = length === longWindow ? 12 : length * minPresent;
  if (n < needed) {
    out.mean = NaN;
    out.sd = NaN;
    out.slope = NaN;
    out.r2 = NaN;
    return;
  }
  const varX = sxx - (sx * sx) / n;
  const varY = Math.max(0, syy - (sy * sy) / n);
  const covariance = sxy - (sx * sy) / n;
  out.mean = reference + sy / n;
  out.sd = Math.sqrt(varY / n);
  out.slope = varX > 0 ? covariance / varX : NaN;
  out.r2 = varX > 0 && varY > 0 ? (covariance * covariance) / (varX * varY) : 0;
}
