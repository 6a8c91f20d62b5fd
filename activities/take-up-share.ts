/** Begins a failover anew without a risk: it takes up the share that it finds at a stand-in, and gives it back by its own gates. */
import type { Client } from '@temporalio/client';
import type { CellRecord } from '../blueprints/records';
import type { ConfigurationStore } from '../blueprints/store';
import type { RiskEvent } from '../prediction/contracts';
import { steering } from '../workflows/current-details';
import { failoverWorkflowId, signalNames, workflowTypes } from '../workflows/messages';

export interface ShareToTakeUp {
  standIn: Pick<CellRecord, 'name' | 'owner' | 'service'>;
  source: string;
  /** Told again under the same id it is heard once. */
  id: string;
  /** Who says that there is no risk. */
  by: string;
  summary: string;
}

/** Answers the failover's id. Killed after the claim it leaves a claim without a run, which the reconciliation takes up. */
export async function takeUpShare(
  { client, store, taskQueue }: { client: Client; store: Pick<ConfigurationStore, 'updateCell'>; taskQueue: string },
  { standIn, source, id, by, summary }: ShareToTakeUp,
): Promise<string> {
  const { service } = standIn;
  const failover = failoverWorkflowId(service, source);
  if (standIn.owner !== failover) await store.updateCell(standIn.name, { owner: failover }, standIn.owner);
  await client.workflow.signalWithStart(workflowTypes.predictiveFailover, {
    workflowId: failover,
    taskQueue,
    args: [{ service, cell: source }],
    staticSummary: `${service} / ${source}: ${summary}`.slice(0, 180),
    staticDetails: steering,
    signal: signalNames.riskChanged,
    signalArgs: [noRisk(service, source, id, by)],
  });
  return failover;
}

function noRisk(service: string, cell: string, id: string, model: string): RiskEvent {
  return {
    ...{ eventId: id, episodeId: id, service, cell, at: new Date().toISOString(), level: 'clear', probability: 0 },
    ...{ horizonS: 60, health: 'unknown', trust: 1, drivers: [], model },
    timeToFailureS: { p10: null, p50: null, p90: null },
  };
}
