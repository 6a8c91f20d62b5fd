/** From scores to risk episodes: levels with hysteresis, persistence and a cap by trust. Pure. */
import type { Policy } from '../blueprints/schema';
import type { RiskLevel } from './contracts';

/** What `advance` needs of a score. */
export interface RiskReading {
  cell: string;
  /** P(failure within the policy's horizon). */
  probability: number;
  trust: number;
  /** The score says nothing: no data, too little, too old. */
  unknown: boolean;
}

export type RiskPolicy = Pick<Policy, 'prepare' | 'shift' | 'minTrust'>;

interface LevelWatch {
  active: boolean;
  /** Since when the probability has been beyond the threshold that would change `active`; null if it is not. */
  sinceMs: number | null;
}

/** An episode, or what may become one: plain data. */
export interface RiskEpisode {
  /** `<cell>@<ISO time the probability crossed>`; null until a level has been reached. */
  id: string | null;
  prepare: LevelWatch;
  shift: LevelWatch;
}

export interface RiskAdvance {
  /** Null when nothing is going on. */
  episode: RiskEpisode | null;
  level: RiskLevel;
  changed: boolean;
  /** The episode this tick belongs to, also at the tick that ends it; null outside of any. */
  episodeId: string | null;
}

const quiet: LevelWatch = { active: false, sinceMs: null };

function levelOf(episode: RiskEpisode | null): RiskLevel {
  if (episode?.shift.active) return 'shift';
  return episode?.prepare.active ? 'prepare' : 'clear';
}

/**
 * One tick at event time `nowMs`. An unknown score holds: no change, no event, and time without knowledge counts
 * towards no persistence. Below `minTrust` a level above `prepare` is not granted, and what was granted is not taken
 * back either: doubtful telemetry is no proof of health.
 */
export function advance(
  episode: RiskEpisode | null,
  reading: RiskReading,
  policy: RiskPolicy,
  nowMs: number,
): RiskAdvance {
  const before = episode ?? { id: null, prepare: quiet, shift: quiet };
  const level = levelOf(episode);
  if (reading.unknown) {
    const held = hold(before);
    return { episode: isIdle(held) ? null : held, level, changed: false, episodeId: before.id };
  }
  const trusted = reading.trust >= policy.minTrust;
  const prepare = watch(before.prepare, reading.probability, policy.prepare, nowMs, true, trusted);
  const shift = watch(before.shift, reading.probability, policy.shift, nowMs, trusted, trusted);
  const next: RiskEpisode = { id: before.id, prepare, shift };
  const nextLevel = levelOf(next);
  if (next.id === null && nextLevel !== 'clear') {
    // The begin is when the threshold was crossed, not when persistence had been shown.
    const began = Math.min(before.prepare.sinceMs ?? nowMs, before.shift.sinceMs ?? nowMs);
    next.id = `${reading.cell}@${new Date(began).toISOString()}`;
  }
  const episodeId = next.id;
  if (nextLevel === 'clear') next.id = null;
  return { episode: isIdle(next) ? null : next, level: nextLevel, changed: nextLevel !== level, episodeId };
}

function watch(
  before: LevelWatch,
  probability: number,
  { enter, exit, persistS }: Policy['prepare'],
  nowMs: number,
  mayRise: boolean,
  mayFall: boolean,
): LevelWatch {
  const beyond = before.active ? mayFall && probability < exit : mayRise && probability >= enter;
  if (!beyond) return { active: before.active, sinceMs: null };
  const sinceMs = before.sinceMs ?? nowMs;
  return nowMs - sinceMs >= persistS * 1000 ? { active: !before.active, sinceMs: null } : { ...before, sinceMs };
}

function hold(episode: RiskEpisode): RiskEpisode {
  const still = ({ active }: LevelWatch): LevelWatch => ({ active, sinceMs: null });
  return { id: episode.id, prepare: still(episode.prepare), shift: still(episode.shift) };
}

function isIdle({ prepare, shift }: RiskEpisode): boolean {
  return !prepare.active && !shift.active && prepare.sinceMs === null && shift.sinceMs === null;
}
