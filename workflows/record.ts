/** What a step changes in what a failover knows: before it (so that a crash finds the way back prepared) and after it. */
import { asks, holdAtMostMs, isEvacuated, whyGivenUp } from './aim';
import { iso, note } from './dossier';
import type { Failover, FailoverContext, Judgement, Leftover, SourceState } from './failover';
import { largestTake, percent } from './failover';
import type { TimedStep } from './fleet';
import { cooldownOf, limitsOn, trustReach } from './guards';
import { labelOf, watchedUntilMs, witness } from './label';
import type { Phase } from './messages';
import { planOf } from './plan';
import { isSameReason, whyUnchanged } from './reasons';
import type { Acknowledgement, Observation, Rested, ShiftResult, ShiftStep, Step, StepResult } from './steps';

const refusedChangeRetryMs = 3000;

/**
 * Before a step: its phase, its reason, and what must be undone if it is never heard of again. Compensation follows from
 * what is set here, so it is in place before the side effect.
 */
export function intend(f: Failover, step: Step, nowMs: number): Failover {
  const entered = {
    ...enter(f, step.phase, nowMs),
    ...(f.endsUndecided && !f.conclusion && { givenUp: f.givenUp ?? whyGivenUp(f, nowMs) }),
  };
  const next = considered(explain(entered, step, nowMs), step, nowMs);
  if (step.kind === 'ensure') {
    const unknown = { name: null, instances: 0, reused: false, state: 'creating' as const };
    return { ...next, synthetic: next.synthetic ?? unknown };
  }
  if (step.kind === 'shift') return { ...next, changes: next.changes + 1, mayCarry: true, refusedChange: null };
  if (step.kind === 'label') return finallyLabelled(next, nowMs);
  if (step.kind !== 'conclude') return next;

  const { outcome, reason } = step;
  const cooldownUntilMs = nowMs + cooldownOf(f, f.synthetic !== null && outcome !== 'failed-over', nowMs);
  // A risk that rose again while the synthetic cell was being sent to rest is the next failover's.
  const anew = outcome === 'drained' && !f.order && f.risk && f.risk.last.level !== 'clear' ? f.risk.last : null;
  const label = f.context?.fleet ? labelOf(next, nowMs) : null;
  const told = label ? note(next, nowMs, `the prediction: ${label.kind}; ${label.why}`, { label }) : next;
  const ended = {
    ...note(told, nowMs, `ended as ${outcome}: ${reason}`),
    label,
    anew,
    conclusion: { outcome, reason, atMs: nowMs, cooldownUntilMs, saved: false },
  };
  if (!ended.watchesPastHorizon) return ended;
  return { ...ended, labelIsFinal: watchedUntilMs(ended) === null && f.context?.mirrorBp === undefined };
}

/** The label after the source was watched past the time predicted; what was kept is kept anew where that has changed it. */
function finallyLabelled(f: Failover, nowMs: number): Failover {
  const label = labelOf(f, nowMs);
  const conclusion = f.conclusion && { ...f.conclusion, saved: false };
  const final = { ...f, label, labelIsFinal: true, conclusion };
  if (label.kind === f.label?.kind && label.why === f.label.why) return final;
  return note(final, nowMs, `the prediction, in the end: ${label.kind}; ${label.why}`, { label });
}

