/** What a failover knows: one plain, serialisable value from which every decision follows. */
import type { Policy } from '../blueprints/schema';
import type { RiskEvent } from '../prediction/contracts';
import type { FleetFacts, TimedStep } from './fleet';
import type { GuardName, Reach } from './guards';
import type { Label } from './label';
import type { Dossier, DossierEntry, Drill, FailoverInput, Outcome, Phase } from './messages';
import { failoverWorkflowId } from './messages';
import type { PlanKind } from './plan';

/** Counters of one cell, from which a difference over a time of one's own is a verdict. */
export interface Totals {
  requests: number;
  errors: number;
}

/** `failing`: some instances fail their health checks repeatedly. `dead`: all do, or there is none. */
export type SourceState = 'alive' | 'failing' | 'dead';

/** What an earlier run of this failover left: its synthetic cell still carries a share of the traffic. */
export interface Leftover {
  syntheticCell: string;
  instances: number;
  /** Its commanded share, in basis points. */
  shareBp: number;
  /** Counters now: what comes after them is what the two cells are judged by. */
  totals: { source: Totals; synthetic: Totals };
}

/** What the Configuration Data Store and the load balancer say before anything is done. */
export interface FailoverContext {
  policy: Policy;
  blueprint: { name: string; version: number };
  zone: string;
  healthCheckPath: string;
  healthCheckIntervalMs: number;
  /** Error ratio above which the service counts as failed; the way back is gated on it. */
  sloErrorRatio: number;
  /** The source's share when the failover began, in basis points. */
  sourceBp: number;
  /** What the blueprint's capacity is of the service's measured traffic, in basis points; null while nothing is measured. */
  capacityBp: number | null;
  epoch: number;
  /** Absent where nothing was left, and in histories from before it was read. */
  leftover?: Leftover;
  /** Of a drill: the largest share, in basis points, and the policy that holds once a real prediction ends the practice. */
  drill?: { maxShareBp: number; realPolicy: Policy };
  /** Counters of the source at the first word of the risk: how it answered while it was well. */
  beforeOnset?: Totals | null;
  /** A slower answer has missed the objective. */
  sloLatencyMs?: number;
  /** Part of the service's reading requests, in basis points, that a source without a share is sent copies of; absent: none. */
  mirrorBp?: number;
  /** What the guards and the plan are computed from; absent in histories from before them, which go on without. */
  fleet?: FleetFacts;
}

export interface SyntheticCell {
  /** Null until the Synthetic Cell Manager has answered: the cell may exist already and is then found by its owner. */
  name: string | null;
  instances: number;
  reused: boolean;
  state: 'creating' | 'ready' | 'warm' | 'armed' | 'gone';
}

export const shiftPurposes = ['canary', 'step', 'emergency', 'complete', 'ordered', 'reduce', 'give-back'] as const;
/** Why a share changes. `emergency`: all at once on a prediction; `complete`: all at once on a death or an order; `ordered`: by a person; `reduce`: gradually back; `give-back`: back at once. */
export type ShiftPurpose = (typeof shiftPurposes)[number];

/** A judgement of the last change that is still open, or was the last one made. */
export interface Judgement {
  /** Number of the change it judges. */
  change: number;
  /** The synthetic cell is judged on the way out, the source on the way back. */
  of: 'synthetic' | 'source';
  baseline: Totals;
  /** Counters of the service's other cells at that time; null where there are none. */
  peers?: Totals | null;
  sinceMs: number;
  /** Not settled before this time, however good it looks. */
  notBeforeMs: number;
  /** Without a verdict by then the failover holds. */
  timeoutMs: number;
  verdict: 'open' | 'good' | 'inconclusive' | 'bad';
}

/** What was seen of the source since it was predicted to fail. */
export interface Evidence {
  /** When the risk first reached level `shift`, and by when the failure was predicted. */
  predictedAtMs: number | null;
  dueAtMs: number | null;
  /** The smallest part of its own traffic that the source kept until the failure was due: 1 while nothing was taken. */
  leastLoad: number;
  /** What it carried on average until the failure was due, as a part of its own traffic; copies of requests count. Absent in older runs. */
  carried?: { fromMs: number; atMs: number; load: number; loadMs: number };
  /** When the source was first seen to fail. */
  failedAtMs: number | null;
  /** When the risk went, and what part of its traffic the source carried then. */
  clearedAtMs: number | null;
  loadWhenCleared: number | null;
}

export interface Order {
  by: string;
  reason: string;
}

export interface Failover {
  /** Workflow id. */
  failover: string;
  /** Run in which it began; part of every idempotency key, and kept when the run continues as new. */
  runId: string;
  service: string;
  cell: string;
  /** Set while this is a practice; a real prediction makes it null. Undefined in runs from before there were drills. */
  drill?: Drill | null;
  startedAtMs: number;
  phase: Phase;
  phaseTimes: { phase: Phase; atMs: number }[];

  risk: { first: RiskEvent; last: RiskEvent; heardAtMs: number } | null;
  /** The newest event ids heard, so that a redelivered one changes nothing. */
  seenEvents: string[];

