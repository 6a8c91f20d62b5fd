/** A practice prediction through the whole chain: the same failover workflow, at a small share, marked as a drill everywhere. */
import {
  ApplicationFailure,
  ParentClosePolicy,
  isCancellation,
  proxyActivities,
  startChild,
  workflowInfo,
} from '@temporalio/workflow';
import { WorkflowExecutionAlreadyStartedError, defineSearchAttributeKey } from '@temporalio/common';
import type { RiskEvent } from '../prediction/contracts';
import type { DrillPolicy } from '../blueprints/schema';
import type { Decision } from './decisions';
import { steering } from './current-details';
import type { DrillPermit } from './drill-permit';
import type { Drill, FailoverInput, FailoverResult } from './messages';
import { failoverWorkflowId, signalNames, workflowTypes } from './messages';
import type { DecisionActivities } from './tell-decisions';

export interface DrillInput {
  service: string;
  /** Which cell to practise on, whatever the policy says. */
  cell?: string;
}

/** `skipped`: nothing was begun. `overtaken`: a real prediction came and took over what the drill had made. */
export interface DrillResult {
  result: 'passed' | 'skipped' | 'overtaken';
  reason: string;
  failover: string | null;
}

export interface DrillPlay {
  ended: 'proven' | 'overtaken' | 'stuck' | 'failover-ended';
  why: string;
}

export interface DrillActivities {
  planDrill(request: DrillInput): Promise<{ permit: DrillPermit; drill: DrillPolicy }>;
  /**
   * Repeats the practice prediction until the synthetic cell has carried its share for long enough and there is room for
   * the way back; says why, if it does not come to that.
   */
  playPrediction(request: { service: string; cell: string; drill: Drill; policy: DrillPolicy }): Promise<DrillPlay>;
}

const { planDrill, recordDecisions } = proxyActivities<DrillActivities & DecisionActivities>({
  startToCloseTimeout: '30s',
  retry: { initialInterval: '500ms', maximumInterval: '5s', maximumAttempts: 10 },
});
const { playPrediction } = proxyActivities<DrillActivities>({
  startToCloseTimeout: '5 hours',
  heartbeatTimeout: '10s',
  retry: { initialInterval: '500ms', maximumInterval: '5s', maximumAttempts: 20 },
});

const kindKey = defineSearchAttributeKey('FailoverKind', 'KEYWORD');

/** Fails when the chain did not hold: its schedule then pauses until a person has looked. */
export async function failoverDrill(input: DrillInput): Promise<DrillResult> {
  const { service } = input;
  const { permit, drill: policy } = await planDrill(input);
  if (!permit.go) return told({ result: 'skipped', reason: permit.why, failover: null });
  const { cell } = permit;
  const failover = failoverWorkflowId(service, cell);
  const drill: Drill = { id: workflowInfo().runId, shareBp: policy.shareBp };
  let child;
  try {
    child = await startChild<(input: FailoverInput) => Promise<FailoverResult>>(workflowTypes.predictiveFailover, {
      workflowId: failover,
      args: [{ service, cell, drill }],
      typedSearchAttributes: [{ key: kindKey, value: 'drill' }],
      staticSummary: `DRILL ${service} / ${cell}`,
      staticDetails: steering,
      // Whatever becomes of the drill, what was begun comes to its own end.
      parentClosePolicy: ParentClosePolicy.ABANDON,
      priority: { priorityKey: 5 },
    });
  } catch (err) {
    if (!(err instanceof WorkflowExecutionAlreadyStartedError)) throw err;
    return told({ result: 'skipped', reason: `${failover} is open already`, failover });
  }
  const play = await playPrediction({ service, cell, drill, policy });
  if (play.ended === 'overtaken') return told({ result: 'overtaken', reason: play.why, failover });
  // Where it is stuck, silence lets the failover hold and then turn back by its own gates.
  if (play.ended === 'proven') await child.signal(signalNames.riskChanged, practiceEvent(input, cell, drill, 'clear'));
  let ended: FailoverResult;
  try {
    ended = await child.result();
  } catch (err) {
    if (isCancellation(err)) throw err;
    return broken(failover, `the failover of the drill did not end in order: ${(err as Error).message}`);
  }
  const { outcome, reason } = ended;
  if (play.ended === 'proven' && outcome === 'drained') {
    return told({ result: 'passed', reason: `${play.why}; given back: ${reason}`, failover });
  }
  return broken(failover, `${play.why}; the failover ended as ${outcome}: ${reason}`);

  async function told(result: DrillResult): Promise<DrillResult> {
    await recordDecisions([drillDecision(service, cellOf(result.failover), result.result, result)]);
    return result;
  }

  async function broken(of: string, reason: string): Promise<never> {
    await recordDecisions([drillDecision(service, cellOf(of), 'failed', { reason, failover: of })]);
    throw ApplicationFailure.nonRetryable(`The drill of ${service} has failed: ${reason}`, 'DrillFailed');
  }

  function cellOf(of: string | null): string {
    return of?.split('/')[2] ?? input.cell ?? '';
  }
}

function drillDecision(
  service: string,
  cell: string,
  result: string,
  { reason, failover }: { reason: string; failover: string | null },
): Decision {
  const { workflowId: by, runId } = workflowInfo();
  return {
    id: `${by}/${runId}/drill/${result}`,
    kind: 'drill',
    at: new Date().toISOString(),
    service,
    cell,
    by,
    drill: true,
    what: `the drill of ${service} ${result === 'skipped' ? 'was skipped' : `has ${result}`}: ${reason}`,
    data: { result, reason, failover, runId },
  };
}

/** What the scoring worker would say, said by nobody but the drill: the id tells it from a real one. */
export function practiceEvent(
  { service }: DrillInput,
  cell: string,
  drill: Drill,
  level: RiskEvent['level'],
  atMs = Date.now(),
): RiskEvent {
  return {
    eventId: `${drill.id}#${atMs}#${level}`,
    episodeId: drill.id,
    service,
    cell,
    at: new Date(atMs).toISOString(),
    level,
    probability: level === 'clear' ? 0 : 1,
    horizonS: 60,
    health: 'unknown',
    timeToFailureS: { p10: null, p50: null, p90: null },
    trust: 1,
    drivers: [],
    model: 'drill',
    drill: drill.id,
  };
}