/** What it knows about its own freedom and its plan is told when it changes: these lines say why nothing else was done. */
function considered(f: Failover, step: Step, nowMs: number): Failover {
  if (!f.context?.fleet || f.conclusion) return { ...f, stepAtMs: nowMs };
  let next: Failover = { ...f, stepAtMs: nowMs };
  const [narrowest] = limitsOn(f, nowMs);
  if (narrowest?.why !== f.limited?.why) {
    const { guard, reach, why, liftable } = narrowest ?? {};
    const sinceMs = f.limited && f.limited.guard === guard ? f.limited.sinceMs : nowMs;
    const limited = guard && reach ? { guard, reach, why: why!, liftable: liftable!, sinceMs } : null;
    const what = limited ? `limited to ${reach} (${guard}): ${why}` : `no longer limited: ${f.limited?.why}`;
    next = note({ ...next, limited }, nowMs, what);
    if (narrowest?.page) next = page(next, nowMs, narrowest.why);
  }
  const plan = f.risk?.last.level === 'shift' ? planOf(f, nowMs) : null;
  if (plan && plan.kind !== f.plan?.kind) {
    const { kind, why, ...evidence } = plan;
    next = note(next, nowMs, `plan ${kind}: ${why}`, evidence);
  }
  if (plan) {
    // Its sentence has figures that change with every second: the one is kept that it was chosen by.
    const why = plan.kind === f.plan?.kind ? f.plan.why : plan.why;
    next = { ...next, plan: { kind: plan.kind, canaryBp: plan.canaryBp, ...(why !== undefined && { why }) } };
  }
  if (asks(f) && (f.askedAtMs === null || f.askedAtMs === undefined)) {
    const { waitS, byDefault } = f.context.policy.approval;
    const silence = byDefault === 'act' ? `goes on by itself after ${waitS} s unless somebody objects` : 'waits';
    next = page({ ...next, askedAtMs: nowMs }, nowMs, `a person is asked to approve; the failover ${silence}`);
  }
  return step.kind === 'watch' && step.why.startsWith('a person is needed') ? page(next, nowMs, step.why) : next;
}

/** Calls a person, once for each reason. */
function page(f: Failover, nowMs: number, why: string): Failover {
  const pages = f.pages ?? [];
  if (pages.some((p) => isSameReason(p.why, why))) return f;
  const told = note(f, nowMs, `a person is called: ${why}`, { page: true });
  return { ...told, pages: [...pages, { atMs: nowMs, why }].slice(-50) };
}

const timed: Partial<Record<Step['kind'], TimedStep>> = { ensure: 'ensure', warm: 'warm', arm: 'arm', shift: 'shift' };

/** How long it took is kept for later plans; an idle cell that is taken again says nothing about making one. */
function timedStep(f: Failover, step: Step, result: StepResult, nowMs: number): Failover {
  const name = timed[step.kind];
  const isReused = result.kind === 'ensured' && result.result.reused;
  if (!name || isReused || result.kind === 'failed' || result.kind === 'nothing' || f.stepAtMs === undefined) return f;
  return { ...f, took: [...(f.took ?? []), { step: name, ms: Math.max(0, nowMs - f.stepAtMs) }].slice(-100) };
}

/** After a step: what it came to. */
export function record(f: Failover, step: Step, result: StepResult, nowMs: number): Failover {
  return witness(recorded(timedStep(f, step, result, nowMs), step, result, nowMs), nowMs);
}

