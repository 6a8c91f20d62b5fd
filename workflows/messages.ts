/** The messages of `PredictiveFailover`: what starts it, what it is told, what it answers. Plain data, shared with clients. */
import type { RiskEvent } from '../prediction/contracts';
import type { Failover } from './failover';
import type { TimedStep } from './fleet';
import type { Label } from './label';
import type { PlanKind } from './plan';

export const phases = [
  'assessing',
  'provisioning',
  'warming',
  'armed',
  'canary',
  'shifting',
  'failed-over',
  'draining',
  'cooldown',
] as const;
export type Phase = (typeof phases)[number];

export const outcomes = ['failed-over', 'drained', 'refused', 'aborted', 'compensated'] as const;
export type Outcome = (typeof outcomes)[number];

export interface FailoverInput {
  service: string;
  /** The source: the cell that is predicted to fail. */
  cell: string;
  /** Set for a practice prediction: the whole chain at a small share. A real prediction ends the practice at once. */
  drill?: Drill;
  /** Set by the workflow itself when a new risk episode ends the cooldown of the run before. */
  firstRisk?: RiskEvent;
  /** Set by the workflow itself when a long run continues with a fresh history: all it knows. */
  continuing?: Failover;
}

/** What makes a failover a drill. */
export interface Drill {
  /** Run id of the drill that plays the prediction; its practice risk events carry it. */
  id: string;
  /** Largest share of the service the synthetic cell may take, in basis points. */
  shareBp: number;
}

/** One workflow per source cell, so that two failovers of one cell cannot exist. */
export function failoverWorkflowId(service: string, cell: string): string {
  return `failover/${service}/${cell}`;
}

/**
 * The workflow that makes a cell for the idle pool of a service, and with it the owner of what it makes: one at a time. What
 * it holds, a failover may take.
 */
export function poolOwner(service: string): string {
  return `pool/${service}`;
}

export interface FailoverResult {
  outcome: Outcome;
  reason: string;
}

export const overrideActions = ['approve', 'hold', 'resume', 'step', 'complete', 'drain', 'abort', 'promote'] as const;
export type OverrideAction = (typeof overrideActions)[number];

/** What a person orders, by signal or update; both go through the same pure function. */
export interface Override {
  action: OverrideAction;
  by: string;
  reason: string;
  /** For `step`: the share of the service the synthetic cell is to carry, in basis points. */
  shareBp?: number;
  /** By it whoever sends a signal finds the answer in the dossier. */
  id?: string;
}

export interface OverrideAnswer {
  accepted: boolean;
  /** Why not, or what follows. */
  message: string;
}

export const signalNames = { riskChanged: 'riskChanged', override: 'override' } as const;
export const updateNames = { override: 'override' } as const;
export const queryNames = { dossier: 'dossier' } as const;
export const workflowTypes = {
  predictiveFailover: 'PredictiveFailover',
  telemetrySupervision: 'TelemetrySupervision',
  failureDetection: 'FailureDetection',
  reconcile: 'Reconcile',
  failoverDrill: 'FailoverDrill',
  keepPools: 'KeepPools',
  fillPool: 'FillPool',
  lookAfterCells: 'LookAfterCells',
} as const;

/** Key of the memo that tells other failovers what the risk is put down to. */
export const causeMemo = 'FailoverCause';

/** Search attributes, registered on the server under these names and types. */
export const searchAttributes = {
  FailoverPhase: 'KEYWORD',
  FailoverService: 'KEYWORD',
  FailoverCell: 'KEYWORD',
  FailoverOutcome: 'KEYWORD',
  RiskScore: 'DOUBLE',
  /** `drill`, set at the start of practice predictions; absent from real ones. */
  FailoverKind: 'KEYWORD',
} as const;

/** One line of the dossier: what happened, why, and the evidence. */
export interface DossierEntry {
  /** ISO 8601, workflow time. */
  at: string;
  phase: Phase;
  /** One sentence for a person. */
  what: string;
  evidence?: Record<string, unknown>;
}

/** Everything that explains a failover. Answered by the query `dossier` and kept in Postgres when the run ends. */
export interface Dossier {
  failover: string;
  runId: string;
  service: string;
  cell: string;
  /** Present in a drill: nothing in it is a real prediction, nor a label to learn from. */
  drill?: Drill;
  syntheticCell: string | null;
  startedAt: string;
  endedAt: string | null;
  phase: Phase;
  outcome: Outcome | null;
  reason: string | null;
  /** When each phase was entered. */
  phaseTimes: { phase: Phase; at: string }[];
  /** Null only until the first risk has been told. */
  firstRisk: RiskEvent | null;
  lastRisk: RiskEvent | null;
  /** Traffic steps that were commanded, in order. */
  steps: { at: string; epoch: number; split: Record<string, number>; reason: string; acknowledgedBy: number }[];
  /** The last plan; those before it are among the entries. */
  plan?: PlanKind;
  /** Whether the prediction was right, as far as can be said. */
  label?: Label;
  /** Why a person was called. */
  pages?: { at: string; why: string }[];
  /** How long steps took, in milliseconds: later plans are made from it. */
  took?: { step: TimedStep; ms: number }[];
  entries: DossierEntry[];
}
