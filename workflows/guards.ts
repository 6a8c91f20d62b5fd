/** What limits a failover beyond its risk: each guard is a pure function that says how far one may go, and why no further. */
import type { BlockedWindow } from '../blueprints/schema';
import { commonCause } from './breaker';
import type { Failover } from './failover';
import type { FleetFacts, RisingCell } from './fleet';
import { whyItWouldFollow } from './portability';

/** How far a failover may go by itself. `prepare`: make, warm and arm; `canary`: the first share; `shift`: all of it. */
export const reaches = ['nothing', 'prepare', 'canary', 'shift'] as const;
export type Reach = (typeof reaches)[number];

export interface Limit {
  guard: GuardName;
  reach: Reach;
  /** One sentence for a person; without figures that change from event to event. */
  why: string;
  /** A person who approves takes it away. */
  liftable: boolean;
  /** A person is called. */
  page: boolean;
  /** When it may end by itself; null: not by time. */
  untilMs: number | null;
}

export const guardNames = [
  'stop',
  'autonomy',
  'trust',
  'breaker',
  'budget',
  'cool-down',
  'portability',
  'window',
] as const;
export type GuardName = (typeof guardNames)[number];

type Found = Omit<Limit, 'guard'>;
type Guard = (f: Failover, facts: FleetFacts, nowMs: number) => Found | null;

const dayMs = 24 * 3_600_000;

/** Each guard by its name, in the order in which they are told where several limit equally. */
const guards: Record<GuardName, Guard> = {
  stop: (_, { stop }) =>
    stop && limit('nothing', `the whole fleet is stopped by ${stop.by}: ${stop.reason}`, { liftable: false }),
  autonomy,
  trust,
  breaker,
  budget,
  'cool-down': coolDown,
  portability,
  window: blockedWindow,
};

/** All that limits the failover now, the narrowest first. Without facts about the fleet (runs from before them): nothing. */
export function limitsOn(f: Failover, nowMs: number): Limit[] {
  const facts = f.fleet ?? f.context?.fleet;
  if (!facts || !f.context) return [];
  const found = guardNames.flatMap((guard) => {
    const one = guards[guard](f, facts, nowMs);
    if (!one || (one.liftable && f.approved !== null)) return [];
    return [{ guard, ...one }];
  });
  return found.sort((a, b) => reaches.indexOf(a.reach) - reaches.indexOf(b.reach));
}

/** How far the failover may go now, and the limit that says so; no limit: as far as the risk justifies. */
export function reachOf(f: Failover, nowMs: number): { reach: Reach; limit: Limit | null } {
  const [narrowest] = limitsOn(f, nowMs);
  return { reach: narrowest?.reach ?? 'shift', limit: narrowest ?? null };
}

/** Nothing waits for a person where the policy lets act, or where silence has become consent. */
function autonomy(f: Failover, _: FleetFacts, nowMs: number): Found | null {
  const { autonomy: wanted, approval } = f.context!.policy;
  if (wanted !== 'approve' || f.approved !== null) return null;
  if (approval.byDefault === 'hold') return limit('prepare', 'a person must approve it', { liftable: true });
  const untilMs = f.askedAtMs === null || f.askedAtMs === undefined ? null : f.askedAtMs + approval.waitS * 1000;
  if (untilMs !== null && nowMs >= untilMs) return null;
  return limit('prepare', `a person may object for ${approval.waitS} s before it goes on`, { liftable: true, untilMs });
}

/** Trust once granted is taken back only well below its threshold, see `trustReach`. */
function trust(f: Failover): Found | null {
  const reach = f.trustReach ?? 'shift';
  // A source that is seen dead needs no telemetry to say so.
  if (reach === 'shift' || f.source.state === 'dead') return null;
  const whys: Record<Exclude<Reach, 'shift'>, string> = {
    nothing: 'the telemetry behind the risk cannot be trusted: nothing new is begun on it',
    prepare: 'the telemetry behind the risk is not trusted enough to move traffic on it',
    canary: 'the telemetry behind the risk is trusted enough for a canary, not for more',
  };
  return limit(reach, whys[reach], { liftable: false });
}

function breaker(f: Failover, facts: FleetFacts): Found | null {
  // A source that is seen to fail is no mere prediction any more.
  if (f.source.state !== 'alive') return null;
  const cause = commonCause(facts, ownOf(f), f.context!.policy.breaker);
  return cause && limit('nothing', cause.what, { liftable: true, page: true });
}

/** Only what has not begun: what stands already costs the same whether it is used or not. */
function budget(f: Failover, facts: FleetFacts, nowMs: number): Found | null {
  if (f.synthetic !== null) return null;
  const { failoversPerDay, standbyCellHoursPerDay, concurrentInFleet } = f.context!.policy.budget;
  const today = facts.past.filter((p) => p.hadCell && nowMs - p.endedAtMs < dayMs);
  if (today.length >= failoversPerDay) {
    const untilMs = Math.min(...today.map((p) => p.endedAtMs)) + dayMs;
    const why = `${f.service} has had ${today.length} failovers within 24 h, its budget is ${failoversPerDay}`;
    return limit('nothing', why, { liftable: true, page: true, untilMs });
  }
  if (facts.standbyCellHours >= standbyCellHoursPerDay) {
    const why = `synthetic cells of ${f.service} have stood by for ${standbyCellHoursPerDay} h or more within 24 h: that is the budget`;
    return limit('nothing', why, { liftable: true, page: true });
  }
  const active = facts.rising.filter((r) => r.isActive && r.cell !== f.cell).length;
  if (active >= concurrentInFleet) {
    const why = `${active} failovers of the fleet are under way, the budget is ${concurrentInFleet} at once`;
    return limit('nothing', why, { liftable: true, page: true });
  }
  return null;
}

