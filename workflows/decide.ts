/** From what a failover knows and the time to its next step: the transition table, pure. */
import type { Aim } from './aim';
import { aimOf, holdAtMostMs, isEvacuated } from './aim';
import type { Failover, ShiftPurpose } from './failover';
import { isArmed, largestShare, percent } from './failover';
import type { Outcome, Phase } from './messages';
import type { Step, WatchStep } from './steps';

/** A watch is looked at anew at least this often, so that none can hang for ever. */
const longestWatchMs = 10 * 60_000;
const patienceWithoutRiskMs = 60_000;

/** The next step, or what is being waited for. Asked again after every result, message and timer. */
export function decide(f: Failover, nowMs: number): Step {
  if (f.conclusion) return afterwards(f, f.conclusion, nowMs);
  if (f.sentAway) return conclude(f.sentAway.outcome, f.sentAway.reason);
  if (!f.context) return assess(f, nowMs);
  const aim = aimOf(f, nowMs);
  switch (aim.kind) {
    case 'end':
      return conclude(aim.outcome, aim.why);
    case 'undo':
      return undo(f, aim, nowMs);
    case 'give-back':
      return giveBack(f, aim, nowMs);
    case 'hold':
      return stay(f, aim.why, aim.untilMs, nowMs);
    case 'prepare':
      return getReady(f, aim.why) ?? stay(f, aim.why, aim.untilMs, nowMs);
    case 'take':
      return getReady(f, aim.why) ?? take(f, aim, nowMs);
    case 'complete':
      return getReady(f, aim.why) ?? complete(f, aim.why, nowMs);
    case 'ordered-step':
      return shift(f, nowMs, {
        purpose: 'ordered',
        phase: 'shifting',
        targetBp: Math.min(aim.shareBp, largestShare(f)),
        why: aim.why,
      });
  }
}

/** Before the policy is known only two things can be decided: to read it, and not to begin. */
function assess(f: Failover, nowMs: number): Step {
  if (f.trouble !== null) return conclude('refused', f.trouble);
  if (f.order) return conclude('aborted', `${f.order.kind} ordered by ${f.order.by}: ${f.order.reason}`);
  if (f.risk === null) {
    const untilMs = f.startedAtMs + patienceWithoutRiskMs;
    if (nowMs >= untilMs) return conclude('refused', 'started without a word on the risk');
    return { kind: 'wait', phase: 'assessing', why: 'no risk has been told yet', untilMs };
  }
  return { kind: 'load', phase: 'assessing', why: 'what is the cell, its policy and its blueprint?' };
}

/** The cheap, reversible steps, one after another; null once the synthetic cell is armed. */
function getReady(f: Failover, why: string): Step | null {
  const { policy, sourceBp } = f.context!;
  if (f.synthetic === null) {
    if (policy.autonomy === 'observe') return conclude('refused', `the policy of ${f.service} is to observe only`);
    if (policy.autonomy === 'advise') return conclude('refused', advice(f));
    if (sourceBp === 0) return conclude('refused', `${f.cell} carries no traffic: there is nothing to take over`);
    if (!f.hasTurn) {
      return { kind: 'await-turn', phase: 'assessing', why: `other failovers of ${f.service} may be under way` };
    }
  }
  switch (f.synthetic?.state) {
    case undefined:
    case 'creating':
      return { kind: 'ensure', phase: 'provisioning', why };
    case 'ready':
      return { kind: 'warm', phase: 'warming', why };
    case 'warm':
      return { kind: 'arm', phase: 'warming', why: 'the synthetic cell is warm' };
    case 'armed':
    case 'gone':
      return null;
  }
}

/** What autonomy `advise` says instead of doing. */
function advice(f: Failover): string {
  const { policy, sourceBp, blueprint } = f.context!;
  return (
    `the policy of ${f.service} is to advise only: this failover would make a synthetic cell from ${blueprint.name}@${blueprint.version}, ` +
    `warm and arm it, try it with ${percent(Math.min(policy.canaryBp, sourceBp))} and take over ${percent(sourceBp)} in steps of ${percent(policy.stepBp)}`
  );
}

