/** When callers began to suffer: the definition of failure (lab/onset.ts) applied to measured steps, dead processes included. */
import { findSpans, type FailureSpan } from '../onset';
import type { MeasuredStep } from './cell-load';

/** From this share of failed requests on, a step is bad. */
const errorRatio = 0.05;
/** A step that holds a failed request is judged with those before it, since it holds only some requests. */
const shortWindowMs = 5000;
/** Where few requests come, errors are rare in any one step and many all the same: so many of them are needed here. */
const longWindowMs = 10_000;
const fewestInLongWindow = 3;
export const consecutive = 3;
/** A step in which the load itself was late by this much says nothing about the cell. */
export const heldTooLongMs = 150;

function countedBack(
  steps: readonly MeasuredStep[],
  index: number,
  count: number,
): { requests: number; failed: number } {
  let requests = 0;
  let failed = 0;
  for (let i = Math.max(0, index + 1 - count); i <= index; i++) {
    requests += steps[i]?.requests ?? 0;
    failed += steps[i]?.failed ?? 0;
  }
  return { requests, failed };
}

/** Whether the step is bad; undefined if it says nothing: no requests in it, or the load was held up. */
function isBad(steps: readonly MeasuredStep[], index: number, stepMs: number): boolean | undefined {
  const step = steps[index];
  if (!step || step.requests === 0 || step.heldMs >= heldTooLongMs) return undefined;
  // With fewer than 100 requests in a step its p99 is its slowest request; three such steps in a row are no accident.
  if (step.slow > 0.01 * step.requests) return true;
  const short = countedBack(steps, index, shortWindowMs / stepMs);
  if (step.failed > 0 && short.failed / short.requests >= errorRatio) return true;
  const long = countedBack(steps, index, longWindowMs / stepMs);
  return long.failed >= fewestInLongWindow && long.failed / long.requests >= errorRatio;
}

/**
 * Every failure of one cell. `steps` are in order and without gaps.
 *
 * @param deadSinceMs when the process ended without being asked to, milliseconds since the epoch; undefined if it did not
 */
export function failuresOf(
  steps: readonly MeasuredStep[],
  stepMs: number,
  deadSinceMs: number | undefined,
): FailureSpan[] {
  const verdicts = steps.flatMap((step, index) => {
    const dead = deadSinceMs !== undefined && step.atMs + stepMs > deadSinceMs;
    const bad = dead || isBad(steps, index, stepMs);
    return bad === undefined ? [] : [{ atMs: step.atMs, bad }];
  });
  return findSpans(verdicts, consecutive);
}