function recorded(f: Failover, step: Step, result: StepResult, nowMs: number): Failover {
  switch (result.kind) {
    case 'nothing':
      return f;
    case 'done':
      return done(withRest(f, result.rested, nowMs), step);
    case 'failed':
      return failed(f, step, result.reason, nowMs);
    case 'loaded': {
      const { context } = result;
      const traffic = {
        ...f.traffic,
        sourceBp: context.sourceBp,
        capacityBp: context.capacityBp,
        epoch: context.epoch,
      };
      const what = `policy ${context.policy.autonomy}, blueprint ${context.blueprint.name}@${context.blueprint.version}`;
      const known: Failover = { ...f, context, traffic, ...(context.fleet && { fleetAtMs: nowMs }) };
      if (f.risk) known.trustReach = trustReach(known, f.risk.last.trust);
      const told = note(known, nowMs, `${what}; ${f.cell} carries ${percent(context.sourceBp)}`);
      return context.leftover ? takenUp(told, context, context.leftover, nowMs) : told;
    }
    case 'turn':
      return { ...f, hasTurn: true };
    case 'surveyed': {
      // What was not measured when the failover began may be by now.
      const capacityBp = result.facts.capacityBp ?? f.traffic.capacityBp;
      const traffic = { ...f.traffic, capacityBp };
      return { ...f, traffic, fleet: result.facts, fleetAtMs: nowMs, surveyFailedAtMs: null };
    }
    case 'ensured': {
      const { cell, instances, reused, tookMs } = result.result;
      const how = reused ? 'an idle synthetic cell was taken again' : 'a synthetic cell was made';
      const synthetic = { name: cell, instances, reused, state: 'ready' as const };
      return note({ ...f, synthetic }, nowMs, `${how}: ${cell}, ${instances} instances, ready after ${tookMs} ms`, {
        reused,
      });
    }
    case 'warmed': {
      const { passed, summary, evidence } = result.result;
      const told = note(f, nowMs, passed ? `warm: ${summary}` : `warm-up failed: ${summary}`, evidence);
      return passed ? inState(told, 'warm') : { ...told, trouble: `warm-up failed: ${summary}` };
    }
    case 'armed': {
      const armed = enter(inState(f, 'armed'), 'armed', nowMs);
      const { acknowledgement, evidence } = acknowledged(result.result);
      const what = `armed: ${f.synthetic?.name} stands as cover at priority 1, ${acknowledgement}`;
      return note({ ...armed, traffic: { ...armed.traffic, epoch: result.result.epoch } }, nowMs, what, evidence);
    }
    case 'shifted':
      return shifted({ ...f, mayCarry: false }, step as ShiftStep, result.result, nowMs);
    case 'observed':
      return observed(f, result.observation, nowMs);
  }
}

/**
 * An earlier run ended with the split left as it is. What its synthetic cell carries is the truth to begin from: the cell
 * is armed already, and every decision, forward or back, follows from its share.
 */
function takenUp(f: Failover, context: FailoverContext, leftover: Leftover, nowMs: number): Failover {
  const { syntheticCell, instances, shareBp } = leftover;
  const { autonomy } = context.policy;
  const what = `${syntheticCell} of an earlier failover still carries ${percent(shareBp)}`;
  if (autonomy === 'observe' || autonomy === 'advise') {
    return note(f, nowMs, `${what}; under autonomy ${autonomy} it is left as it is`);
  }
  const next: Failover = {
    ...enter(f, 'shifting', nowMs),
    synthetic: { name: syntheticCell, instances, reused: true, state: 'armed' },
    traffic: { ...f.traffic, syntheticBp: shareBp },
    judgement: judgementOfLeftover(f, context, leftover, nowMs),
  };
  const evacuatedAtMs = isEvacuated(next, largestTake(next)) ? nowMs : null;
  return note({ ...next, evacuatedAtMs }, nowMs, `${what}: this failover goes on from there`, { leftover });
}

/** Nothing that was seen before counts: whichever cell is to get more next is looked at first. */
function judgementOfLeftover(f: Failover, context: FailoverContext, { totals }: Leftover, nowMs: number): Judgement {
  const { canaryTimeoutS, stepIntervalS, reductionIntervalS, holdAtMostS } = context.policy;
  const common = { change: f.changes, sinceMs: nowMs, verdict: 'open' as const };
  if (f.risk?.last.level === 'clear' || f.order) {
    const notBeforeMs = nowMs + reductionIntervalS * 1000;
    const timeoutMs = notBeforeMs + holdAtMostS * 1000;
    return { ...common, of: 'source', baseline: totals.source, notBeforeMs, timeoutMs };
  }
  const notBeforeMs = nowMs + stepIntervalS * 1000;
  const timeoutMs = nowMs + Math.max(canaryTimeoutS, stepIntervalS) * 1000;
  return { ...common, of: 'synthetic', baseline: totals.synthetic, notBeforeMs, timeoutMs };
}

