/** From what a failover knows and the time to its next step: the move of the transition table, and the gates before it. Pure. */
import type { Aim } from './aim';
import { aimOf, holdAtMostMs, undecidedSinceMs } from './aim';
import type { Failover, ShiftPurpose } from './failover';
import { isArmed, largestShare, largestTake, percent, shareAtStake } from './failover';
import type { GuardName } from './guards';
import { watchedUntilMs } from './label';
import type { Outcome, Phase } from './messages';
import { planOf } from './plan';
import { whyUnchanged } from './reasons';
import type { Step, WatchStep } from './steps';
import type { Move } from './transitions';
import { standingOf, transitions } from './transitions';

/** A watch is looked at anew at least this often, so that none can hang for ever. */
const longestWatchMs = 10 * 60_000;
const patienceWithoutRiskMs = 60_000;
/** Facts about the fleet older than this move nothing. */
const factsFreshMs = 10_000;
/** How often what others do is looked at while it holds this failover up. */
const factsWaitedForMs = 20_000;
const surveyRetryMs = 3000;
/** How soon load reports are looked for again. */
const measuredAgainMs = 2000;
/** Guards that depend on what others do. */
const lookedAtAnew: GuardName[] = ['stop', 'breaker', 'budget', 'portability'];
const whyOnlyArmed = 'no time is left for a canary: the synthetic cell stands as cover and moves nothing';
const whyUndecided = 'no verdict on the last shift, for want of requests or load reports; the share stays as it is';
const whyEmergency = 'the risk justifies moving traffic, and no time is left for a canary';

/** The next step, or what is being waited for. Asked again after every result, message and timer. */
export function decide(f: Failover, nowMs: number): Step {
  if (f.conclusion) return afterwards(f, f.conclusion, nowMs);
  if (f.sentAway) return conclude(f.sentAway.outcome, f.sentAway.reason);
  if (!f.context) return assess(f, nowMs);
  const aim = aimOf(f, nowMs);
  const move = transitions[aim.kind][standingOf(f)];
  return survey(f, aim, move, nowMs) ?? stepFor(f, aim, move, nowMs);
}

/** The table's move as a step; its own gate may make it wait. */
function stepFor(f: Failover, aim: Aim, move: Move, nowMs: number): Step {
  const { why } = aim;
  const untilMs = 'untilMs' in aim ? aim.untilMs : null;
  switch (move) {
    case 'stay':
      return stay(f, aim.kind === 'take' ? evacuatedWhy : why, soonest(untilMs, lookAgainMs(f, aim)), nowMs);
    case 'begin':
      return beginning(f, why);
    case 'make':
      return { kind: 'ensure', phase: 'provisioning', why };
    case 'warm':
      return { kind: 'warm', phase: 'warming', why };
    case 'arm':
      return { kind: 'arm', phase: 'warming', why: 'the synthetic cell is warm' };
    case 'canary':
      return canary(f, aim as Taking, nowMs);
    case 'step':
      return further(f, aim as Taking, nowMs);
    case 'complete':
      return complete(f, why, nowMs);
    case 'ordered': {
      const targetBp = Math.min((aim as Aim & { kind: 'ordered-step' }).shareBp, largestShare(f));
      return shift(f, nowMs, { purpose: 'ordered', phase: 'shifting', targetBp, why });
    }
    case 'reduce':
      return reduce(f, aim as Returning, nowMs);
    case 'give-back':
      return shift(f, nowMs, { purpose: 'give-back', phase: 'draining', targetBp: 0, why });
    case 'send-away':
      return sendAway(f, aim as Returning);
    case 'conclude':
      return end(aim as Returning);
  }
}

type Taking = Aim & { kind: 'take' };
type Returning = Aim & { outcome: Outcome };

const evacuatedWhy = 'the synthetic cell carries all it can; waiting for the source to die or the risk to clear';

