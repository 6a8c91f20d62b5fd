/** What a failover is after at this moment, and why: the order of authority between people, the source's death and the risk. */
import type { Failover } from './failover';
import { isArmed, shareAtStake } from './failover';
import { reachOf } from './guards';
import type { Outcome } from './messages';

export type Aim =
  /** Stay as it is. `untilMs`: when that may change by itself. */
  | { kind: 'hold'; why: string; untilMs: number | null }
  /** Have the synthetic cell ready; move nothing. */
  | { kind: 'prepare'; why: string; untilMs: number | null }
  /** Take the source's traffic, canary first, step by step. `onlyCanary`: why no more than that may move. */
  | { kind: 'take'; why: string; untilMs: number | null; onlyCanary: string | null }
  /** Take all of it in one change. */
  | { kind: 'complete'; why: string }
  /** One change to a share that a person named. */
  | { kind: 'ordered-step'; why: string; shareBp: number }
  /** Give the traffic back in small steps, then rest. */
  | { kind: 'give-back'; why: string; outcome: Outcome }
  /** Give the traffic back at once. */
  | { kind: 'undo'; why: string; outcome: Outcome }
  /** End here and leave the split as it is. */
  | { kind: 'end'; why: string; outcome: Outcome };

/** How long ago, at least, the last risk was true: a clock that runs ahead cannot make it fresher than its arrival. */
export function riskTimeMs(risk: NonNullable<Failover['risk']>): number {
  return Math.min(Date.parse(risk.last.at), risk.heardAtMs);
}

/** People first, then a confirmed death, then what is to be undone or given back, then the risk. */
export function aimOf(f: Failover, nowMs: number): Aim {
  return (
    orderedStep(f) ??
    held(f) ??
    ordered(f) ??
    stopped(f, nowMs) ??
    confirmedDeath(f, nowMs) ??
    undone(f) ??
    deathUncovered(f, nowMs) ??
    undecidedEnds(f, nowMs) ??
    evacuationEnds(f, nowMs) ??
    risked(f, nowMs)
  );
}

/** One change by a person's own hand: also under a hold, which stays. */
function orderedStep(f: Failover): Aim | null {
  if (f.orderedStepBp === null) return null;
  return { kind: 'ordered-step', why: 'a person ordered this share', shareBp: f.orderedStepBp };
}

/** Every other order ends a hold that was there before it; a hold after it stops it too. */
function ordered(f: Failover): Aim | null {
  const by = f.order && `ordered by ${f.order.by}: ${f.order.reason}`;
  if (f.order?.kind === 'abort') return { kind: 'undo', why: `abort ${by}`, outcome: 'aborted' };
  if (f.order?.kind === 'complete') return { kind: 'complete', why: `completion ${by}` };
  if (f.order?.kind === 'promote') return { kind: 'end', why: `promotion ${by}`, outcome: 'failed-over' };
  return null;
}

/** Nothing automatic happens under a hold, not even on a death: the cover at priority 1 carries on in Envoy without us. */
function held(f: Failover): Aim | null {
  return f.held && { kind: 'hold', why: `held by ${f.held.by}: ${f.held.reason}`, untilMs: null };
}

/** The fleet-wide stop freezes everything automatic, the way back as well; what a person orders is done. */
function stopped(f: Failover, nowMs: number): Aim | null {
  if (f.order) return null;
  const { limit } = reachOf(f, nowMs);
  return limit?.guard === 'stop' ? { kind: 'hold', why: limit.why, untilMs: null } : null;
}

function confirmedDeath(f: Failover, nowMs: number): Aim | null {
  if (f.source.state !== 'dead' || !isArmed(f)) return null;
  // Where an earlier run has taken everything already, nothing is left to approve.
  const nothingToMove = f.context?.leftover !== undefined && f.traffic.sourceBp === 0 && f.traffic.syntheticBp > 0;
  if (mayMove(f, nowMs) || nothingToMove) {
    return { kind: 'complete', why: `${f.cell} is dead: its health checks fail repeatedly` };
  }
  const untilMs = f.source.sinceMs + holdAtMostMs(f);
  if (nowMs < untilMs) {
    return {
      kind: 'hold',
      why: `${f.cell} is dead and nobody has approved a shift; the armed cell covers for it at priority 1`,
      untilMs: consentAtMs(f) === null ? untilMs : Math.min(untilMs, consentAtMs(f)!),
    };
  }
  return {
    kind: 'end',
    why: `${f.cell} died and nobody approved a shift in time; the armed cell is left as its cover at priority 1`,
    outcome: 'refused',
  };
}

