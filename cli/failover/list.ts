/** Failovers as Temporal lists them, and those that only the store still knows. */
import type { Client } from '@temporalio/client';
import type { Dossier } from '../../workflows/messages';
import { workflowTypes } from '../../workflows/messages';

export interface ListedFailover {
  failover: string;
  runId: string;
  phase: string;
  outcome: string;
  risk: number | null;
  /** Of the run in Temporal; `kept` if only the store knows it. */
  status: string;
  startedAt: string;
  drill: boolean;
}

/** The newest first. */
export async function listFailovers(client: Client, open = false): Promise<ListedFailover[]> {
  const listed: ListedFailover[] = [];
  const query = `WorkflowType = '${workflowTypes.predictiveFailover}'${open ? ` AND ExecutionStatus = 'Running'` : ''}`;
  for await (const run of client.workflow.list({ query })) {
    const of = (name: string) => run.searchAttributes[name]?.[0];
    listed.push({
      failover: run.workflowId,
      runId: run.runId,
      phase: (of('FailoverPhase') as string | undefined) ?? '',
      outcome: (of('FailoverOutcome') as string | undefined) ?? '',
      risk: (of('RiskScore') as number | undefined) ?? null,
      status: run.status.name.toLowerCase(),
      startedAt: run.startTime.toISOString(),
      drill: of('FailoverKind') === 'drill',
    });
  }
  return listed.sort((a, b) => b.startedAt.localeCompare(a.startedAt));
}

/** Dossiers of runs that Temporal's retention has taken. */
export function withKept(listed: readonly ListedFailover[], dossiers: readonly Dossier[]): ListedFailover[] {
  const known = new Set(listed.map((f) => f.runId));
  const kept = dossiers
    .filter((d) => !known.has(d.runId))
    .map((d) => ({
      failover: d.failover,
      runId: d.runId,
      phase: d.phase,
      outcome: d.outcome ?? '',
      risk: d.lastRisk?.probability ?? null,
      status: 'kept',
      startedAt: d.startedAt,
      drill: d.drill !== undefined,
    }));
  return [...listed, ...kept].sort((a, b) => b.startedAt.localeCompare(a.startedAt));
}
