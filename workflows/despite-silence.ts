/** Long activities of which nothing is heard for a while: the silence is the worker's, and says nothing of the step. */
import { TimeoutType } from '@temporalio/common';
import { ActivityFailure, patched, TimeoutFailure, type ActivityOptions } from '@temporalio/workflow';

/** How long no heartbeat may come, at first and after all attempts of before were missed, in milliseconds. */
export const silences = [5_000, 15_000, 45_000] as const;

/**
 * Runs the activity again where its last attempt was given up for want of heartbeats, each time with more patience. A dead
 * worker is noticed within seconds; one that lives without time to say so, as on a machine that everybody needs at once,
 * still gets its work done. All of it together takes no longer than `withinMs`; every other failure is passed on.
 */
export async function despiteSilence<T>(
  withinMs: number,
  run: (limits: Pick<ActivityOptions, 'heartbeatTimeout' | 'scheduleToCloseTimeout'>) => Promise<T>,
  now: () => number = Date.now,
  // Histories from before took it for a failure of the step.
  isKnown: () => boolean = () => patched('silence-is-no-failure'),
): Promise<T> {
  const deadline = now() + withinMs;
  for (let round = 0; ; round += 1) {
    const heartbeatTimeout = silences[Math.min(round, silences.length - 1)]!;
    try {
      return await run({ heartbeatTimeout, scheduleToCloseTimeout: deadline - now() });
    } catch (err) {
      if (!isSilence(err) || now() >= deadline || !isKnown()) throw err;
    }
  }
}

function isSilence(err: unknown): boolean {
  const cause = err instanceof ActivityFailure ? err.cause : undefined;
  return cause instanceof TimeoutFailure && cause.timeoutType === TimeoutType.HEARTBEAT;
}
