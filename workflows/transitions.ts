/**
 * The state machine of a failover as data: what it is after, and how far the synthetic cell has come, give the next move.
 * A move's own gate (a verdict that is open, a plan, a cooldown) may still turn it into `stay`, with the reason.
 */
import type { Aim } from './aim';
import { isEvacuated } from './aim';
import type { Failover } from './failover';
import { largestTake } from './failover';
import type { Phase } from './messages';

export const standings = ['nothing', 'making', 'made', 'warm', 'armed', 'carrying', 'evacuated'] as const;
/** How far the synthetic cell has come. `evacuated`: it carries all it can. */
export type Standing = (typeof standings)[number];

export const moves = [
  'stay',
  'begin',
  'make',
  'warm',
  'arm',
  'canary',
  'step',
  'complete',
  'ordered',
  'reduce',
  'give-back',
  'send-away',
  'conclude',
] as const;
export type Move = (typeof moves)[number];

export const transitions: Record<Aim['kind'], Record<Standing, Move>> = {
  hold: all('stay'),
  prepare: { ...gettingReady('stay'), armed: 'stay', carrying: 'stay', evacuated: 'stay' },
  take: { ...gettingReady('stay'), armed: 'canary', carrying: 'step', evacuated: 'stay' },
  complete: { ...gettingReady('complete') },
  // Nothing can be ordered of a cell that is not armed: the override is refused.
  'ordered-step': { ...all('stay'), armed: 'ordered', carrying: 'ordered', evacuated: 'ordered' },
  'give-back': { ...all('send-away'), nothing: 'conclude', carrying: 'reduce', evacuated: 'reduce' },
  undo: { ...all('send-away'), nothing: 'conclude', carrying: 'give-back', evacuated: 'give-back' },
  end: all('conclude'),
};

/** The phase that a move's step is in; null: it depends on where the failover stands, or on the outcome. */
export const phaseOfMove: Record<Move, Phase | null> = {
  stay: null,
  begin: 'assessing',
  make: 'provisioning',
  warm: 'warming',
  arm: 'warming',
  canary: 'canary',
  step: 'shifting',
  complete: 'shifting',
  ordered: 'shifting',
  reduce: 'draining',
  'give-back': 'draining',
  'send-away': 'draining',
  conclude: null,
};

/**
 * Which phase can follow which. Back from `draining` to what was before: a risk that rises again, or an order, turns a
 * failover round. `failed-over` and `cooldown` have nothing after them but the end.
 */
export const followers: Record<Phase, readonly Phase[]> = {
  assessing: ['provisioning', 'shifting', 'failed-over', 'draining', 'cooldown'],
  provisioning: ['warming', 'draining', 'cooldown'],
  warming: ['armed', 'draining', 'cooldown'],
  armed: ['canary', 'shifting', 'failed-over', 'draining', 'cooldown'],
  canary: ['shifting', 'draining', 'failed-over', 'cooldown'],
  shifting: ['armed', 'canary', 'draining', 'failed-over', 'cooldown'],
  draining: ['provisioning', 'warming', 'armed', 'canary', 'shifting', 'failed-over', 'cooldown'],
  'failed-over': ['cooldown'],
  cooldown: [],
};

export function standingOf(f: Failover): Standing {
  switch (f.synthetic?.state) {
    case undefined:
      return 'nothing';
    case 'creating':
      return 'making';
    case 'ready':
      return 'made';
    case 'warm':
      return 'warm';
    case 'armed':
    case 'gone':
      // A change whose end is not known counts as made.
      if (f.mayCarry) return 'carrying';
      if (isEvacuated(f, largestTake(f))) return 'evacuated';
      return f.traffic.syntheticBp > 0 ? 'carrying' : 'armed';
  }
}

function all(move: Move): Record<Standing, Move> {
  return Object.fromEntries(standings.map((standing) => [standing, move])) as Record<Standing, Move>;
}

/** The cheap, reversible steps, one after another. */
function gettingReady(once: Move): Record<Standing, Move> {
  return { ...all(once), nothing: 'begin', making: 'make', made: 'warm', warm: 'arm' };
}
