/** All that is to be read of one run of a failover: its dossier and every risk it was told, from whoever still knows. */
import { WorkflowNotFoundError, isGrpcServiceError, type Client } from '@temporalio/client';
import { defaultPayloadConverter, type Payload } from '@temporalio/common';
import type { History } from '@temporalio/common/lib/proto-utils';
import type { Settings } from '../../blueprints/settings';
import type { RiskEvent, RiskLevel } from '../../prediction/contracts';
import { queryNames, signalNames, type Dossier } from '../../workflows/messages';
import { withStore } from '../temporal';
import { replayedDossier } from './replayed-dossier';

const workerAnswersWithinMs = 3000;
/** gRPC's status. */
const notFound = 5;

export interface RiskPoint {
  at: string;
  probability: number;
  level: RiskLevel;
}

export interface Story {
  dossier: Dossier;
  /** Who told it: the run itself, its history replayed here, what the history says was kept, or the store. */
  from: 'run' | 'replay' | 'history' | 'store';
  /** In the order of time. */
  risks: RiskPoint[];
}

/** Of the newest run, or of the one that is named. Throws if nobody knows of it. */
export async function readStory(client: Client, settings: Settings, failover: string, runId?: string): Promise<Story> {
  const history = await historyOf(client, failover, runId);
  const told =
    (history && (await fromTemporal(client, history, failover, runId))) ?? (await fromStore(settings, failover, runId));
  if (!told) {
    throw new Error(
      `there is no failover ${failover}${runId ? ` with run ${runId}` : ''}: neither Temporal nor the store knows it; see understudy failover list`,
    );
  }
  return { ...told, risks: risksOf(told.dossier, history) };
}

async function historyOf(client: Client, failover: string, runId?: string): Promise<History | null> {
  try {
    return await client.workflow.getHandle(failover, runId).fetchHistory();
  } catch (err) {
    const isUnknown =
      err instanceof WorkflowNotFoundError || (isGrpcServiceError(err) && Number(err.code) === notFound);
    if (isUnknown || /invalid UUID|Invalid RunId/i.test(String((err as Error).message))) return null;
    throw err;
  }
}

async function fromTemporal(
  client: Client,
  history: History,
  failover: string,
  runId?: string,
): Promise<Omit<Story, 'risks'> | null> {
  const isOpen = (await client.workflow.getHandle(failover, runId).describe()).status.name === 'RUNNING';
  if (isOpen) {
    const query = () => client.workflow.getHandle(failover, runId).query<Dossier>(queryNames.dossier);
    const dossier = await client.withDeadline(Date.now() + workerAnswersWithinMs, query).catch(() => null);
    if (dossier) return { dossier, from: 'run' };
  }
  try {
    return { dossier: await replayedDossier(history, failover), from: 'replay' };
  } catch {
    // A history of another version: what it kept at its end is in it all the same.
    const dossier = keptIn(history);
    return dossier && { dossier, from: 'history' };
  }
}

function fromStore(settings: Settings, failover: string, runId?: string): Promise<Omit<Story, 'risks'> | null> {
  return withStore(settings, async (store) => {
    const dossier = await store.dossier(failover, runId);
    return dossier ? { dossier, from: 'store' } : null;
  });
}

/** What the last `saveDossier` was given. */
export function keptIn(history: History): Dossier | null {
  const kept = (history.events ?? [])
    .map((event) => event.activityTaskScheduledEventAttributes)
    .filter((scheduled) => scheduled?.activityType?.name === 'saveDossier')
    .at(-1);
  return (firstOf(kept?.input?.payloads) as Dossier | undefined) ?? null;
}

/** Every risk that the history heard; from before it, or without it, those that made a line in the dossier. */
export function risksOf(dossier: Dossier, history: History | null): RiskPoint[] {
  const points = new Map<string, RiskPoint>();
  const add = (event: Partial<RiskEvent> | null | undefined): void => {
    const { at, probability, level } = event ?? {};
    if (typeof at === 'string' && typeof probability === 'number' && level) points.set(at, { at, probability, level });
  };
  add(dossier.firstRisk);
  for (const entry of dossier.entries) {
    const level = /^risk is now at level (clear|prepare|shift)/.exec(entry.what)?.[1] as RiskLevel | undefined;
    const probability = entry.evidence?.probability;
    if (level && typeof probability === 'number') add({ at: entry.at, probability, level });
  }
  for (const { workflowExecutionSignaledEventAttributes: signal } of history?.events ?? []) {
    if (signal?.signalName !== signalNames.riskChanged) continue;
    add(firstOf(signal.input?.payloads) as RiskEvent | undefined);
  }
  add(dossier.lastRisk);
  return [...points.values()].sort((a, b) => a.at.localeCompare(b.at));
}

function firstOf(payloads: Payload[] | null | undefined): unknown {
  const payload = payloads?.[0];
  if (!payload) return undefined;
  try {
    return defaultPayloadConverter.fromPayload(payload);
  } catch {
    return undefined;
  }
}
