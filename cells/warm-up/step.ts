/** What a step of a warm-up is given, and what it finds out. */
import type { WarmUpStep } from '../../blueprints/schema';
import type { Reached } from '../http';
import type { CallersOfService } from './service-traffic';

export type WarmUpProgress = (text: string) => void;

export interface WarmUp {
  plan: readonly WarmUpStep[];
  instances: readonly Reached[];
  /** Instances of the service's other healthy cells. */
  peers: readonly Reached[];
  /** Left out: nothing is known of callers. */
  callers?: CallersOfService;
  /** The source is dead: what needs its callers' patience is left out. */
  isRescue?: boolean;
  /** Called at least once per step and batch of requests; for heartbeats. */
  progress?: WarmUpProgress;
  /** Ends the warm-up with its reason, for a cancelled activity. */
  signal?: AbortSignal;
}

export type StepKind = WarmUpStep['kind'];
export type StepOf<K extends StepKind> = Extract<WarmUpStep, { kind: K }>;

/** What one step measured, and against what. */
export interface StepEvidence {
  kind: StepKind;
  /** One sentence, with the figures. */
  text: string;
  /** Null: it could not be judged, and the text says why. */
  ok: boolean | null;
  tookMs: number;
}

/** Steps that take as long as the plan or the service's callers make them, however the cell comes to them. */
export function isOfGivenLength(kind: StepKind): boolean {
  return kind === 'mirror' || kind === 'load';
}

export interface ProbeEvidence {
  /** Null when no request was answered. */
  p50Ms: number | null;
  p95Ms: number | null;
  /** Null when there are no peers to compare with. */
  peersP95Ms: number | null;
  /** Requests sent to the cell, of the path that came off worst, in its last round; those to the peers are not counted. */
  requests: number;
  errors: number;
}

export interface StepFinding {
  /** What was measured, in one sentence. */
  text: string;
  /** Why the cell is not warm; none: nothing was found against it. */
  obstacles: string[];
  /** What was not found out, and why: it keeps nobody from being warm, but is told. */
  limits?: string[];
  /** Entries that the instances took over. */
  entries?: number;
  /** Connections that were opened and answered. */
  connections?: number;
  probe?: ProbeEvidence;
}