/** What others do is looked at anew before a step that depends on it, and while it is what holds the failover up. */
function survey(f: Failover, aim: Aim, move: Move, nowMs: number): Step | null {
  if (!f.context?.fleet) return null;
  const ageMs = nowMs - (f.fleetAtMs ?? f.startedAtMs);
  const isNeeded = move === 'begin' || move === 'canary' || move === 'step';
  const lookAgain = lookAgainMs(f, aim);
  if (!(isNeeded && ageMs >= factsFreshMs) && (lookAgain === null || nowMs < lookAgain)) return null;
  const retryAtMs = (f.surveyFailedAtMs ?? -Infinity) + surveyRetryMs;
  if (nowMs < retryAtMs) {
    return stay(
      f,
      'what happens in the rest of the fleet cannot be read: no traffic is moved on old facts',
      retryAtMs,
      nowMs,
    );
  }
  return { kind: 'survey', phase: phaseOfStaying(f), why: 'what happens in the rest of the fleet?' };
}

/** When facts that hold this failover up are to be looked at anew; null where nothing depends on them. */
function lookAgainMs(f: Failover, aim: Aim): number | null {
  const waits = aim.kind === 'hold' || aim.kind === 'prepare' || aim.kind === 'take';
  if (
    !waits ||
    f.held !== null ||
    f.limited === null ||
    f.limited === undefined ||
    !lookedAtAnew.includes(f.limited.guard)
  )
    return null;
  return (f.fleetAtMs ?? f.startedAtMs) + factsWaitedForMs;
}

