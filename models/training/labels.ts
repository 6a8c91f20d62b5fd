/** What a row is trained on: how many steps until failure, or how long it was watched without one. */
import type { IncidentSpan } from '../evaluation/contracts';

export interface RowLabel {
  /** Steps from the row to the onset of the failure the model is to predict; NaN if none was seen. */
  stepsToFailure: number;
  /** Steps for which the row was watched: until the failure, another cause's failure, or the end. NaN: not to be used. */
  stepsWatched: number;
}

/** Rows this long after a recovery are still left out: windows remember the failure. */
export const settleSteps = 60;

/**
 * The row's label. From an onset until recovery and a little beyond it is none. A failure counts for the rows between the
 * fault's start and the onset: before its start nothing of it is at work, and what will be injected next is written in no
 * telemetry, so that the watch of an earlier row ends there. A failure without warning (`predictable` false) ends the
 * watch as well: its hazard is another cause's.
 */
export function labelOf(
  atMs: number,
  incidents: readonly IncidentSpan[],
  watchedToMs: number,
  stepMs: number,
): RowLabel {
  let endMs = watchedToMs;
  let failureMs = Infinity;
  for (const { faultStartMs, onsetMs, recoveredMs, predictable } of incidents) {
    if (atMs >= onsetMs) {
      if (atMs < recoveredMs + settleSteps * stepMs) return { stepsToFailure: NaN, stepsWatched: NaN };
      continue;
    }
    if (predictable && atMs >= faultStartMs) failureMs = Math.min(failureMs, onsetMs);
    endMs = Math.min(endMs, atMs < faultStartMs ? faultStartMs : onsetMs);
  }
  const fails = failureMs <= endMs;
  return {
    stepsToFailure: fails ? (failureMs - atMs) / stepMs : NaN,
    stepsWatched: Math.max(0, endMs - atMs) / stepMs,
  };
}