/** Canary, verdict, then step by step, each gated on the last one's health and on the synthetic cell's capacity. */
function take(f: Failover, aim: Aim & { untilMs: number | null }, nowMs: number): Step {
  const { policy } = f.context!;
  const { syntheticBp } = f.traffic;
  const largestBp = largestShare(f);
  if (largestBp === 0) return stay(f, 'the synthetic cell has no capacity to spare', aim.untilMs, nowMs);
  if (syntheticBp === 0) {
    // One instance takes the canary's share; the others stay behind everything as cover.
    const coverInstances = Math.max(0, (f.synthetic?.instances ?? 1) - 1);
    const targetBp = Math.min(policy.canaryBp || policy.stepBp, largestBp);
    return shift(f, nowMs, { purpose: 'canary', phase: 'canary', targetBp, coverInstances, why: aim.why });
  }
  if (f.judgement?.of === 'synthetic' && f.judgement.verdict !== 'good') {
    const why =
      f.judgement.verdict === 'inconclusive'
        ? 'no verdict on the last shift: too few requests or no load reports; the share stays as it is'
        : 'the last shift is being judged';
    return stay(f, why, aim.untilMs, nowMs);
  }
  if (isEvacuated(f, largestBp)) {
    const why = 'the synthetic cell carries all it can; waiting for the source to die or the risk to clear';
    return stay(f, why, aim.untilMs, nowMs);
  }
  // Half a cell that dies is the failure arriving: what has been proven takes the rest at once.
  const stepBp = f.source.state === 'failing' && f.proven ? largestBp : policy.stepBp;
  const targetBp = Math.min(syntheticBp + stepBp, largestBp);
  return shift(f, nowMs, { purpose: 'step', phase: 'shifting', targetBp, why: aim.why });
}

/** All in one change, as far as the capacity goes; then it is done. */
function complete(f: Failover, why: string, nowMs: number): Step {
  const largestBp = largestShare(f);
  if (f.traffic.syntheticBp >= largestBp && !f.mayCarry) {
    const left = f.traffic.sourceBp > 0 ? `, ${percent(f.traffic.sourceBp)} beyond its capacity stayed` : '';
    return conclude('failed-over', `${why}; ${nameOf(f)} carries ${percent(f.traffic.syntheticBp)}${left}`);
  }
  return shift(f, nowMs, { purpose: 'complete', phase: 'shifting', targetBp: largestBp, why });
}

/** Small steps back, each gated on the source; then out of traffic, idle, and the end. */
function giveBack(f: Failover, aim: Aim & { kind: 'give-back' }, nowMs: number): Step {
  const { policy } = f.context!;
  if (f.synthetic === null) return conclude(aim.outcome, `${aim.why}; nothing had been made`);
  if (f.mayCarry || f.traffic.syntheticBp > 0) {
    const blocked = whatBlocksTheWayBack(f);
    if (blocked) {
      const sinceMs = Math.max(f.source.sinceMs, f.judgement?.of === 'source' ? f.judgement.sinceMs : 0, enteredMs(f));
      const untilMs = (f.phase === 'draining' ? sinceMs : nowMs) + holdAtMostMs(f);
      if (nowMs >= untilMs) {
        return conclude('aborted', `${aim.why}, but ${blocked}: the split is left as it is and a person must decide`);
      }
      return stay(f, `the way back waits: ${blocked}`, untilMs, nowMs, 'draining');
    }
    if (f.judgement?.of === 'source' && f.judgement.verdict === 'open') {
      return stay(f, 'the source is being judged before more goes back', f.judgement.timeoutMs, nowMs, 'draining');
    }
    const targetBp = Math.max(0, f.traffic.syntheticBp - policy.reductionBp);
    // At zero it stands as cover again until it rests, so that a risk that returns finds it armed.
    const coverInstances = targetBp === 0 ? f.synthetic.instances : 0;
    return shift(f, nowMs, { purpose: 'reduce', phase: 'draining', targetBp, coverInstances, why: aim.why });
  }
  if (f.synthetic.state !== 'creating' || f.synthetic.name !== null) {
    const why = `${aim.why}; ${nameOf(f)} carries nothing`;
    return { kind: 'rest', phase: 'draining', outcome: aim.outcome, why };
  }
  const why = `${aim.why}; the synthetic cell was never finished`;
  return { kind: 'retire', phase: 'draining', outcome: aim.outcome, why };
}

function whatBlocksTheWayBack(f: Failover): string | null {
  if (f.source.state !== 'alive') return `instances of ${f.cell} fail their health checks`;
  if (f.judgement?.of === 'source' && f.judgement.verdict === 'bad') return `${f.cell} answers with errors`;
  return null;
}

/** At once, in one change; a synthetic cell that failed is not kept, one that a person sent home is. */
function undo(f: Failover, aim: Aim & { kind: 'undo' }, nowMs: number): Step {
  if (f.mayCarry || f.traffic.syntheticBp > 0) {
    return shift(f, nowMs, { purpose: 'give-back', phase: 'draining', targetBp: 0, why: aim.why });
  }
  if (f.synthetic === null) return conclude(aim.outcome === 'compensated' ? 'refused' : aim.outcome, aim.why);
  const fit = aim.outcome !== 'compensated' && f.synthetic.name !== null && f.synthetic.state !== 'creating';
  return { kind: fit ? 'rest' : 'retire', phase: 'draining', outcome: aim.outcome, why: aim.why };
}