function withRest(f: Failover, rested: Rested | undefined, nowMs: number): Failover {
  return rested ? note(f, nowMs, `${f.synthetic?.name} rests ${rested.how}: ${rested.why}`) : f;
}

function done(f: Failover, step: Step): Failover {
  if (step.kind === 'save') return f.conclusion ? { ...f, conclusion: { ...f.conclusion, saved: true } } : f;
  if (step.kind === 'rest' || step.kind === 'retire') {
    const synthetic = f.synthetic && { ...f.synthetic, state: 'gone' as const };
    return { ...f, synthetic, sentAway: { outcome: step.outcome, reason: step.why } };
  }
  return f;
}

/**
 * A step that failed for good. What moves forward is undone; what already goes back cannot be replaced by anything
 * better: the failover then holds itself and asks for a person, whose `resume` tries again.
 */
function failed(f: Failover, step: Step, reason: string, nowMs: number): Failover {
  if (step.kind === 'survey') return { ...f, surveyFailedAtMs: nowMs };
  if (step.kind === 'label') return f;
  const told = note(f, nowMs, `${step.kind}${step.kind === 'shift' ? ` (${step.purpose})` : ''} failed: ${reason}`);
  const what = `${step.kind} failed: ${reason}`;
  const leadsForward =
    step.kind === 'load' ||
    step.kind === 'await-turn' ||
    step.kind === 'ensure' ||
    step.kind === 'warm' ||
    step.kind === 'arm' ||
    (step.kind === 'shift' && isForward(step.purpose));
  if (leadsForward) return { ...told, trouble: f.trouble ?? what };
  if (step.kind === 'save') return done(told, step);
  const order = step.kind === 'shift' && step.purpose === 'ordered' ? { orderedStepBp: null } : {};
  return heldForPerson({ ...told, ...order }, what, nowMs);
}

/** Those that a prediction makes. */
function isForward(purpose: ShiftStep['purpose']): boolean {
  return purpose === 'canary' || purpose === 'step' || purpose === 'emergency';
}

function shifted(f: Failover, step: ShiftStep, result: ShiftResult, nowMs: number): Failover {
  const { sourceBp, syntheticBp, capacityBp, epoch } = result;
  let next: Failover = { ...f, traffic: { sourceBp, syntheticBp, capacityBp, epoch } };
  if (step.purpose === 'ordered') next = { ...next, orderedStepBp: null };
  if (!result.applied || !result.acknowledgement) {
    const refusedChange = { why: result.why, retryAtMs: nowMs + refusedChangeRetryMs };
    const isSame = f.lastRefusal?.purpose === step.purpose && isSameReason(f.lastRefusal.why, result.why);
    const lastRefusal = isSame ? f.lastRefusal! : { why: result.why, purpose: step.purpose, sinceMs: nowMs };
    next = { ...next, refusedChange, lastRefusal };
    // It is tried again every few seconds: the same reason is told once.
    const told = isSame ? next : note(next, nowMs, `the split was not changed (${step.purpose}): ${result.why}`);
    return isBack(step.purpose) ? wayBackRefused(told, result.why, nowMs) : told;
  }
  next = { ...next, lastRefusal: null, wayBackRefusedSinceMs: null };
  const { acknowledgement, evidence } = acknowledged(result.acknowledgement);
  const what = `${step.purpose}: ${f.synthetic?.name} carries ${percent(syntheticBp)}, ${f.cell} ${percent(sourceBp)}; ${acknowledgement}`;
  next = note(next, nowMs, what, { ...evidence, why: result.why });
  next = {
    ...next,
    steps: [
      ...next.steps,
      {
        at: iso(nowMs),
        epoch,
        split: result.acknowledgement.split,
        reason: `${step.purpose}: ${step.why}`,
        acknowledgedBy: result.acknowledgement.acknowledged.length,
      },
    ],
    judgement: judgementOf(next, step, result, nowMs),
    proven: syntheticBp > 0 && next.proven,
  };
  if (step.purpose === 'complete' && syntheticBp < step.targetBp) {
    // It took what it could: the capacity is what was granted.
    next = { ...next, traffic: { ...next.traffic, capacityBp: syntheticBp } };
  }
  const evacuated = isEvacuated(next, largestTake(next)) && step.purpose !== 'reduce';
  next = { ...next, evacuatedAtMs: evacuated ? (f.evacuatedAtMs ?? nowMs) : null };
  // A proxy that refused the configuration serves the old one: two truths about one split are worse than none.
  const refusals = result.acknowledgement.refused;
  if (refusals.length > 0 && isForward(step.purpose)) {
    const first = refusals[0];
    return { ...next, trouble: `proxy ${first?.node} refused the split: ${first?.reason}` };
  }
  return next;
}

