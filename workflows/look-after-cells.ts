/**
 * One look at all cells, by schedule: what a crash left behind, and where declared cells have drifted from their blueprints.
 * Each of the two goes on though the other cannot.
 */
import { ActivityFailure, proxyActivities, workflowInfo } from '@temporalio/workflow';
import type { FoundDrift } from '../cells/look-for-drift';
import type { SweptCell } from '../cells/sweep';
import type { Decision } from './decisions';
import type { DecisionActivities } from './tell-decisions';

export interface LookAfterCellsInput {
  /** Orphans are removed; else they are only told. */
  remove: boolean;
}

export interface LookAfterCellsResult {
  orphans: number;
  removed: number;
  drifted: number;
  /** What could not be looked at. */
  trouble: string[];
}

export interface LookAfterCellsActivities {
  /** Kept in the store as the last look. Answers the orphans only. */
  sweepCells(request: { remove: boolean }): Promise<{ orphans: SweptCell[]; trouble: string[] }>;
  /** The same; answers the cells that have drifted. */
  lookForDrift(): Promise<{ drifted: FoundDrift[]; trouble: string[] }>;
}

const { sweepCells, lookForDrift, recordDecisions } = proxyActivities<LookAfterCellsActivities & DecisionActivities>({
  startToCloseTimeout: '10 minutes',
  heartbeatTimeout: '10s',
  // What cannot be looked at now is looked at the next time.
  retry: { initialInterval: '1s', maximumAttempts: 3 },
});

export async function lookAfterCells({ remove }: LookAfterCellsInput): Promise<LookAfterCellsResult> {
  const [sweep, drift] = await Promise.all([
    sweepCells({ remove }).catch((err: unknown) => ({ orphans: [], trouble: [whyOf(err)] })),
    lookForDrift().catch((err: unknown) => ({ drifted: [], trouble: [whyOf(err)] })),
  ]);
  const decisions = [...sweep.orphans.flatMap(orphanDecisions), ...drift.drifted.flatMap(driftDecisions)];
  if (decisions.length > 0) await recordDecisions(decisions);
  return {
    orphans: sweep.orphans.length,
    removed: sweep.orphans.filter(({ removed }) => removed === true).length,
    drifted: drift.drifted.length,
    trouble: [...sweep.trouble, ...drift.trouble],
  };
}

function whyOf(err: unknown): string {
  if (!(err instanceof ActivityFailure)) throw err;
  return err.cause?.message ?? err.message;
}

/** The same orphan is told once when it is found, and once when it has gone. */
function orphanDecisions({ provider, cell, service, owner, why, removed, trouble }: SweptCell): Decision[] {
  const id = `finding/orphan/${provider}/${cell}`;
  const data = { finding: 'orphan', provider, owner };
  const what = `${provider} keeps ${cell} for ${owner || 'nobody'}: ${why}`;
  const found = decision({ id, kind: 'finding', service, cell, what, data });
  if (removed === null) return [found];
  const done = removed ? `${cell} was removed` : `${cell} could not be removed: ${trouble}`;
  const mend = { id: `${id}/${removed ? 'done' : 'not-done'}`, kind: 'mending' as const, what: done };
  return [found, decision({ ...mend, service, cell, data: { ...data, mend: 'destroy', done: removed } })];
}

/** Told once for each version of the blueprint: it is either mended there, or in the cell. */
function driftDecisions({ cell, service, blueprint, drift }: FoundDrift): Decision[] {
  return drift.map(({ path, matters, text }) =>
    decision({
      id: `finding/drift/${cell}/${blueprint}/${path}`,
      kind: 'finding',
      service,
      cell,
      what: `${cell} has drifted from ${blueprint} at ${path} (${matters}): ${text}`,
      data: { finding: 'drift', blueprint, path, matters },
    }),
  );
}

function decision(of: Pick<Decision, 'id' | 'kind' | 'service' | 'cell' | 'what' | 'data'>): Decision {
  const { workflowId: by, runId } = workflowInfo();
  return { ...of, at: new Date().toISOString(), by, drill: false, data: { ...of.data, runId } };
}