/** Dead, and nothing is armed yet that could take over: it is made as fast as can be, as far as the guards let begin. */
function deathUncovered(f: Failover, nowMs: number): Aim | null {
  if (f.source.state !== 'dead' || isArmed(f) || f.synthetic?.state === 'gone') return null;
  const { reach, limit } = reachOf(f, nowMs);
  if (limit && reach === 'nothing') return blocked(f, limit.why, limit.untilMs ?? Infinity, nowMs);
  return { kind: 'complete', why: `${f.cell} is dead and has no stand-in yet` };
}

function undone(f: Failover): Aim | null {
  if (f.trouble !== null) return { kind: 'undo', why: f.trouble, outcome: 'compensated' };
  if (f.order) {
    const outcome = f.order.kind === 'cancel' ? 'aborted' : 'drained';
    return { kind: 'give-back', why: `${f.order.kind} ordered by ${f.order.by}: ${f.order.reason}`, outcome };
  }
  return null;
}

/** An evacuated source that neither dies nor recovers cannot keep the failover open for ever. */
function evacuationEnds(f: Failover, nowMs: number): Aim | null {
  if (f.evacuatedAtMs === null || f.risk?.last.level === 'clear') return null;
  if (nowMs < f.evacuatedAtMs + holdAtMostMs(f)) return null;
  const left = f.traffic.sourceBp > 0 ? ', as far as the capacity of its stand-in goes' : '';
  return {
    kind: 'end',
    why: `${f.cell} was evacuated${left}; it has neither died nor recovered since, and the traffic stays where it is`,
    outcome: 'failed-over',
  };
}

/**
 * A share that nothing is ever said about does not stay for ever: it was never proven, so it goes back. Nor does that of a
 * drill that got stuck; what was evacuated on a real prediction is not given back to a source that may be failing.
 */
function undecidedEnds(f: Failover, nowMs: number): Aim | null {
  if (f.givenUp && f.risk?.last.level !== 'clear') return { kind: 'give-back', why: f.givenUp, outcome: 'aborted' };
  const why = whyGivenUp(f, nowMs);
  return why === null ? null : { kind: 'give-back', why, outcome: 'aborted' };
}

/** Why what was taken is to go back although the risk lasts; null while it is not. */
export function whyGivenUp(f: Failover, nowMs: number): string | null {
  if (!f.endsUndecided || f.risk?.last.level === 'clear') return null;
  const waited = `for ${Math.round(holdAtMostMs(f) / 1000)} s`;
  const undecidedMs = undecidedSinceMs(f);
  const isKept = f.evacuatedAtMs !== null && !f.drill;
  if (undecidedMs !== null && !isKept && nowMs >= undecidedMs + holdAtMostMs(f)) {
    return `there was no verdict on the last shift ${waited}, and nobody has decided`;
  }
  const isStuck = f.drill && f.evacuatedAtMs !== null && nowMs >= f.evacuatedAtMs + holdAtMostMs(f);
  return isStuck ? `the drill did not end ${waited}` : null;
}

/** Since when the last shift on the way out has been without a verdict that was due; null if it is not. */
export function undecidedSinceMs({ endsUndecided, judgement }: Failover): number | null {
  const isUndecided = judgement?.of === 'synthetic' && judgement.verdict === 'inconclusive';
  return endsUndecided && isUndecided ? judgement.timeoutMs : null;
}