function isBack(purpose: ShiftStep['purpose']): boolean {
  return purpose === 'reduce' || purpose === 'give-back';
}

/**
 * A way back that is refused for `holdAtMostS` is not tried all night: the failover holds, the synthetic cell goes on
 * carrying, and a person's `resume` tries again. What leads forward ends with the risk.
 */
function wayBackRefused(f: Failover, why: string, nowMs: number): Failover {
  const sinceMs = f.wayBackRefusedSinceMs ?? nowMs;
  const refused = { ...f, wayBackRefusedSinceMs: sinceMs };
  if (!f.boundsRefusedWayBack || nowMs - sinceMs < holdAtMostMs(f)) return refused;
  const what = `nobody can take the traffic back: ${why}`;
  return heldForPerson({ ...refused, wayBackRefusedSinceMs: null }, what, nowMs);
}

/** Holds by itself and calls a person. */
function heldForPerson(f: Failover, what: string, nowMs: number): Failover {
  const reason = `${what}; resume to try again`;
  const held = { ...f, held: { by: 'understudy', reason, sinceMs: nowMs } };
  return f.boundsRefusedWayBack ? page(held, nowMs, reason) : held;
}

/** What is to be judged after a change: the synthetic cell on the way out, the source on the way back. */
function judgementOf(f: Failover, step: ShiftStep, result: ShiftResult, nowMs: number): Judgement | null {
  const { canaryTimeoutS, stepIntervalS, reductionIntervalS } = f.context!.policy;
  const common = { change: f.changes, sinceMs: nowMs, verdict: 'open' as const };
  switch (step.purpose) {
    case 'canary':
    case 'step':
    case 'emergency':
    case 'ordered':
      return {
        ...common,
        of: 'synthetic',
        baseline: result.totals.synthetic,
        peers: result.totals.peers ?? null,
        notBeforeMs: nowMs + (step.purpose === 'canary' ? 0 : stepIntervalS * 1000),
        timeoutMs: nowMs + Math.max(canaryTimeoutS, stepIntervalS) * 1000,
      };
    case 'reduce':
      if (result.syntheticBp === 0) return null;
      return {
        ...common,
        of: 'source',
        baseline: result.totals.source,
        notBeforeMs: nowMs + reductionIntervalS * 1000,
        timeoutMs: nowMs + reductionIntervalS * 1000 + holdAtMostMs(f),
      };
    case 'complete':
    case 'give-back':
      return null;
  }
}

function observed(f: Failover, seen: Observation, nowMs: number): Failover {
  let next: Failover = {
    ...f,
    traffic: {
      sourceBp: seen.sourceBp,
      syntheticBp: seen.syntheticBp,
      capacityBp: seen.capacityBp,
      epoch: seen.epoch,
    },
  };
  if (seen.epoch !== f.traffic.epoch && seen.syntheticBp !== f.traffic.syntheticBp) {
    const what = `somebody else changed the split: ${f.synthetic?.name} carries ${percent(seen.syntheticBp)}`;
    next = note(next, nowMs, what, { epoch: seen.epoch });
  }
  if (seen.excused) next = note(next, nowMs, `errors of ${f.synthetic?.name} do not count: ${seen.excused}`);
  if (seen.source !== f.source.state) {
    next = { ...next, source: { state: seen.source, sinceMs: nowMs } };
    next = note(next, nowMs, sourceSentence(f, seen), { rates: seen.rates });
  }
  return judged(next, seen, nowMs);
}

