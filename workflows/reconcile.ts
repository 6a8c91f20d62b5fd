/** One look for what terminated runs left behind, and its mending; run by a Temporal Schedule, or by hand. */
import { ActivityFailure, proxyActivities, workflowInfo } from '@temporalio/workflow';
import type { Decision } from './decisions';
import type { Finding } from './findings';
import type { DecisionActivities } from './tell-decisions';

export interface ReconcileInput {
  /** Find and say, change nothing. */
  dryRun: boolean;
  graceS: number;
}

export interface Mending {
  finding: Finding;
  done: boolean;
  /** What was done, or why nothing. */
  what: string;
}

export interface ReconcileResult {
  findings: Finding[];
  mendings: Mending[];
}

export interface ReconcileActivities {
  /** Compares store, provider, traffic API and Temporal's runs, service by service. */
  lookForFindings(request: { graceS: number }): Promise<Finding[]>;
  /** Looks again first: what has passed by itself is left alone. Safe to repeat. */
  mendFinding(request: { finding: Finding; graceS: number }): Promise<{ done: boolean; what: string }>;
}

const retry = { initialInterval: '500ms', maximumInterval: '5s', maximumAttempts: 5 };
const { lookForFindings, recordDecisions } = proxyActivities<ReconcileActivities & DecisionActivities>({
  startToCloseTimeout: '1 minute',
  retry,
});
const { mendFinding } = proxyActivities<ReconcileActivities>({
  startToCloseTimeout: '2 minutes',
  heartbeatTimeout: '10s',
  // What cannot be mended now is found again at the next look.
  retry: { ...retry, maximumAttempts: 3 },
});

export async function reconcile({ dryRun, graceS }: ReconcileInput): Promise<ReconcileResult> {
  const findings = await lookForFindings({ graceS });
  if (dryRun || findings.length === 0) return { findings, mendings: [] };
  await recordDecisions(findings.map(foundDecision));
  const mendings: Mending[] = [];
  for (const finding of findings) {
    if (finding.mend === 'none') continue;
    mendings.push({ finding, ...(await mended(finding)) });
  }
  if (mendings.length > 0) await recordDecisions(mendings.map(mendedDecision));
  return { findings, mendings };

  async function mended(finding: Finding): Promise<{ done: boolean; what: string }> {
    try {
      return await mendFinding({ finding, graceS });
    } catch (err) {
      // One that resists must not keep the others.
      if (!(err instanceof ActivityFailure)) throw err;
      return { done: false, what: `could not be mended: ${err.cause?.message ?? err.message}` };
    }
  }
}

function foundDecision(finding: Finding): Decision {
  return decision(finding, finding.id, 'finding', finding.what, { finding: finding.kind, mend: finding.mend });
}

function mendedDecision({ finding, done, what }: Mending): Decision {
  const id = `${finding.id}/${finding.mend}/${done ? 'done' : 'not-done'}`;
  return decision(finding, id, 'mending', what, { finding: finding.kind, mend: finding.mend, done });
}

function decision(
  { service, cell, owner }: Finding,
  id: string,
  kind: Decision['kind'],
  what: string,
  data: Decision['data'],
): Decision {
  const { workflowId: by, runId } = workflowInfo();
  const at = new Date().toISOString();
  return { id, kind, at, service, cell, by, drill: false, what, data: { ...data, owner, runId } };
}