function risked(f: Failover, nowMs: number): Aim {
  if (f.risk === null) return silence(f, nowMs, f.startedAtMs, 'no risk has been told yet');
  const { last, heardAtMs } = f.risk;
  const toldAtMs = riskTimeMs(f.risk);
  const staleAtMs = toldAtMs + staleAfterMs(f);

  if (last.level === 'clear') {
    // The end of an episode is told once, so it does not age; but one that was old when it came proves nothing about now.
    if (heardAtMs <= staleAtMs) return { kind: 'give-back', why: 'the risk has cleared', outcome: 'drained' };
    return silence(f, nowMs, heardAtMs, 'the word that the risk cleared came too late to be believed');
  }
  if (nowMs >= staleAtMs) {
    return silence(f, nowMs, staleAtMs, 'the last word on the risk is stale, and silence is not health');
  }
  const { reach, limit } = reachOf(f, nowMs);
  const soonestMs = Math.min(staleAtMs, limit?.untilMs ?? Infinity);
  if (limit && reach === 'nothing') return blocked(f, limit.why, soonestMs, nowMs);
  if (last.level === 'prepare') {
    const why =
      f.traffic.syntheticBp > 0
        ? 'the risk is below the level that moves traffic; the share stays as it is'
        : 'the risk justifies a synthetic cell, not yet traffic';
    return { kind: 'prepare', why, untilMs: staleAtMs };
  }
  if (limit && reach === 'prepare') {
    return { kind: 'prepare', why: `the risk justifies moving traffic; ${limit.why}`, untilMs: soonestMs };
  }
  if (!mayMove(f, nowMs)) {
    return { kind: 'prepare', why: 'the risk justifies moving traffic; a person must approve it', untilMs: staleAtMs };
  }
  const onlyCanary = limit && reach === 'canary' ? limit.why : null;
  return { kind: 'take', why: 'the risk justifies moving traffic', untilMs: soonestMs, onlyCanary };
}

/** What stands stays as it is; what was never begun is refused in the end. */
function blocked(f: Failover, why: string, untilMs: number, nowMs: number): Aim {
  if (f.synthetic !== null) return { kind: 'hold', why, untilMs };
  const endsMs = (f.limited?.reach === 'nothing' ? f.limited.sinceMs : nowMs) + holdAtMostMs(f);
  if (nowMs >= endsMs) return { kind: 'end', why: `${why}; nobody approved it in time`, outcome: 'refused' };
  return { kind: 'hold', why, untilMs: Math.min(untilMs, endsMs) };
}

/** Holding on no news, for a bounded time: then what was taken goes back, for nobody speaks for keeping it. */
function silence(f: Failover, nowMs: number, sinceMs: number, why: string): Aim {
  // What carries everything already keeps it: `evacuationEnds` has the last word then.
  const untilMs = Math.max(sinceMs, f.evacuatedAtMs ?? 0) + holdAtMostMs(f);
  if (nowMs < untilMs) return { kind: 'hold', why, untilMs };
  const ended = `${why}, for ${Math.round(holdAtMostMs(f) / 1000)} s`;
  if (f.synthetic === null) return { kind: 'end', why: ended, outcome: 'refused' };
  return { kind: 'give-back', why: ended, outcome: 'aborted' };
}

/** Whether traffic may move without asking: the policy says so, or a person did, or nobody objected in time. */
export function mayMove(f: Failover, nowMs: number): boolean {
  const autonomy = f.context?.policy.autonomy;
  if (autonomy === 'act') return true;
  return autonomy === 'approve' && (f.approved !== null || nowMs >= (consentAtMs(f) ?? Infinity));
}

/** When silence becomes consent; null where it never does, or where nobody has been asked yet. */
function consentAtMs(f: Failover): number | null {
  const approval = f.context?.policy.approval;
  if (approval?.byDefault !== 'act' || f.askedAtMs === null || f.askedAtMs === undefined) return null;
  return f.askedAtMs + approval.waitS * 1000;
}

/** Whether a person is to be asked now: the risk, or a death, justifies what only a person may allow. */
export function asks(f: Failover): boolean {
  if (f.context?.policy.autonomy !== 'approve' || f.approved !== null || f.conclusion) return false;
  return f.risk?.last.level === 'shift' || (f.source.state === 'dead' && isArmed(f));
}

export function holdAtMostMs(f: Failover): number {
  return (f.context?.policy.holdAtMostS ?? 900) * 1000;
}

function staleAfterMs(f: Failover): number {
  return (f.context?.policy.staleAfterS ?? 15) * 1000;
}

/** Whether the synthetic cell carries all that it can take: no more is to be had at the source, or its capacity is reached. */
export function isEvacuated(f: Failover, largestBp: number): boolean {
  return (
    f.traffic.syntheticBp > 0 && (f.traffic.sourceBp === 0 || f.traffic.syntheticBp >= largestBp) && shareAtStake(f) > 0
  );
}
