/** Replays every history of our workflows that a server holds: whatever a test made of them, they must replay. */
import { Client, type Connection } from '@temporalio/client';
import { Worker } from '@temporalio/worker';
import { workflowTypes } from '../../workflows/messages';
import { quietRuntime, workflowBundle } from './failover-bench';

/** Throws with every history that does not, by workflow id and run. Answers how many were replayed. */
export async function replayHistoriesOf(client: Client): Promise<number> {
  quietRuntime();
  const types = Object.values(workflowTypes).map((type) => `'${type}'`);
  const failed: string[] = [];
  let replayed = 0;
  for await (const { workflowId, runId } of client.workflow.list({ query: `WorkflowType IN (${types.join(', ')})` })) {
    const history = await client.workflow.getHandle(workflowId, runId).fetchHistory();
    try {
      await Worker.runReplayHistory({ workflowBundle: await workflowBundle() }, history, workflowId);
      replayed += 1;
    } catch (error) {
      failed.push(`${workflowId} (${runId}): ${(error as Error).message}`);
    }
  }
  if (failed.length > 0) throw new Error(`${failed.length} histories do not replay:\n${failed.join('\n')}`);
  return replayed;
}

export async function replayHistoriesAt(connection: Connection, namespace: string): Promise<number> {
  return replayHistoriesOf(new Client({ connection, namespace }));
}
