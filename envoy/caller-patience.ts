/** For how long a caller can still be answered: until its deadline, less the time that the answer takes to reach it. */
import type { ServerUnaryCall } from '@grpc/grpc-js';

export interface Patience {
  /** Unix milliseconds by which the answer must be on its way; Infinity for a caller without a deadline. */
  answerBy: number;
  hasLeft: () => boolean;
}

/** Nobody waits in person: what is left open is finished in its own time. */
export const unhurried: Patience = { answerBy: Infinity, hasLeft: () => false };

/** Kept of what is left when the call comes, but not more than that. */
const answerPart = 0.2;
const answerMs = 1000;

export function patienceOf(call: Pick<ServerUnaryCall<unknown, unknown>, 'getDeadline' | 'cancelled'>): Patience {
  const deadline = call.getDeadline();
  const at = deadline instanceof Date ? deadline.getTime() : deadline;
  const leftMs = at - Date.now();
  const answerBy = Number.isFinite(leftMs) ? at - Math.min(answerMs, answerPart * Math.max(0, leftMs)) : Infinity;
  return { answerBy, hasLeft: () => call.cancelled };
}

/** What of a wanted wait the caller can still be answered after, in milliseconds. */
export function waitWithin({ answerBy }: Patience, wantedMs: number): number {
  return Math.max(0, Math.min(wantedMs, answerBy - Date.now()));
}