function judged(f: Failover, seen: Observation, nowMs: number): Failover {
  const { judgement } = f;
  if (!judgement) return f;
  const evidence = { judged: seen.judged, rates: seen.rates };
  const cell = judgement.of === 'synthetic' ? f.synthetic?.name : f.cell;
  if (seen.verdict === 'bad') {
    const what = `${cell} failed its judgement: ${figures(seen)}`;
    const next = note({ ...f, judgement: { ...judgement, verdict: 'bad' } }, nowMs, what, evidence);
    return judgement.of === 'synthetic' ? { ...next, trouble: what } : next;
  }
  if (seen.verdict === 'good' && judgement.verdict !== 'good') {
    const baseline = seen.totals[judgement.of];
    const peers = seen.totals.peers ?? judgement.peers ?? null;
    const settled = { ...f, judgement: { ...judgement, verdict: 'good' as const, baseline, peers } };
    const next = { ...settled, proven: f.proven || judgement.of === 'synthetic' };
    return note(next, nowMs, `${cell} passed its judgement: ${figures(seen)}`, evidence);
  }
  if (judgement.verdict === 'open' && nowMs >= judgement.timeoutMs) {
    const what = `no verdict on ${cell} in time: ${figures(seen)}; the share stays as it is`;
    return note({ ...f, judgement: { ...judgement, verdict: 'inconclusive' } }, nowMs, what, evidence);
  }
  return f;
}

function figures(seen: Observation): string {
  if (!seen.judged) return 'no load report covers it';
  const against = seen.against ? `, judged against ${seen.against}` : '';
  return `${seen.judged.errors} errors in ${seen.judged.requests} requests${against}`;
}

function sourceSentence(f: Failover, seen: Observation): string {
  const health = `${seen.healthyInstances} of ${seen.instances} instances answer their health checks`;
  const what: Record<SourceState, string> = { dead: 'is dead', failing: 'is failing', alive: 'is alive' };
  return `${f.cell} ${what[seen.source]}: ${health}`;
}

function acknowledged(a: Acknowledgement): { acknowledgement: string; evidence: Record<string, unknown> } {
  const words = [`acknowledged by ${a.acknowledged.length} proxies in ${a.tookMs} ms`];
  if (a.refused.length > 0) words.push(`refused by ${a.refused.map((r) => r.node).join(', ')}`);
  if (a.pending.length > 0) words.push(`still pending at ${a.pending.join(', ')}`);
  return { acknowledgement: words.join(', '), evidence: { ...a } };
}

function inState(f: Failover, state: 'warm' | 'armed'): Failover {
  return f.synthetic ? { ...f, synthetic: { ...f.synthetic, state } } : f;
}

function enter(f: Failover, phase: Phase, nowMs: number): Failover {
  if (f.phase === phase) return f;
  return { ...f, phase, phaseTimes: [...f.phaseTimes, { phase, atMs: nowMs }].slice(-100) };
}

/** Why it waits is worth a line when it changes; what it does is told by the result. */
function explain(f: Failover, step: Step, nowMs: number): Failover {
  const isWait = step.kind === 'watch' || step.kind === 'wait';
  // A look at the fleet in between does not make the same wait a new one.
  if (step.why === f.lastWhy || step.kind === 'survey') return f;
  const told = { ...f, lastWhy: step.why };
  // Why a change was refused has a line of its own already.
  const isToldAlready = f.refusedChange !== null && step.why === whyUnchanged(f.refusedChange);
  return isWait && !isToldAlready ? note(told, nowMs, step.why) : told;
}