/** Watching, if there is anything to watch yet; waiting for a word otherwise. */
function stay(f: Failover, why: string, untilMs: number | null, nowMs: number, phase: Phase = phaseOfStaying(f)): Step {
  if (!isArmed(f)) return { kind: 'wait', phase, why, untilMs };
  const deadlines = [untilMs, nowMs + longestWatchMs].filter((t) => t !== null);
  if (f.judgement?.verdict === 'open') deadlines.push(Math.max(f.judgement.timeoutMs, nowMs + 1));
  if (f.evacuatedAtMs !== null) deadlines.push(f.evacuatedAtMs + holdAtMostMs(f));
  const later = deadlines.filter((t) => t > nowMs);
  return {
    kind: 'watch',
    phase,
    why,
    untilMs: Math.min(...later),
    judgement: f.traffic.syntheticBp > 0 ? f.judgement : null,
    known: f.source.state,
  };
}

/** A risk that rises again while traffic goes back turns the failover round. */
function phaseOfStaying(f: Failover): Phase {
  if (f.phase !== 'draining' || !isArmed(f) || f.held) return f.phase;
  return f.traffic.syntheticBp > 0 ? 'shifting' : 'armed';
}

interface Change {
  purpose: ShiftPurpose;
  phase: Phase;
  targetBp: number;
  coverInstances?: number;
  why: string;
}

/** A change of the split; one that was refused a moment ago is not tried again at once. */
function shift(f: Failover, nowMs: number, change: Change): Step {
  if (f.refusedChange && nowMs < f.refusedChange.retryAtMs) {
    return stay(f, `the split was not changed: ${f.refusedChange.why}`, f.refusedChange.retryAtMs, nowMs, change.phase);
  }
  return { kind: 'shift', coverInstances: 0, ...change };
}

function conclude(outcome: Outcome, reason: string): Step {
  return {
    kind: 'conclude',
    phase: outcome === 'failed-over' ? 'failed-over' : 'cooldown',
    outcome,
    reason,
    why: reason,
  };
}

/** Open a while longer, so that late signals of the same episode begin nothing new. */
function afterwards(f: Failover, conclusion: NonNullable<Failover['conclusion']>, nowMs: number): Step {
  if (!conclusion.saved) return { kind: 'save', phase: f.phase, why: 'the dossier is kept' };
  if (f.order?.kind === 'cancel') return { kind: 'finish', phase: 'cooldown', why: 'cancelled' };
  if (f.anew) {
    return { kind: 'begin-anew', phase: 'cooldown', why: 'a new episode has begun', event: f.anew };
  }
  if (nowMs < conclusion.cooldownUntilMs) {
    return { kind: 'wait', phase: 'cooldown', why: 'late signals are absorbed', untilMs: conclusion.cooldownUntilMs };
  }
  return { kind: 'finish', phase: 'cooldown', why: 'the cooldown is over' };
}

/**
 * Whether a step that is under way is still worth going on with. If not it is left for the new one: this is how a message
 * interrupts. A change of the split never is interrupted; making and warming a cell only by a person who ends the failover.
 */
export function stillServes(f: Failover, current: Step, nowMs: number): boolean {
  if (current.kind === 'await-turn') return decide(f, nowMs).kind === 'await-turn';
  if (current.kind === 'ensure' || current.kind === 'warm') {
    return f.order?.kind !== 'abort' && f.order?.kind !== 'cancel';
  }
  if (current.kind === 'watch' || current.kind === 'wait') return isSameWait(current, decide(f, nowMs));
  return true;
}

function isSameWait(current: Step, wanted: Step): boolean {
  if (current.kind !== wanted.kind || current.phase !== wanted.phase || current.why !== wanted.why) return false;
  if (current.kind === 'wait' && wanted.kind === 'wait') return current.untilMs === wanted.untilMs;
  if (current.kind === 'watch' && wanted.kind === 'watch') return sameWatch(current, wanted);
  return true;
}

function sameWatch(current: WatchStep, wanted: WatchStep): boolean {
  return (
    current.known === wanted.known &&
    current.judgement?.change === wanted.judgement?.change &&
    current.judgement?.verdict === wanted.judgement?.verdict &&
    // A later deadline is no reason to begin again: the watch ends at its own and the next one takes the new.
    wanted.untilMs >= current.untilMs
  );
}

function nameOf(f: Failover): string {
  return f.synthetic?.name ?? 'the synthetic cell';
}

function enteredMs(f: Failover): number {
  return f.phaseTimes.at(-1)?.atMs ?? f.startedAtMs;
}