/** A cell that turns back again and again is prepared for, but not moved until its cool-down has passed. */
function coolDown(f: Failover, facts: FleetFacts, nowMs: number): Found | null {
  const flaps = flapsOf(f, facts, nowMs);
  const { tolerated } = f.context!.policy.flapping;
  const last = Math.max(...flaps.map((p) => p.endedAtMs));
  const untilMs = last + coolDownMs(f, flaps.length);
  if (flaps.length <= tolerated || nowMs >= untilMs) return null;
  const why = `failovers of ${f.cell} have turned back ${flaps.length} times within 24 h: it is cooling down`;
  return limit('prepare', why, { liftable: true, untilMs });
}

function flapsOf(f: Failover, facts: FleetFacts, nowMs: number) {
  return facts.past.filter(
    (p) => p.cell === f.cell && p.hadCell && p.outcome !== 'failed-over' && nowMs - p.endedAtMs < dayMs,
  );
}

/** The cooldown after so many that turned back: the policy's, and longer with each beyond those tolerated. */
function coolDownMs(f: Failover, flaps: number): number {
  const { cooldownS, flapping } = f.context!.policy;
  const beyond = Math.max(0, flaps - flapping.tolerated);
  const grown = Math.min(cooldownS * flapping.factor ** beyond, flapping.atMostS);
  return Math.max(cooldownS, grown) * 1000;
}

/** How long this failover stays open after its end. */
export function cooldownOf(f: Failover, turnsBack: boolean, nowMs: number): number {
  const facts = f.fleet ?? f.context?.fleet;
  if (!facts || !f.context) return (f.context?.policy.cooldownS ?? 0) * 1000;
  return coolDownMs(f, flapsOf(f, facts, nowMs).length + (turnsBack ? 1 : 0));
}

function portability(f: Failover, facts: FleetFacts): Found | null {
  const { portability: upTo } = f.context!.policy;
  if (upTo === 'ignore' || f.source.state !== 'alive') return null;
  const why = whyItWouldFollow(facts, ownOf(f), f.risk?.last.drivers ?? []);
  return why === null ? null : limit(upTo, `the cause would probably follow: ${why}`, { liftable: true, page: true });
}

function blockedWindow(f: Failover, _: FleetFacts, nowMs: number): Found | null {
  for (const window of f.context!.policy.blockedWindows) {
    const untilMs = endOfWindow(window, nowMs);
    if (untilMs === null) continue;
    const why = `automatic failover is not wanted from ${window.from} to ${window.to} UTC`;
    return limit(window.allow, why, { liftable: true, untilMs });
  }
  return null;
}

const days = ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat'] as const;

/** When the window that is open now ends; null if it is closed. */
export function endOfWindow({ days: wanted, from, to }: BlockedWindow, nowMs: number): number | null {
  const midnight = Math.floor(nowMs / dayMs) * dayMs;
  const lengthMs = (timeMs(to) - timeMs(from) + dayMs) % dayMs || dayMs;
  // It may have begun yesterday.
  for (const day of [midnight - dayMs, midnight]) {
    const beginMs = day + timeMs(from);
    const isWanted = wanted.includes(days[new Date(day).getUTCDay()]!);
    if (isWanted && nowMs >= beginMs && nowMs < beginMs + lengthMs) return beginMs + lengthMs;
  }
  return null;
}

function timeMs(time: string): number {
  return (Number(time.slice(0, 2)) * 60 + Number(time.slice(3))) * 60_000;
}

/** How far the trust in a risk reaches, with hysteresis: what was granted is taken back only `margin` below its threshold. */
export function trustReach(f: Failover, trusted: number): Reach {
  const policy = f.context?.policy;
  if (!policy?.trust) return 'shift';
  const { prepare, full, margin } = policy.trust;
  const granted = reaches.indexOf(f.trustReach ?? 'nothing');
  const holds = (reach: Reach, threshold: number) =>
    trusted >= threshold - (granted >= reaches.indexOf(reach) ? margin : 0);
  if (!holds('prepare', prepare)) return 'nothing';
  if (!holds('canary', Math.max(prepare, policy.minTrust))) return 'prepare';
  return holds('shift', Math.max(full, policy.minTrust)) ? 'shift' : 'canary';
}

/** This failover as the others see it. */
function ownOf(f: Failover): RisingCell {
  const { blueprint, zone } = f.context!;
  return {
    service: f.service,
    cell: f.cell,
    zone,
    blueprint: `${blueprint.name}@${blueprint.version}`,
    sinceMs: f.startedAtMs,
    isActive: f.synthetic !== null,
    metric: causeOf(f).metric,
    model: causeOf(f).model,
  };
}

/** What others are told of this failover's cause. */
export function causeOf(f: Failover): { metric: string | null; model: string | null } {
  const risk = f.risk?.last;
  return { metric: risk?.drivers?.find((d) => d.direction === 'up')?.metric ?? null, model: risk?.model ?? null };
}

function limit(reach: Reach, why: string, { liftable, page = false, untilMs = null }: Partial<Found>): Found {
  return { reach, why, liftable: liftable ?? false, page, untilMs };
}
