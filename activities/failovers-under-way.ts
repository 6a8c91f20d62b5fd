/** Which failovers of a service come first, as Temporal's visibility lists them. */
import type { Client } from '@temporalio/client';
import type { Phase } from '../workflows/messages';
import { workflowTypes } from '../workflows/messages';
import type { Failovers } from './ports';

export interface RunningFailover {
  failover: string;
  phase: Phase | null;
  startedAtMs: number;
}

/** Of a service, those that have not ended: what is in its cooldown holds nobody up. */
export async function runningFailovers(client: Client, service: string): Promise<RunningFailover[]> {
  const query = `WorkflowType = '${workflowTypes.predictiveFailover}' AND ExecutionStatus = 'Running' AND FailoverService = '${service}'`;
  const running: RunningFailover[] = [];
  for await (const run of client.workflow.list({ query })) {
    const phase = (run.searchAttributes.FailoverPhase?.[0] as Phase | undefined) ?? null;
    if (phase === 'cooldown' || phase === 'failed-over') continue;
    // A practice never keeps a real failover waiting, and does not begin while one is under way.
    if (run.searchAttributes.FailoverKind?.[0] === 'drill') continue;
    running.push({ failover: run.workflowId, phase, startedAtMs: run.startTime.getTime() });
  }
  return running;
}

/** Those before this one: past their assessment, or waiting in it for longer. One order for all, so nobody waits in a circle. */
export function countAhead(running: readonly RunningFailover[], failover: string): number {
  const own = running.find((r) => r.failover === failover);
  const isBefore = (other: RunningFailover): boolean => {
    if (other.phase !== null && other.phase !== 'assessing') return true;
    if (!own) return true;
    if (other.startedAtMs !== own.startedAtMs) return other.startedAtMs < own.startedAtMs;
    return other.failover < failover;
  };
  return running.filter((other) => other.failover !== failover && isBefore(other)).length;
}

export function failoversUnderWay(client: Client): Failovers {
  return { ahead: async (service, failover) => countAhead(await runningFailovers(client, service), failover) };
}
