/**
 * A person's orders to a failover: as a signal, which the server keeps until a worker is there; the answer is read from the
 * dossier. An update would answer by itself, but one that meets a worker which has just started may leave a history that
 * cannot be replayed (seen once here with SDK 1.24; the like is reported in temporalio/sdk-python#1591).
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { WorkflowNotFoundError, type Client } from '@temporalio/client';
import type { Dossier, Override, OverrideAnswer } from '../../workflows/messages';
import { failoverWorkflowId, queryNames, signalNames } from '../../workflows/messages';

/** Without a worker nobody answers; the order waits then. */
const workerAnswersWithinMs = 3000;
const askEveryMs = 50;

export async function sendOverride(
  client: Client,
  service: string,
  cell: string,
  override: Override,
): Promise<OverrideAnswer> {
  return orderFailover(client, failoverWorkflowId(service, cell), override);
}

export interface OrderAnswer extends OverrideAnswer {
  /** Nothing is under way that could be steered. */
  isOver?: true;
}

/** What follows, or why not. Sent again it is heard again, and refused if it is in force already. */
export async function orderFailover(client: Client, failover: string, override: Override): Promise<OrderAnswer> {
  const handle = client.workflow.getHandle(failover);
  const id = randomUUID();
  try {
    await handle.signal(signalNames.override, { ...override, id });
  } catch (err) {
    if (err instanceof WorkflowNotFoundError) return notUnderWay(failover);
    throw err;
  }
  const deadline = Date.now() + workerAnswersWithinMs;
  do {
    // The query sees every signal that the server took before it.
    const dossier = await client
      .withDeadline(deadline, () => handle.query<Dossier>(queryNames.dossier))
      .catch(() => undefined);
    const answer = dossier && answerIn(dossier, id);
    if (answer) return answer;
    await sleep(askEveryMs);
  } while (Date.now() < deadline);
  return { accepted: true, message: 'no worker answered; the order was left and is heard as soon as one runs' };
}

function answerIn({ entries }: Dossier, id: string): OverrideAnswer | undefined {
  const heard = entries.findLast(({ evidence }) => (evidence?.['override'] as Override | undefined)?.id === id);
  return heard?.evidence?.['answer'] as OverrideAnswer | undefined;
}

function notUnderWay(failover: string): OrderAnswer {
  const of = failover.split('/').slice(1).join('/');
  return {
    accepted: false,
    isOver: true,
    message: `no failover of ${of} is under way; see understudy failover list --open`,
  };
}