  context: FailoverContext | null;
  /** Whether fewer other failovers of the service are under way than its policy allows. */
  hasTurn: boolean;
  synthetic: SyntheticCell | null;
  /** Shares in basis points as last acknowledged or observed. */
  traffic: { sourceBp: number; syntheticBp: number; capacityBp: number | null; epoch: number };
  source: { state: SourceState; sinceMs: number };
  /** Changes of the split begun so far. */
  changes: number;
  /** A change was begun whose end is not known yet: the synthetic cell may carry traffic. */
  mayCarry: boolean;
  judgement: Judgement | null;
  /** The synthetic cell has answered real traffic well since it was last idle. */
  proven: boolean;
  /** When the synthetic cell first carried all it can take. */
  evacuatedAtMs: number | null;
  /** Why the last change was not made, and when it is worth trying again. */
  refusedChange: { why: string; retryAtMs: number } | null;
  /** The reason for which a change was refused last, and since when it is the same one; its figures may have changed. */
  lastRefusal?: { why: string; purpose: ShiftPurpose; sinceMs: number } | null;

  /** How often the risk came back after it had gone while traffic was away. Absent in runs from before it was counted. */
  relapses?: number;

  approved: Order | null;
  /** By a person, or by this failover itself when it needs one (`by` is then `understudy`). */
  held: (Order & { sinceMs: number }) | null;
  /** The one standing order. A later one replaces it. */
  order: (Order & { kind: 'abort' | 'drain' | 'complete' | 'promote' | 'cancel' }) | null;
  /** A share a person ordered; done once. */
  orderedStepBp: number | null;

  /** Something went wrong that is to be undone: the failover ends as compensated. */
  trouble: string | null;
  /** The synthetic cell has been sent to rest or retired: with this the failover ends, whatever is heard meanwhile. */
  sentAway: { outcome: Outcome; reason: string } | null;
  conclusion: { outcome: Outcome; reason: string; atMs: number; cooldownUntilMs: number; saved: boolean } | null;
  /** A new episode was heard in the cooldown: a new failover begins with it. */
  anew: RiskEvent | null;

  /** The newest facts about the fleet, and the workflow time at which they came. */
  fleet?: FleetFacts;
  fleetAtMs?: number;
  /** When a survey of the fleet failed last. */
  surveyFailedAtMs?: number | null;
  /** How far the trust in the telemetry reached last: part of its hysteresis. */
  trustReach?: Reach;
  /** When a person was asked to approve; null while nothing is to be approved. */
  askedAtMs?: number | null;
  /** The limit that is narrowest now, and since when. */
  limited?: { guard: GuardName; reach: Reach; why: string; liftable: boolean; sinceMs: number } | null;
  /** The plan that was last told. */
  plan?: { kind: PlanKind; canaryBp: number; why?: string } | null;
  /** Why a person was called, each once. */
  pages?: { atMs: number; why: string }[];
  /** When the step that is under way was begun, and how long steps took. */
  stepAtMs?: number;
  took?: { step: TimedStep; ms: number }[];
  /** What is needed to say afterwards whether the prediction was right. */
  evidence?: Evidence;
  label?: Label | null;
  /** A way back that is refused for too long is held, and a person called; absent in runs from before that. */
  boundsRefusedWayBack?: boolean;
  /** Since when every change on the way back was refused, for whatever reasons. */
  wayBackRefusedSinceMs?: number | null;
  /** The source is watched past the time predicted before the label is final; absent in runs from before that. */
  watchesPastHorizon?: boolean;
  /** A shift that gets no verdict calls a person and is taken back in the end; absent in runs from before that. */
  endsUndecided?: boolean;
  /** Why what was taken goes back although the risk lasts. */
  givenUp?: string | null;
  labelIsFinal?: boolean;

  lastWhy: string;
  steps: Dossier['steps'];
  entries: DossierEntry[];
}

/** A failover that knows nothing yet but which cell it is about. */
export function begin(input: FailoverInput, runId: string, nowMs: number): Failover {
  return {
    failover: failoverWorkflowId(input.service, input.cell),
    runId,
    service: input.service,
    cell: input.cell,
    drill: input.drill ?? null,
    startedAtMs: nowMs,
    phase: 'assessing',
    phaseTimes: [{ phase: 'assessing', atMs: nowMs }],
    risk: null,
    seenEvents: [],
    context: null,
    hasTurn: false,
    synthetic: null,
    traffic: { sourceBp: 0, syntheticBp: 0, capacityBp: null, epoch: 0 },
    source: { state: 'alive', sinceMs: nowMs },
    changes: 0,
    mayCarry: false,
    judgement: null,
    proven: false,
    evacuatedAtMs: null,
    refusedChange: null,
    approved: null,
    held: null,
    order: null,
    orderedStepBp: null,
    trouble: null,
    sentAway: null,
    conclusion: null,
    anew: null,
    lastWhy: '',
    steps: [],
    entries: [],
  };
}

/** Ready for traffic: from here on the synthetic cell stands as cover, whatever happens to this failover. */
export function isArmed(f: Failover): boolean {
  return f.synthetic?.state === 'armed';
}

/** All the traffic that is this failover's to place: the source's share and what was taken from it. */
export function shareAtStake(f: Failover): number {
  return f.traffic.sourceBp + f.traffic.syntheticBp;
}

/** What may be taken on a prediction: a residual share stays at the source, so that its end shows whether that was right. */
export function largestTake(f: Failover): number {
  const residualBp = f.context?.policy.residualBp ?? 0;
  return Math.max(0, Math.min(largestShare(f), shareAtStake(f) - residualBp));
}

/** The largest share the synthetic cell may carry: all that is at stake, up to its capacity and, in a drill, the drill's share. */
export function largestShare(f: Failover): number {
  return Math.min(shareAtStake(f), Math.max(0, f.traffic.capacityBp ?? 10_000), f.context?.drill?.maxShareBp ?? 10_000);
}

/** As a person reads shares: 500 is "5 %". */
export function percent(bp: number): string {
  return `${(bp / 100).toFixed(bp % 100 === 0 ? 0 : 1)} %`;
}
