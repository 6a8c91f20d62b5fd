/** Was the prediction right? What the source did after it, as a label to learn from: the failover itself hides the answer. */
import type { Evidence, Failover } from './failover';
import { shareAtStake } from './failover';

export const labels = ['confirmed', 'averted', 'false', 'missed', 'unknown'] as const;
/**
 * `confirmed`: the source failed, as predicted. `averted`: it recovered once it was relieved. `false`: it lived past the
 * time predicted under its usual load. `missed`: it failed and nobody had predicted it. `unknown`: nobody can say, and
 * nothing may be learnt from it.
 */
export type LabelKind = (typeof labels)[number];

export interface Label {
  kind: LabelKind;
  /** One sentence for a person. */
  why: string;
  /** ISO 8601: when the failure was predicted, by when it was due, when it was seen. Absent in labels from before them. */
  predictedAt?: string | null;
  dueAt?: string | null;
  failedAt?: string | null;
  /** Until when the source was looked at. */
  watchedTo?: string;
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
  const isNew = seen.predictedAtMs === null && risk?.level === 'shift' && !risk.observed;
  const stake = shareAtStake(f);
  const load = loadOf(f, stake);
  const predictedAtMs = isNew ? nowMs : seen.predictedAtMs;
  const dueAtMs = isNew ? nowMs + risk.horizonS * 1000 : seen.dueAtMs;
  const isPending = predictedAtMs !== null && seen.failedAtMs === null;
  const hasFailed = f.source.state !== 'alive' || (f.judgement?.of === 'source' && f.judgement.verdict === 'bad');
  const isCleared = isPending && risk?.level === 'clear';
  const next: Evidence = {
    predictedAtMs,
    dueAtMs,
    ...(predictedAtMs !== null && { carried: carriedSince(seen.carried, predictedAtMs, nowMs, dueAtMs!, load) }),
    leastLoad: isPending && nowMs <= (dueAtMs ?? 0) ? Math.min(seen.leastLoad, load) : seen.leastLoad,
    failedAtMs: seen.failedAtMs ?? (hasFailed && predictedAtMs !== null ? nowMs : null),
    // A risk that comes back was not gone.
    clearedAtMs: isCleared ? (seen.clearedAtMs ?? nowMs) : null,
    loadWhenCleared: isCleared ? (seen.loadWhenCleared ?? load) : null,
  };
  const isSame = !next.carried && (Object.keys(next) as (keyof Evidence)[]).every((key) => next[key] === seen[key]);
  return isSame && f.evidence ? f : { ...f, evidence: next };
}

/** What the source carries of its own traffic. Without a share it is sent copies, where the service allows it. */
function loadOf({ traffic, context }: Failover, stake: number): number {
  if (stake === 0) return 1;
  const copiesBp = traffic.sourceBp === 0 ? (context?.mirrorBp ?? 0) : 0;
  return Math.min(1, (traffic.sourceBp + copiesBp) / stake);
}

function carriedSince(
  before: Evidence['carried'],
  predictedAtMs: number,
  nowMs: number,
  dueAtMs: number,
  load: number,
): NonNullable<Evidence['carried']> {
  if (!before) return { fromMs: predictedAtMs, atMs: nowMs, load, loadMs: 0 };
  // What it carried since the last look counts, up to the time predicted.
  const passedMs = Math.max(0, Math.min(nowMs, dueAtMs) - Math.min(before.atMs, dueAtMs));
  return { ...before, atMs: nowMs, load, loadMs: before.loadMs + passedMs * before.load };
}

/** The part of its own traffic that it carried on average until the failure was due. */
function meanLoad({ carried, leastLoad, dueAtMs }: Evidence): number {
  if (!carried || dueAtMs === null) return leastLoad;
  return carried.loadMs / Math.max(1, dueAtMs - carried.fromMs);
}

/** Looked at for so long beyond the time predicted: what fails a moment late was predicted all the same. */
const beyondDueMs = 2000;

/**
 * Until when the source is still to be watched for the label, within the cooldown; null: the label can be given now,
 * because the failure was seen, or none was predicted.
 */
export function watchedUntilMs(f: Failover): number | null {
  const seen = f.evidence;
  if (!f.watchesPastHorizon || f.labelIsFinal || f.drill || !f.conclusion || !f.context?.fleet) return null;
  if (!seen || seen.dueAtMs === null || seen.failedAtMs !== null) return null;
  if (f.conclusion.cooldownUntilMs <= f.conclusion.atMs || f.conclusion.atMs > seen.dueAtMs + beyondDueMs) return null;
  return Math.min(seen.dueAtMs + beyondDueMs, f.conclusion.cooldownUntilMs);
}

/**
 * Whether the prediction was right, as far as can be said now. Before the failure was due only a failure says anything; and
 * a source that was relieved proves nothing by living on.
 */
export function labelOf(f: Failover, nowMs: number): Label {
  const { predictedAtMs, dueAtMs, failedAtMs } = f.evidence ?? noEvidence;
  const iso = (ms: number | null) => (ms === null ? null : new Date(ms).toISOString());
  return {
    ...verdictOf(f, nowMs),
    predictedAt: iso(predictedAtMs),
    dueAt: iso(dueAtMs),
    failedAt: iso(failedAtMs ?? missedAtMs(f)),
    watchedTo: new Date(nowMs).toISOString(),
  };
}

function verdictOf(f: Failover, nowMs: number): Pick<Label, 'kind' | 'why'> {
  const seen = f.evidence ?? noEvidence;
  if (missedAtMs(f) !== null) {
    return {
      kind: 'missed',
      why: `${f.cell} was seen to fail before the risk had reached the level that moves traffic`,
    };
  }
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
  if (meanLoad(seen) >= usualLoad) {
    return { kind: 'false', why: `${f.cell} lived past the time predicted, under its usual load${copies(f)}` };
  }
  if (seen.clearedAtMs !== null && (seen.loadWhenCleared ?? 0) >= usualLoad) {
    return { kind: 'false', why: `the risk went while ${f.cell} carried its usual load` };
  }
  return {
    kind: 'unknown',
    why: `${f.cell} was relieved before the failure was due and has not recovered: nobody can say`,
  };
}

/** When a failure was seen that nobody had predicted; null if none was. */
function missedAtMs({ evidence, risk }: Failover): number | null {
  const isMissed = (evidence ?? noEvidence).predictedAtMs === null && risk?.first.observed?.state === 'dead';
  return isMissed ? Date.parse(risk.first.at) : null;
}

/** Said where copies of requests stood in for its own: they only read, so what writing does to it was not shown. */
function copies({ context, evidence }: Failover): string {
  return context?.mirrorBp !== undefined && (evidence?.leastLoad ?? 1) < 1 ? ', in part copies of requests' : '';
}

function seconds(ms: number): string {
  return `${Math.round(ms / 1000)} s`;
}
