/** A person's orders to a failover: as an update, which answers, or as a signal, which waits for a worker. */
import { WorkflowNotFoundError, WorkflowUpdateFailedError, type Client } from '@temporalio/client';
import type { Override, OverrideAnswer } from '../../workflows/messages';
import { failoverWorkflowId, signalNames, updateNames } from '../../workflows/messages';

/** An update that no worker takes within this time is sent as a signal, which the server keeps. */
const workerAnswersWithinMs = 3000;

/**
 * As an update, which answers; if no worker is there to answer, as a signal, which the server keeps until one is. An
 * order that arrives both ways is heard once: the second finds it in force and is refused.
 */
export async function sendOverride(
  client: Client,
  service: string,
  cell: string,
  override: Override,
): Promise<OverrideAnswer> {
  return orderFailover(client, failoverWorkflowId(service, cell), override);
}

export async function orderFailover(client: Client, failover: string, override: Override): Promise<OverrideAnswer> {
  const handle = client.workflow.getHandle(failover);
  try {
    return await client.withDeadline(Date.now() + workerAnswersWithinMs, () =>
      handle.executeUpdate<OverrideAnswer, [Override]>(updateNames.override, { args: [override] }),
    );
  } catch (err) {
    if (err instanceof WorkflowUpdateFailedError) {
      return { accepted: false, message: err.cause?.message ?? err.message };
    }
    if (err instanceof WorkflowNotFoundError) return notUnderWay(failover);
  }
  try {
    await handle.signal(signalNames.override, override);
  } catch (err) {
    if (err instanceof WorkflowNotFoundError) return notUnderWay(failover);
    throw err;
  }
  return {
    accepted: true,
    message: 'no worker answered; the order was left as a signal and is heard as soon as one runs',
  };
}

function notUnderWay(failover: string): OverrideAnswer {
  const of = failover.split('/').slice(1).join('/');
  return { accepted: false, message: `no failover of ${of} is under way; see understudy failover list --open` };
}
