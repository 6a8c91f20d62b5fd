/** Was the prediction right? What the source did after it, as a label to learn from: the failover itself hides the answer. */
import type { Evidence, Failover } from './failover';
import { shareAtStake } from './failover';

export const labels = ['confirmed', 'averted', 'false', 'unknown'] as const;
/**
 * `confirmed`: the source failed, as predicted. `averted`: it recovered once it was relieved. `false`: it lived past the
 * time predicted under its usual load. `unknown`: nobody can say, and nothing may be learnt from it.
 */
export type LabelKind = (typeof labels)[number];

export interface Label {
  kind: LabelKind;
  /** One sentence for a person. */
  why: string;
}

/** From this part of its own traffic on a source counts as under its usual load. */
const usualLoad = 0.8;
/** Below this part it counts as relieved. */
const relieved = 0.5;

export const noEvidence: Evidence = {
  predictedAtMs: null,
  dueAtMs: null,
  leastLoad: 1,
  failedAtMs: null,
  clearedAtMs: null,
  loadWhenCleared: null,
};

/** What this moment adds to the evidence: told of every message and every result. */
export function witness(f: Failover, nowMs: number): Failover {
  const seen = f.evidence ?? noEvidence;
  const risk = f.risk?.last;
  const isNew = seen.predictedAtMs === null && risk?.level === 'shift';
  const stake = shareAtStake(f);
  const load = stake > 0 ? f.traffic.sourceBp / stake : 1;
  const predictedAtMs = isNew ? nowMs : seen.predictedAtMs;
  const dueAtMs = isNew ? nowMs + risk.horizonS * 1000 : seen.dueAtMs;
  const isPending = predictedAtMs !== null && seen.failedAtMs === null;
  const hasFailed = f.source.state !== 'alive' || (f.judgement?.of === 'source' && f.judgement.verdict === 'bad');
  const isCleared = isPending && risk?.level === 'clear';
  const next: Evidence = {
    predictedAtMs,
    dueAtMs,
    leastLoad: isPending && nowMs <= (dueAtMs ?? 0) ? Math.min(seen.leastLoad, load) : seen.leastLoad,
    failedAtMs: seen.failedAtMs ?? (hasFailed && predictedAtMs !== null ? nowMs : null),
    // A risk that comes back was not gone.
    clearedAtMs: isCleared ? (seen.clearedAtMs ?? nowMs) : null,
    loadWhenCleared: isCleared ? (seen.loadWhenCleared ?? load) : null,
  };
  const isSame = (Object.keys(next) as (keyof Evidence)[]).every((key) => next[key] === seen[key]);
  return isSame && f.evidence ? f : { ...f, evidence: next };
}

/**
 * Whether the prediction was right, as far as can be said now. Before the failure was due only a failure says anything; and
 * a source that was relieved proves nothing by living on.
 */
export function labelOf(f: Failover, nowMs: number): Label {
  const seen = f.evidence ?? noEvidence;
  if (seen.predictedAtMs === null)
    return { kind: 'unknown', why: 'the risk never reached the level that moves traffic' };
  if (seen.failedAtMs !== null) {
    return {
      kind: 'confirmed',
      why: `${f.cell} was seen to fail ${seconds(seen.failedAtMs - seen.predictedAtMs)} after it was predicted`,
    };
  }
  if (seen.clearedAtMs !== null && (seen.loadWhenCleared ?? 1) < relieved) {
    return { kind: 'averted', why: `the risk went once ${f.cell} was relieved of most of its traffic` };
  }
  const due = seen.dueAtMs ?? 0;
  if (nowMs < due) {
    return { kind: 'unknown', why: `it was over ${seconds(due - nowMs)} before the failure was due: nobody can say` };
  }
  if (seen.leastLoad >= usualLoad) {
    return { kind: 'false', why: `${f.cell} lived past the time predicted, under its usual load` };
  }
  if (seen.clearedAtMs !== null && (seen.loadWhenCleared ?? 0) >= usualLoad) {
    return { kind: 'false', why: `the risk went while ${f.cell} carried its usual load` };
  }
  return {
    kind: 'unknown',
    why: `${f.cell} was relieved before the failure was due and has not recovered: nobody can say`,
  };
}

function seconds(ms: number): string {
  return `${Math.round(ms / 1000)} s`;
}
