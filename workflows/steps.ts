/** The steps a failover can take, and what the activities that carry them out are told and answer. */
import type { RiskEvent } from '../prediction/contracts';
import type { FleetFacts } from './fleet';
import type { Baselines, Measures } from './canary';
import type { FailoverContext, Judgement, ShiftPurpose, SourceState, Totals } from './failover';
import type { DecisionActivities } from './tell-decisions';
import type { Dossier, Drill, Outcome, Phase } from './messages';

interface Because {
  /** The phase the failover is in while it takes the step. */
  phase: Phase;
  /** One sentence for a person; without figures that change from event to event. */
  why: string;
}

export interface ShiftStep extends Because {
  kind: 'shift';
  purpose: ShiftPurpose;
  /** What the synthetic cell is to carry afterwards, in basis points of the service. */
  targetBp: number;
  /** How many of its instances stay behind as cover. */
  coverInstances: number;
}

export interface WatchStep extends Because {
  kind: 'watch';
  /** Workflow time at which the decision may change without anything having been seen. */
  untilMs: number;
  /** The judgement that is to be settled or, once settled, kept under watch. */
  judgement: Judgement | null;
  /** The watch ends when the source is seen to be in another state. */
  known: SourceState;
}

export interface WaitStep extends Because {
  kind: 'wait';
  /** Null: only a message can change the decision. */
  untilMs: number | null;
}

export type Step =
  | (Because & { kind: 'load' | 'await-turn' | 'survey' | 'ensure' | 'warm' | 'arm' })
  | (Because & { kind: 'rest' | 'retire'; outcome: Outcome })
  | ShiftStep
  | WatchStep
  | WaitStep
  | (Because & { kind: 'conclude'; outcome: Outcome; reason: string })
  | (Because & { kind: 'save' | 'label' })
  | (Because & { kind: 'begin-anew'; event: RiskEvent })
  | (Because & { kind: 'finish' });

/** Which failover asks, for which cell. */
export interface Subject {
  failover: string;
  service: string;
  cell: string;
  /** Told to `loadContext` only. */
  drill?: Drill;
}

export interface EnsureRequest extends Subject {
  blueprint: { name: string; version: number };
  zone: string;
}

export interface EnsureResult {
  cell: string;
  instances: number;
  /** An idle synthetic cell of the same blueprint was taken. */
  reused: boolean;
  tookMs: number;
}

export interface SyntheticSubject extends Subject {
  syntheticCell: string;
  /** Same key, same change: attempts after a crash do nothing twice. */
  key: string;
  reason: string;
  /** A person's order stands behind it: it is carried out although the fleet is stopped. Absent in runs from before it. */
  byPerson?: boolean;
}

/** What was done to warm the cell, with figures; goes into the dossier as it is. */
export interface WarmResult {
  passed: boolean;
  /** One sentence for a person. */
  summary: string;
  evidence: Record<string, unknown>;
}

export interface Acknowledgement {
  epoch: number;
  split: Record<string, number>;
  acknowledged: string[];
  refused: { node: string; reason: string }[];
  pending: string[];
  tookMs: number;
}

/** How a synthetic cell waits for the next failover, and why so. */
export interface Rested {
  how: 'frozen' | 'stopped' | 'running';
  why: string;
}

export interface ShiftRequest extends SyntheticSubject {
  purpose: ShiftPurpose;
  targetBp: number;
  /** What the failover believes it carries now: tells a repeated attempt from a first one. */
  knownBp: number;
  coverInstances: number;
  /** The guard of `shiftTraffic`: the source's load as a share of its capacity. */
  minSourceLoad: number;
  blueprint: { name: string; version: number };
}

export interface ShiftResult {
  /** False: the guard, or the capacity, did not allow it; `why` says so and nothing was changed. */
  applied: boolean;
  why: string;
  acknowledgement: Acknowledgement | null;
  sourceBp: number;
  syntheticBp: number;
  capacityBp: number | null;
  epoch: number;
  totals: CellTotals;
}

