/** What a message changes in what a failover knows: risk events by their id and time, and nothing twice. */
import type { RiskEvent } from '../prediction/contracts';
import { note } from './dossier';
import type { Failover } from './failover';
import { isArmed } from './failover';
import { trustReach } from './guards';
import { witness } from './label';

/** Enough for a redelivery after an outage; older ones are caught by their time. */
const eventsRemembered = 200;

/** A risk event, from a signal. Never throws: a message that cannot be read must not stop a failover. */
export function hearRisk(f: Failover, message: unknown, nowMs: number): Failover {
  const problem = whatIsWrongWith(message, f);
  if (problem) return note(f, nowMs, `a risk event was ignored: ${problem}`);
  const event = message as RiskEvent;
  if (f.seenEvents.includes(event.eventId)) return f;
  if (isOfAnotherKind(f, event)) return f;
  if (f.drill && event.drill === undefined) return hearRisk(endDrill(f, nowMs), message, nowMs);
  const heard = { ...f, seenEvents: [...f.seenEvents, event.eventId].slice(-eventsRemembered) };
  if (f.conclusion) return absorb(heard, event, nowMs);
  if (f.risk && Date.parse(event.at) < Date.parse(f.risk.last.at)) return heard;
  const seen = sourceSeen(heard, event, nowMs);
  return isToldBetter(f, event) ? seen : hearLevel(seen, event, nowMs);
}

function hearLevel(f: Failover, event: RiskEvent, nowMs: number): Failover {
  const risk = { first: f.risk?.first ?? event, last: event, heardAtMs: nowMs };
  const asked = event.level === 'shift' ? {} : { askedAtMs: null };
  const told = witness({ ...f, ...asked, risk, ...relapsed(f, event), ...trusted(f, event) }, nowMs);
  if (f.risk?.last.level === event.level) return told;
  return note(told, nowMs, `risk is now at level ${event.level}: ${asSentence(event)}`, {
    eventId: event.eventId,
    probability: event.probability,
    horizonS: event.horizonS,
    health: event.health,
    timeToFailureS: event.timeToFailureS,
    trust: event.trust,
    drivers: event.drivers,
    model: event.model,
  });
}

/** A practice prediction means nothing to anybody but its own drill, and the end of a real risk means nothing to a drill. */
function isOfAnotherKind(f: Failover, event: RiskEvent): boolean {
  if (event.drill !== undefined) return event.drill !== f.drill?.id;
  return Boolean(f.drill) && !f.conclusion && event.level === 'clear';
}

/** A real prediction in the middle of a drill: what the drill has made is just what is needed, and the real policy holds. */
function endDrill(f: Failover, nowMs: number): Failover {
  const what = 'a real prediction came in the middle of the drill: from here on this is a real failover';
  const told = note({ ...f, drill: null, risk: null, ...(f.givenUp && { givenUp: null }) }, nowMs, what);
  if (!f.context?.drill) return told;
  const { drill, ...context } = f.context;
  return { ...told, context: { ...context, policy: drill.realPolicy } };
}

/** A death that the failure detector has seen; once there is an armed cell to act with, the failover watches for itself. */
function sourceSeen(f: Failover, { observed }: RiskEvent, nowMs: number): Failover {
  if (!observed || isArmed(f) || observed.state === f.source.state) return f;
  const told = note(f, nowMs, `${f.cell} is ${observed.state}: ${observed.why}`);
  return { ...told, source: { state: observed.state, sinceMs: nowMs } };
}

/**
 * Whether what is known already says more than the event: a prediction more than the death that it foretold, and a death
 * that is seen more than the end of a prediction, for a dead cell shows no risk.
 */
function isToldBetter({ risk }: Failover, event: RiskEvent): boolean {
  if (!risk || risk.last.level === 'clear') return false;
  if (event.observed) return !risk.last.observed;
  return risk.last.observed !== undefined && event.level === 'clear';
}

/** A risk that returns while traffic is away was gone for want of load. */
function relapsed(f: Failover, event: RiskEvent): Pick<Failover, 'relapses'> {
  const isBack = f.risk?.last.level === 'clear' && event.level !== 'clear' && f.traffic.syntheticBp > 0;
  return isBack ? { relapses: (f.relapses ?? 0) + 1 } : {};
}

/** Before the policy is known nothing is begun on the risk, so no threshold is needed. */
function trusted(f: Failover, event: RiskEvent): Pick<Failover, 'trustReach'> {
  return f.context ? { trustReach: trustReach(f, event.trust) } : {};
}

/** In the cooldown: a new episode after traffic was given back needs protection at once; the rest is late. */
function absorb(f: Failover, event: RiskEvent, nowMs: number): Failover {
  const { outcome, cooldownUntilMs, saved } = f.conclusion!;
  const isNewEpisode = event.episodeId !== f.risk?.last.episodeId;
  const isFresh = nowMs - Date.parse(event.at) < (f.context?.policy.staleAfterS ?? 15) * 1000;
  if (outcome === 'drained' && isNewEpisode && isFresh && event.level !== 'clear') return { ...f, anew: event };
  if (f.anew && event.level === 'clear' && event.episodeId === f.anew.episodeId) return { ...f, anew: null };
  // While the episode that was concluded lasts, a new failover would only come to the same end. After a compensation
  // it may not: there the cooldown runs out and the next word begins a new try.
  if (outcome === 'compensated' || event.level === 'clear' || !isFresh) return f;
  const cooldownS = f.context?.policy.cooldownS ?? 60;
  const extended = Math.max(cooldownUntilMs, nowMs + cooldownS * 1000);
  return { ...f, conclusion: { ...f.conclusion!, cooldownUntilMs: extended, saved } };
}

function whatIsWrongWith(message: unknown, f: Failover): string | null {
  const event = message as Partial<RiskEvent> | null;
  if (typeof event !== 'object' || event === null) return 'it is not an object';
  if (typeof event.eventId !== 'string' || event.eventId === '') return 'it has no eventId';
  if (event.level !== 'clear' && event.level !== 'prepare' && event.level !== 'shift') {
    return `its level is ${JSON.stringify(event.level)}, not clear, prepare or shift`;
  }
  if (typeof event.at !== 'string' || Number.isNaN(Date.parse(event.at))) return 'its time cannot be read';
  if (typeof event.probability !== 'number') return 'it has no probability';
  if (event.service !== f.service || event.cell !== f.cell) {
    return `it is about ${event.service}/${event.cell}, not ${f.service}/${f.cell}`;
  }
  return null;
}

function asSentence(event: RiskEvent): string {
  if (event.observed) return event.observed.why;
  const chance = `failure within ${event.horizonS} s with probability ${event.probability.toFixed(2)}`;
  const reasons = (event.drivers ?? [])
    .filter((d) => d.direction === 'up')
    .slice(0, 3)
    .map((d) => d.text);
  return reasons.length > 0 ? `${chance} (${reasons.join('; ')})` : chance;
}
