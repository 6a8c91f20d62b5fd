/** The features of one metric of one cell, from its trend, its baseline and its limit. */
import type { FeatureSpec, MetricFeature, TrackedMetric } from './feature-spec';
import type { Track } from './track';
import { longWindow, midWindow, type WindowPlace } from './trend';

export const clamp = (value: number, low: number, high: number) => (value < low ? low : value > high ? high : value);

/** NaN stays NaN; absurd telemetry becomes a large number rather than an infinite one. */
export const bounded = (value: number) => clamp(value, -1e6, 1e6);

/** Steps until `limit` at this slope; 0 beyond it, `most` if the way does not lead there. */
function stepsAt(left: number, slope: number, most: number): number {
  if (!(left === left) || !(slope === slope)) return NaN;
  if (left <= 0) return 0;
  return slope > 0 ? Math.min(left / slope, most) : most;
}

/** A slope that the window's values bear out only in part counts in part: else noise would reach every limit soon. */
export const borneOut = (track: Track, window: WindowPlace) => track.slope(window) * track.r2(window);

/**
 * Steps to the limit by the middle window's slope or that of its floor, whichever is steeper: being early costs less than
 * being late, and a heap that is collected now and then rises by its floor.
 */
export function stepsToLimit(track: Track, most: number): number {
  const slope = borneOut(track, midWindow);
  const floorSlope = track.floorSlopeMid;
  return stepsAt(track.limit - track.recent, floorSlope > slope ? floorSlope : slope, most);
}

export function stepsToLimitLong(track: Track, most: number): number {
  const slope = borneOut(track, longWindow);
  const floorSlope = track.floorSlopeLong;
  return stepsAt(track.limit - track.recent, floorSlope > slope ? floorSlope : slope, most);
}

/** Steps until a window's mean reaches a level, by one window's slope alone. */
export function stepsToLevel(track: Track, window: WindowPlace, level: number, most: number): number {
  return stepsAt(level - track.recent, borneOut(track, window), most);
}

/** Relative to a level; that of an idle metric counts as at least its floor. */
const relative = (value: number, to: number, floor: number) => clamp(value / (Math.abs(to) + floor), -10, 10);

/** Places the newest values against the cell's own baseline. */
export function placeAgainstBaseline(track: Track, tracked: TrackedMetric, spec: FeatureSpec): void {
  const { constants } = spec;
  const { centre, spread, recent: mean } = track;
  const largest = constants.largestZ ?? 50;
  const relativeFloor = constants.relativeZFloor ?? 0;
  // Without a baseline there is no z, but peers can still be compared by the smallest scale.
  let floor =
    centre === centre
      ? Math.max(tracked.zFloor, relativeFloor * Math.abs(centre), spread)
      : Math.max(tracked.zFloor, relativeFloor * Math.abs(mean));
  const ofLimit = (constants.limitZFloor ?? 0) * track.limit;
  if (ofLimit > floor) floor = ofLimit;
  track.scale = floor;
  track.z = clamp((mean - centre) / floor, -largest, largest);
  // The floor keeps a logarithm of small numbers from speaking of noise.
  track.logRatio = clamp(Math.log((mean + tracked.zFloor) / (centre + tracked.zFloor)), -10, 10);
}

/** Slope per step relative to the cell's usual level. */
export const relSlope = (track: Track, window: WindowPlace, zFloor: number) =>
  relative(track.slope(window), track.centre, zFloor);

/** `most`: steps to a limit that is not in sight. */
export function metricFeature(feature: MetricFeature, track: Track, zFloor: number, most: number): number {
  switch (feature) {
    case 'share':
      return track.last / track.limit;
    case 'mean':
      return track.recent;
    case 'floor-share':
      return track.floor / track.limit;
    case 'slope-mid':
      return track.slope(midWindow) / track.limit;
    case 'slope-long':
      return track.slope(longWindow) / track.limit;
    case 'unit-slope-mid':
      return track.slope(midWindow);
    case 'unit-slope-long':
      return track.slope(longWindow);
    case 'r2-mid':
      return track.r2(midWindow);
    case 'floor-slope-mid':
      return track.floorSlopeMid / track.limit;
    case 'floor-slope-long':
      return track.floorSlopeLong / track.limit;
    case 'log-steps-to-limit':
      return Math.log1p(stepsToLimit(track, most));
    case 'log-steps-to-limit-long':
      return Math.log1p(stepsToLimitLong(track, most));
    case 'z':
      return track.z;
    case 'log-ratio':
      return track.logRatio;
    case 'gap': {
      const usual = track.mean(longWindow);
      return relative(track.recent - usual, usual, zFloor);
    }
    case 'rel-slope-mid':
      return relSlope(track, midWindow, zFloor);
    case 'rel-slope-long':
      return relSlope(track, longWindow, zFloor);
    case 'peer':
      // Written when all cells of the cohort are known: see cohort.ts.
      return NaN;
  }
}
