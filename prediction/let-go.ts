/**
 * Tells when a resource that had filled while its cell was at risk has been let go: a leak that was stopped and collected,
 * a process that began anew. What it held before says nothing about what comes, so its trend begins anew there.
 *
 * A line across such a fall is flat or falls, however fast the resource fills again. To look for changes of level first and
 * to fit behind the last one is how Jindal et al. find leaks in such series ("Memory Leak Detection Algorithms in the
 * Cloud-based Infrastructure", 2021, arXiv:2106.08938: regression with change points); the change looked for is a level
 * shift in the sense of Tsay ("Outliers, level shifts, and variance changes in time series", J. of Forecasting 7, 1988).
 * It counts only if most is given back of what was gained above what had been normal before the risk. A collection
 * amid a leak gives back less: what has leaked holds the floor up, and a saw-tooth is not cut.
 *
 * Where nothing was at risk nothing is cut, so that the model meets the features it was trained on: a frozen baseline's
 * rule. As with trends, the numbers lie in a stretch of an array that its owner keeps.
 */

/** The step at which the cell was last at risk; -Infinity if none is remembered. */
const RISK_STEP = 0;
/** What was normal before: its centre, and where the resource has left it for its limit. */
const NORMAL = 1;
const LEFT_ABOVE = 2;
/** Highest value since it left; NaN while it has not. */
const PEAK = 3;
/** 1 if no baseline told what is normal, which would know a saw-tooth by its spread. */
const IS_YOUNG = 4;
export const letGoSize = 5;

/**
 * It has left what is normal at a quarter of the way to the limit, and eight robust standard deviations away (twice
 * `deviatingZ` of feature-spec.ts): ordinary saw-teeth go less far.
 */
const wayGone = 0.25;
const leftZ = 8;
/** What may be left of the gain: a cell that fills again at once has grown by some of it when it is looked at. */
const gainLeft = 1 / 3;
/** Without a baseline it is let go again only from so much higher: a second fall from the same height is a saw-tooth. */
const higherAgain = 1.25;

export function rememberNoRisk(d: Float64Array, at: number): void {
  d[at + RISK_STEP] = -Infinity;
  d[at + NORMAL] = d[at + LEFT_ABOVE] = d[at + PEAK] = d[at + IS_YOUNG] = NaN;
}

export const remembersRisk = (d: Float64Array, at: number): boolean => d[at + RISK_STEP] !== -Infinity;

/**
 * The cell is at risk at this step. What is normal is taken down when no risk was remembered, since later it might be
 * learnt from what leaked: baseline and robust standard deviation, or the lowest value so far where there is no baseline
 * (NaN), and the limit, all in the metric's unit.
 */
export function rememberRisk(
  d: Float64Array,
  at: number,
  step: number,
  baseline: number,
  scale: number,
  lowest: number,
  limit: number,
): void {
  const isUntold = d[at + LEFT_ABOVE] !== d[at + LEFT_ABOVE];
  // What stood for the baseline gives way to it when the next risk begins.
  const isOutgrown = d[at + IS_YOUNG] === 1 && baseline === baseline && step - d[at + RISK_STEP]! > 1;
  if (isUntold || isOutgrown) {
    const isYoung = baseline !== baseline;
    const normal = isYoung ? lowest : baseline;
    d[at + PEAK] = NaN;
    d[at + IS_YOUNG] = Number(isYoung);
    d[at + NORMAL] = normal;
    d[at + LEFT_ABOVE] = normal + Math.max(leftZ * scale, wayGone * (limit - normal));
  }
  d[at + RISK_STEP] = step;
}

/** Forgets a risk that has been over for longer than any window reaches back. */
export function forgetOldRisk(d: Float64Array, at: number, step: number, windowSteps: number): void {
  if (step - d[at + RISK_STEP]! > windowSteps) rememberNoRisk(d, at);
}

/** Takes the newest value, NaN if there is none. */
export function followGain(d: Float64Array, at: number, value: number): void {
  if (value > d[at + LEFT_ABOVE]! && !(value <= d[at + PEAK]!)) d[at + PEAK] = value;
}

/** Whether the value is back near what was normal, after the resource had left it. False without a value. */
export function isBack(d: Float64Array, at: number, value: number): boolean {
  const normal = d[at + NORMAL]!;
  return value <= normal + gainLeft * (d[at + PEAK]! - normal);
}

/** The resource has been let go: from now on it may leave what is normal again. */
export function beginAgain(d: Float64Array, at: number): void {
  const normal = d[at + NORMAL]!;
  const higher = normal + higherAgain * (d[at + PEAK]! - normal);
  if (d[at + IS_YOUNG] === 1) d[at + LEFT_ABOVE] = Math.max(d[at + LEFT_ABOVE]!, higher);
  d[at + PEAK] = NaN;
}