function soonest(a: number | null, b: number | null): number | null {
  if (a === null || b === null) return a ?? b;
  return Math.min(a, b);
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

/** Whether there is anything to begin, and whose turn it is. */
function beginning(f: Failover, why: string): Step {
  const { policy, sourceBp } = f.context!;
  if (policy.autonomy === 'observe') return conclude('refused', `the policy of ${f.service} is to observe only`);
  if (policy.autonomy === 'advise') return conclude('refused', advice(f));
  if (sourceBp === 0) return conclude('refused', `${f.cell} carries no traffic: there is nothing to take over`);
  if (!f.hasTurn) {
    return { kind: 'await-turn', phase: 'assessing', why: `other failovers of ${f.service} may be under way` };
  }
  return { kind: 'ensure', phase: 'provisioning', why };
}

/** What autonomy `advise` says instead of doing. */
function advice(f: Failover): string {
  const { policy, sourceBp, blueprint } = f.context!;
  return (
    `the policy of ${f.service} is to advise only: this failover would make a synthetic cell from ${blueprint.name}@${blueprint.version}, ` +
    `warm and arm it, try it with ${percent(Math.min(policy.canaryBp, sourceBp))} and take over ${percent(sourceBp)} in steps of ${percent(policy.stepBp)}`
  );
}

/** The first share, as large as the plan by lead time makes it; none where the plan is not to. */
function canary(f: Failover, aim: Taking, nowMs: number): Step {
  const { policy } = f.context!;
  const largestBp = largestTake(f);
  const unmeasured = whyUnmeasured(f);
  if (unmeasured) return stay(f, unmeasured, nowMs + measuredAgainMs, nowMs);
  if (largestBp === 0) return stay(f, 'the synthetic cell has no capacity to spare', aim.untilMs, nowMs);
  const plan = planOf(f, nowMs);
  if (plan?.kind === 'arm-only') return stay(f, whyOnlyArmed, aim.untilMs, nowMs);
  if (plan?.kind === 'emergency-shift' && aim.onlyCanary === null) {
    return shift(f, nowMs, { purpose: 'emergency', phase: 'shifting', targetBp: largestBp, why: whyEmergency });
  }
  // One instance takes the canary's share; the others stay behind everything as cover.
  const coverInstances = Math.max(0, (f.synthetic?.instances ?? 1) - 1);
  const targetBp = Math.min(plan?.canaryBp ?? (policy.canaryBp || policy.stepBp), largestBp);
  return shift(f, nowMs, { purpose: 'canary', phase: 'canary', targetBp, coverInstances, why: aim.why });
}

/** Step by step, each gated on the last one's verdict, on the synthetic cell's capacity and on the plan made anew. */
function further(f: Failover, aim: Taking, nowMs: number): Step {
  const { policy } = f.context!;
  const { syntheticBp } = f.traffic;
  const largestBp = largestTake(f);
  const unmeasured = whyUnmeasured(f);
  if (unmeasured) return stay(f, unmeasured, nowMs + measuredAgainMs, nowMs);
  const plan = planOf(f, nowMs);
  const isUrgent = plan?.kind === 'emergency-shift' && aim.onlyCanary === null;
  const verdict = f.judgement?.of === 'synthetic' ? f.judgement.verdict : 'good';
  const undecidedMs = undecidedSinceMs(f);
  const isUnjudged = verdict === 'open' || undecidedMs !== null;
  if (isUnjudged && isUrgent && largestBp > syntheticBp) {
    return shift(f, nowMs, { purpose: 'emergency', phase: 'shifting', targetBp: largestBp, why: whyEmergency });
  }
  if (undecidedMs !== null) {
    // A practice wakes nobody: its drill fails and says why.
    const why = f.drill ? whyUndecided : `a person is needed: ${whyUndecided}`;
    return stay(f, why, soonest(aim.untilMs, undecidedMs + holdAtMostMs(f)), nowMs);
  }
  if (verdict !== 'good') {
    const why =
      verdict === 'inconclusive'
        ? 'no verdict on the last shift: too few requests or no load reports; the share stays as it is'
        : 'the last shift is being judged';
    return stay(f, why, aim.untilMs, nowMs);
  }
  if (aim.onlyCanary !== null) return stay(f, `the share stays as it is: ${aim.onlyCanary}`, aim.untilMs, nowMs);
  if (largestBp <= syntheticBp) return stay(f, evacuatedWhy, aim.untilMs, nowMs);
  // Half a cell that dies is the failure arriving, and so is a lead time that is used up: what has been proven takes the rest at once.
  const isShort = plan !== null && plan.kind !== 'full-canary';
  const stepBp = (f.source.state === 'failing' || isShort) && f.proven ? largestBp : policy.stepBp;
  const targetBp = Math.min(syntheticBp + stepBp, largestBp);
  return shift(f, nowMs, { purpose: 'step', phase: 'shifting', targetBp, why: aim.why });
}

/** Without a measured load nobody knows what share the synthetic cell can carry. */
function whyUnmeasured(f: Failover): string | null {
  if (!f.context?.fleet || f.traffic.capacityBp !== null) return null;
  return 'no load report tells the load: what share the synthetic cell can carry is not known';
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

/** Small steps back, each gated on the source. A gate that does not open calls a person, and in the end lets go. */
function reduce(f: Failover, aim: Returning, nowMs: number): Step {
  const { policy } = f.context!;
  const blocked = whatBlocksTheWayBack(f);
  if (blocked) {
    const sinceMs = Math.max(f.source.sinceMs, f.judgement?.of === 'source' ? f.judgement.sinceMs : 0, enteredMs(f));
    const pageAtMs = (f.phase === 'draining' ? sinceMs : nowMs) + holdAtMostMs(f);
    const untilMs = pageAtMs + (policy.operatorWaitS ?? 0) * 1000;
    if (nowMs >= untilMs) {
      return conclude('aborted', `${aim.why}, but ${blocked}: the split is left as it is and a person must decide`);
    }
    if (nowMs < pageAtMs) return stay(f, `the way back waits: ${blocked}`, pageAtMs, nowMs, 'draining');
    return stay(f, `a person is needed: the way back waits and ${blocked}`, untilMs, nowMs, 'draining');
  }
  const calmAtMs = calmFromMs(f, aim);
  if (nowMs < calmAtMs) return stay(f, whyNotCalm(f), calmAtMs, nowMs);
  if (f.judgement?.of === 'source' && f.judgement.verdict === 'open') {
    return stay(f, 'the source is being judged before more goes back', f.judgement.timeoutMs, nowMs, 'draining');
  }
  const firstBp = f.traffic.sourceBp === 0 ? policy.wayBack?.firstBp : undefined;
  const targetBp = Math.max(0, f.traffic.syntheticBp - Math.min(policy.reductionBp, firstBp ?? Infinity));
  // At zero it stands as cover again until it rests, so that a risk that returns finds it armed.
  const coverInstances = targetBp === 0 ? (f.synthetic?.instances ?? 0) : 0;
  return shift(f, nowMs, { purpose: 'reduce', phase: 'draining', targetBp, coverInstances, why: aim.why });
}

/** Below this part of its own traffic a source shows too little of itself to be called well. */
const relieved = 0.5;

/**
 * When the risk of a relieved source has been away for long enough. Most of what makes a cell ill does not show while it
 * has nothing to do; the more often it has come back with the load, the longer is waited. A person need not wait.
 */
function calmFromMs(f: Failover, aim: Returning): number {
  const wayBack = f.context!.policy.wayBack;
  const hasCleared = aim.kind === 'give-back' && f.order === null && f.risk?.last.level === 'clear';
  const isRelieved = f.traffic.sourceBp < relieved * shareAtStake(f);
  if (!wayBack || !hasCleared || !isRelieved) return 0;
  return f.risk!.heardAtMs + Math.min(wayBack.calmS * 1000 * 2 ** (f.relapses ?? 0), holdAtMostMs(f));
}

function whyNotCalm({ cell, relapses = 0 }: Failover): string {
  const before = relapses > 0 ? `, and has come back ${relapses === 1 ? 'once' : `${relapses} times`} before` : '';
  return `the risk has gone while ${cell} carries little${before}: it must stay away for a while before traffic goes back`;
}

/** A synthetic cell that failed, or was never finished, is not kept; one that is fit rests for the next time. */
function sendAway(f: Failover, aim: Returning): Step {
  const isMade = f.synthetic?.state !== 'creating' && f.synthetic?.name !== null;
  const isFit = isMade && aim.outcome !== 'compensated';
  const state = isMade ? `${nameOf(f)} carries nothing` : 'the synthetic cell was never finished';
  const why = aim.kind === 'give-back' ? `${aim.why}; ${state}` : aim.why;
  return { kind: isFit ? 'rest' : 'retire', phase: 'draining', outcome: aim.outcome, why };
}

/** The end, where nothing is left to be sent away. */
function end({ kind, outcome, why }: Returning): Step {
  if (kind === 'give-back') return conclude(outcome, `${why}; nothing had been made`);
  if (kind === 'undo') return conclude(outcome === 'compensated' ? 'refused' : outcome, why);
  return conclude(outcome, why);
}

function whatBlocksTheWayBack(f: Failover): string | null {
  if (f.source.state !== 'alive') return `instances of ${f.cell} fail their health checks`;
  if (f.judgement?.of === 'source' && f.judgement.verdict === 'bad') return `${f.cell} answers with errors`;
  return null;
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
    return stay(f, whyUnchanged(f.refusedChange), f.refusedChange.retryAtMs, nowMs, change.phase);
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
  const watchedMs = watchedUntilMs(f);
  if (watchedMs !== null && nowMs < watchedMs) {
    const why = `would ${f.cell} have failed? It is watched past the time predicted`;
    return { kind: 'watch', phase: 'cooldown', why, untilMs: watchedMs, judgement: null, known: f.source.state };
  }
  if (f.watchesPastHorizon && !f.labelIsFinal && f.label) {
    return { kind: 'label', phase: 'cooldown', why: 'was the prediction right?' };
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