/** Counters of the two cells and, together, of the service's other cells; null where there are none. */
export interface CellTotals {
  source: Totals;
  synthetic: Totals;
  peers?: Totals | null;
}

export interface JudgeRequest {
  of: 'synthetic' | 'source';
  baseline: Totals;
  minRequests: number;
  maxErrorRatio: number;
  /** Milliseconds from now before which no good verdict is wanted. */
  notBeforeMs: number;
  /** Over how long a verdict that was given is looked at anew. */
  intervalMs: number;
  /** Which verdict ends the watch: after a good one only a bad one does, and the other way round. */
  wanted: 'any' | 'good' | 'bad';
  /** The sequential test of the synthetic cell. Absent: the plain ratio, as in runs from before it. */
  canary?: { measures: Measures; baselines: Baselines; sloLatencyMs: number | null };
}

export interface WatchRequest extends Subject {
  syntheticCell: string;
  blueprint: { name: string; version: number };
  healthCheckPath: string;
  healthCheckIntervalMs: number;
  known: SourceState;
  judge: JudgeRequest | null;
  forMs: number;
}

export interface Observation {
  /** What ended the watch. */
  ended: 'source' | 'verdict' | 'due';
  source: SourceState;
  healthyInstances: number;
  instances: number;
  verdict: 'good' | 'bad' | null;
  judged: (Totals & { errorRatio: number }) | null;
  sourceBp: number;
  syntheticBp: number;
  capacityBp: number | null;
  epoch: number;
  totals: CellTotals;
  /** What it was judged against, in words; absent where nothing was judged, or by the plain ratio. */
  against?: string;
  /** Why errors of the synthetic cell were not held against it: whoever owns its data was away. Absent: none were. */
  excused?: string;
  /** Per cell, as the load reports say. */
  rates: Record<string, { requestsPerSecond: number; errorRatio: number; ageMs: number }>;
}

/** The side effects of a failover. Every one may be called again at any time, also after a crash in mid-call. */
export interface FailoverActivities extends DecisionActivities {
  loadContext(request: Subject): Promise<FailoverContext>;
  /** Returns when fewer than the allowed number of older failovers of the service are under way. */
  awaitTurn(request: Subject & { maxConcurrentFailovers: number }): Promise<void>;
  /** What happens in the rest of the fleet, and what happened to this service lately. */
  surveyFleet(request: Subject): Promise<FleetFacts>;
  ensureSyntheticCell(request: EnsureRequest): Promise<EnsureResult>;
  warmSyntheticCell(request: SyntheticSubject): Promise<WarmResult>;
  armCell(request: SyntheticSubject): Promise<Acknowledgement>;
  shiftTraffic(request: ShiftRequest): Promise<ShiftResult>;
  watchFailover(request: WatchRequest): Promise<Observation>;
  /** Out of traffic, kept for the next prediction. */
  /** Answers how it lies now; nothing in histories from before that was told, or where it is gone. */
  restAtIdle(request: SyntheticSubject): Promise<Rested | void>;
  /** Out of traffic and gone. A cell that never came to be, or whose name is not known (null), is fine. */
  retireSyntheticCell(
    request: Omit<SyntheticSubject, 'syntheticCell'> & { syntheticCell: string | null },
  ): Promise<void>;
  /** The source, which was watched without a share, gets no copies of requests any more. */
  releaseSource(request: Subject): Promise<void>;
  saveDossier(dossier: Dossier): Promise<void>;
}

/** What carrying out a step came to. */
export type StepResult =
  | { kind: 'loaded'; context: FailoverContext }
  | { kind: 'turn' }
  | { kind: 'surveyed'; facts: FleetFacts }
  | { kind: 'ensured'; result: EnsureResult }
  | { kind: 'warmed'; result: WarmResult }
  | { kind: 'armed'; result: Acknowledgement }
  | { kind: 'shifted'; result: ShiftResult }
  | { kind: 'observed'; observation: Observation }
  /** A message, or the clock, came first; or the step has no effect outside. */
  | { kind: 'nothing' }
  | { kind: 'done'; rested?: Rested }
  | { kind: 'failed'; reason: string };
