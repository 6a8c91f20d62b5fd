/**
 * Keeps the idle pools full: one look at all services by schedule, and for each that lacks a cell a workflow that makes one,
 * proves it once and lays it idle. A failover may take the cell at any moment before that.
 */
import { WorkflowExecutionAlreadyStartedError } from '@temporalio/common';
import {
  ActivityCancellationType,
  ActivityFailure,
  CancellationScope,
  continueAsNew,
  isCancellation,
  ParentClosePolicy,
  proxyActivities,
  sleep,
  startChild,
  workflowInfo,
  type ActivityOptions,
} from '@temporalio/workflow';
import type { Decision } from './decisions';
import { despiteSilence } from './despite-silence';
import { poolOwner, workflowTypes } from './messages';
import type { FailoverActivities, SyntheticSubject, WarmResult } from './steps';
import type { DecisionActivities } from './tell-decisions';

export interface KeepPoolsInput {
  /** Seconds after a first failure until the next attempt; doubled each time, up to `mostBackOffS`. */
  backOffS: number;
}

export interface FillPoolInput extends KeepPoolsInput {
  service: string;
  /** Set by the workflow itself when it continues with a fresh history. */
  failures?: number;
}

export interface PoolSubject {
  service: string;
  /** The cell that is being made, and the declared one that it is made after. */
  cell: string;
  source: string;
}

/** `taken`: a failover was faster, and has it. */
export type PoolFate = { fate: 'retired' | 'taken'; by: string | null };

export interface PoolActivities {
  /** The services whose pool lacks a cell that may be made now, and those that hold one that was only begun. */
  lookAtPools(): Promise<string[]>;
  /** Decides anew, and takes the row: the one that was begun before, else a new one. Null: none is wanted any more. */
  claimPoolCell(request: { service: string }): Promise<{ claim: PoolSubject | null; why: string }>;
  makePoolCell(request: PoolSubject): Promise<{ tookMs: number }>;
  /** Answers in which phase the provider has it then. */
  restPoolCell(request: PoolSubject): Promise<{ phase: string }>;
  /** Ends what was made, unless somebody else has it. */
  discardPoolCell(request: PoolSubject): Promise<PoolFate>;
}

export const mostBackOffS = 900;

const retry = { initialInterval: '500ms', backoffCoefficient: 2, maximumInterval: '5s' } as const;
const short = proxyActivities<PoolActivities & DecisionActivities>({
  startToCloseTimeout: '1 minute',
  heartbeatTimeout: '5s',
  retry: { ...retry, maximumAttempts: 5 },
});
const longWork: ActivityOptions = {
  startToCloseTimeout: '10 minutes',
  cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
  // A worker that dies costs an attempt; a cell that cannot be made is tried again later, and anew.
  retry: { ...retry, maximumAttempts: 3 },
};
const longWorkMs = 1_800_000;
const patiently = <T>(run: (options: ActivityOptions) => Promise<T>) =>
  despiteSilence(longWorkMs, (limits) => run({ ...longWork, ...limits }));
const long = proxyActivities<PoolActivities & Pick<FailoverActivities, 'warmSyntheticCell'>>(longWork);

export async function keepPools({ backOffS }: KeepPoolsInput): Promise<string[]> {
  const begun: string[] = [];
  for (const service of await short.lookAtPools()) {
    try {
      await startChild<(input: FillPoolInput) => Promise<string>>(workflowTypes.fillPool, {
        workflowId: poolOwner(service),
        parentClosePolicy: ParentClosePolicy.ABANDON,
        args: [{ service, backOffS }],
        staticSummary: `${service}: makes a cell for the idle pool`,
      });
      begun.push(service);
    } catch (err) {
      // It is at it, or waits before it tries again.
      if (!(err instanceof WorkflowExecutionAlreadyStartedError)) throw err;
    }
  }
  return begun;
}

/** Until one cell waits idle, or none is wanted any more. Answers in a sentence what became of it. */
export async function fillPool({ service, backOffS, failures = 0 }: FillPoolInput): Promise<string> {
  for (let failed = failures; ;) {
    const { claim, why } = await short.claimPoolCell({ service });
    if (!claim) return why;
    const made = await attempt(claim);
    if (made.result !== 'not-made') {
      await tell(claim, made);
      return made.reason;
    }
    failed += 1;
    const waitS = Math.min(mostBackOffS, backOffS * 2 ** (failed - 1));
    await tell(claim, { ...made, retryAt: new Date(Date.now() + waitS * 1000).toISOString() });
    await sleep(waitS * 1000, { summary: `waits before it tries again: ${made.reason}`.slice(0, 180) });
    if (workflowInfo().continueAsNewSuggested)
      await continueAsNew<typeof fillPool>({ service, backOffS, failures: failed });
  }
}

interface Made {
  result: 'idle' | 'taken' | 'not-made';
  reason: string;
  evidence?: WarmResult;
  retryAt?: string;
}

async function attempt(claim: PoolSubject): Promise<Made> {
  const { service, cell, source } = claim;
  try {
    const { tookMs } = await patiently((options) => long.makePoolCell.executeWithOptions(options, [claim]));
    const subject: SyntheticSubject = {
      failover: poolOwner(service),
      service,
      cell: source,
      syntheticCell: cell,
      key: workflowInfo().runId,
      reason: 'made for the idle pool',
    };
    const evidence = await patiently((options) => long.warmSyntheticCell.executeWithOptions(options, [subject]));
    if (!evidence.passed) return await discarded(claim, `it did not get warm: ${evidence.summary}`);
    const { phase } = await patiently((options) => long.restPoolCell.executeWithOptions(options, [claim]));
    const rests = phase === 'idle' ? 'lies idle' : `rests (${phase})`;
    return {
      result: 'idle',
      reason: `${cell} ${rests}, ready after ${tookMs / 1000} s; ${evidence.summary}`,
      evidence,
    };
  } catch (err) {
    const reason = err instanceof ActivityFailure ? (err.cause?.message ?? err.message) : String(err);
    const fate = await CancellationScope.nonCancellable(() => discarded(claim, reason));
    if (isCancellation(err) || !(err instanceof ActivityFailure)) throw err;
    return fate;
  }
}

async function discarded(claim: PoolSubject, reason: string): Promise<Made> {
  try {
    const { fate, by } = await short.discardPoolCell(claim);
    if (fate === 'taken') return { result: 'taken', reason: `${claim.cell} was taken by ${by ?? 'a failover'}` };
    return { result: 'not-made', reason };
  } catch (err) {
    if (!(err instanceof ActivityFailure)) throw err;
    // It is still the pool's: the next attempt takes it up, or ends it.
    return { result: 'not-made', reason: `${reason}; and it could not be ended: ${err.cause?.message ?? err.message}` };
  }
}

async function tell({ service, cell, source }: PoolSubject, made: Made): Promise<void> {
  const { workflowId: by, runId } = workflowInfo();
  const at = new Date().toISOString();
  const what = {
    idle: `a cell waits idle for ${service}: ${made.reason}`,
    taken: `${made.reason} before it lay idle in the pool of ${service}`,
    'not-made': `no cell could be made for the idle pool of ${service}: ${made.reason}`,
  }[made.result];
  const data = { runId, ...made, source };
  const decision: Decision = {
    ...{ id: `${by}/${runId}/pool/${cell}/${at}`, kind: 'pool', at, service, cell, by, drill: false, what },
    data,
  };
  await short.recordDecisions([decision]);
}
