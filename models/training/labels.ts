/** What a row is trained on: how many steps until failure, or how long it was watched without one. */
import type { EpisodeDescription, Incident } from '../../lab/recording';

export interface RowLabel {
  /** Steps from the row to the onset of the failure the model is to predict; NaN if none was seen. */
  stepsToFailure: number;
  /** Steps for which the row was watched: until the failure, another cause's failure, or the episode's end. */
  stepsWatched: number;
}

/**
 * Episodes end soon after the last thing the lab does. A cell in which no fault is at work is counted as living on for
 * this long: what the lab would have injected next is written in no telemetry. Healthy runs of up to 170 s bear it out.
 */
const livesOnMs = 120_000;

/** Rows this long after a recovery are still left out: queues and windows remember the failure. */
const settleMs = 10_000;

/**
 * The row's label, or undefined for a row that is neither: from an onset until recovery and a little beyond.
 * A lasting failure of another cause ends the watch without an event (cause-specific hazard); after one that passed, the
 * cell can still be seen to fail or not.
 */
export function labelOf(
  atMs: number,
  episode: EpisodeDescription,
  incidents: readonly Incident[],
  stepMs: number,
): RowLabel | undefined {
  let failureMs = Infinity;
  const faultAtEnd = episode.plan.kind === 'leak-to-death';
  let watchedUntilMs = Date.parse(episode.ended) + (faultAtEnd ? 0 : livesOnMs);
  for (const incident of incidents) {
    const onsetMs = Date.parse(incident.onset);
    const recoveredMs = incident.recovered === null ? Infinity : Date.parse(incident.recovered);
    if (atMs >= onsetMs && atMs < recoveredMs + settleMs) return undefined;
    if (atMs >= onsetMs) continue;
    if (incident.predictable) failureMs = onsetMs;
    else if (incident.recovered === null) watchedUntilMs = Math.min(watchedUntilMs, onsetMs);
  }
  const firstLeak = episode.plan.leakOrders.find((o) => o.bytesPerSecond > 0);
  const faultStartMs = firstLeak ? Date.parse(episode.load_started) + 1000 * firstLeak.atS : Infinity;
  if (atMs >= watchedUntilMs || atMs > Date.parse(episode.ended)) return undefined;
  if (faultAtEnd && atMs < faultStartMs) {
    failureMs = Infinity;
    watchedUntilMs = atMs + livesOnMs;
  }
  const fails = failureMs <= watchedUntilMs;
  return {
    stepsToFailure: fails ? (failureMs - atMs) / stepMs : NaN,
    stepsWatched: ((fails ? failureMs : watchedUntilMs) - atMs) / stepMs,
  };
}
