/** Which failovers of a service come first, as Temporal's visibility lists them. */
import type { Client } from '@temporalio/client';
import type { Phase } from '../workflows/messages';
import { causeMemo, workflowTypes } from '../workflows/messages';
import type { Failovers, Predicted } from './ports';

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

/** More than this many at once trip every breaker there is. */
const mostListed = 500;

/** Failovers of the whole fleet that have not ended: each stands for a cell that is predicted to fail. */
export async function predictedCells(client: Client): Promise<Predicted[]> {
  const query = `WorkflowType = '${workflowTypes.predictiveFailover}' AND ExecutionStatus = 'Running'`;
  const predicted: Predicted[] = [];
  for await (const run of client.workflow.list({ query })) {
    const of = (name: string) => run.searchAttributes[name]?.[0];
    const phase = of('FailoverPhase') as Phase | undefined;
    const cell = (of('FailoverCell') as string | undefined) ?? run.workflowId.split('/')[2];
    if (cell === undefined || phase === 'cooldown' || phase === 'failed-over' || of('FailoverKind') === 'drill')
      continue;
    const cause = run.memo?.[causeMemo] as { metric?: string | null; model?: string | null } | undefined;
    predicted.push({
      cell,
      sinceMs: run.startTime.getTime(),
      isActive: phase !== undefined && phase !== 'assessing',
      metric: cause?.metric ?? null,
      model: cause?.model ?? null,
    });
    if (predicted.length >= mostListed) break;
  }
  return predicted;
}

/** A list that takes longer than this is of no use to anybody who waits for it. */
const listWithinMs = 10_000;

export function failoversUnderWay(client: Client): Failovers {
  const predicted = oneForAll(() => client.withDeadline(Date.now() + listWithinMs, () => predictedCells(client)));
  return {
    predicted,
    ahead: async (service, failover) => countAhead(await runningFailovers(client, service), failover),
  };
}

/**
 * Whoever asks while an answer is on its way gets that one. Fifty failovers that begin at once would ask for the same
 * list fifty times; on a machine short of CPU Temporal answered none of them in 30 s, and again none of their retries.
 */
export function oneForAll<T>(ask: () => Promise<T>): () => Promise<T> {
  let onItsWay: Promise<T> | null = null;
  return () => (onItsWay ??= ask().finally(() => (onItsWay = null)));
}
