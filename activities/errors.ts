/** Tells Temporal which failures a retry can mend: what was refused stays refused, everything else may pass. */
import { ApplicationFailure } from '@temporalio/common';
import type { ActivityExecuteInput, ActivityInboundCallsInterceptor, Next } from '@temporalio/worker';
import { RefusedError } from '../blueprints/records';

export class FailureMapping implements ActivityInboundCallsInterceptor {
  async execute(input: ActivityExecuteInput, next: Next<ActivityInboundCallsInterceptor, 'execute'>): Promise<unknown> {
    try {
      return await next(input);
    } catch (err) {
      throw asFailure(err);
    }
  }
}

/** RefusedError: asked again, the answer is the same. Everything else keeps its name and is tried again. */
export function asFailure(err: unknown): unknown {
  if (!(err instanceof RefusedError)) return err;
  return ApplicationFailure.create({ message: err.message, type: err.name, nonRetryable: true, cause: err });
}
