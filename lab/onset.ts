/** When users began to suffer: the one definition of failure, applied to what callers measured. */

/** One second of one cell, seen from outside. */
export interface MeasuredSecond {
  /** Start of the second, milliseconds since the epoch. */
  atMs: number;
  requests: number;
  failed: number;
  p99Ms: number | null;
  /** Instances whose process had ended by the end of this second. */
  deadInstances: number;
}

export interface FailureDefinition {
  sloMs: number;
  /** From this share of failed requests on, the second is bad. */
  errorRatio: number;
  /** So many bad seconds in a row are a failure; it began with the first. */
  consecutive: number;
}

function isBad(second: MeasuredSecond, definition: FailureDefinition): boolean {
  if (second.deadInstances > 0) return true;
  if (second.requests === 0) return false;
  return (
    second.failed / second.requests >= definition.errorRatio ||
    (second.p99Ms !== null && second.p99Ms >= definition.sloMs)
  );
}

export interface FailureSpan {
  onsetMs: number;
  /** Undefined if it still lasted when the measurements ended. */
  recoveredMs: number | undefined;
}

/**
 * Every failure in the steps, which must be in order: it begins with the first of `consecutive` bad ones in a row and is
 * over with the first of as many good ones.
 */
export function findSpans(steps: readonly { atMs: number; bad: boolean }[], consecutive: number): FailureSpan[] {
  const spans: FailureSpan[] = [];
  let badInARow = 0;
  let goodInARow = 0;
  let open: FailureSpan | undefined;
  for (const [index, { atMs, bad }] of steps.entries()) {
    badInARow = bad ? badInARow + 1 : 0;
    goodInARow = bad ? 0 : goodInARow + 1;
    if (!open && badInARow >= consecutive) {
      open = { onsetMs: steps[index - badInARow + 1]?.atMs ?? atMs, recoveredMs: undefined };
      spans.push(open);
    }
    if (open && goodInARow >= consecutive) {
      open.recoveredMs = steps[index - goodInARow + 1]?.atMs ?? atMs;
      open = undefined;
    }
  }
  return spans;
}

/** Every failure in the seconds, which must be in order and without gaps. */
export function findFailures(seconds: readonly MeasuredSecond[], definition: FailureDefinition): FailureSpan[] {
  const steps = seconds.map((second) => ({ atMs: second.atMs, bad: isBad(second, definition) }));
  return findSpans(steps, definition.consecutive);
}
