/** Taking a cell's share away and seeing its requests end: how the share is spread, and when the cell is empty. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { CellShare } from '../blueprints/records';
import { quiet, type Quiet } from './replicas/loads';
import { PreconditionError } from './traffic-errors';
import type { TrafficViews } from './traffic-view';

/**
 * The split in which `cell` drains: named with neither share nor cover. Its share goes to `to`, or to the cells that
 * carry already, in proportion; what does not divide goes to the largest remainders, so that the sum stays 10,000.
 */
export function drainingSplit(service: string, split: CellShare[], cell: string, to?: string): CellShare[] {
  const draining = split.find((s) => s.cell === cell);
  const rest = split.filter((s) => s !== draining);
  const empty: CellShare = { cell, shareBp: 0, coverInstances: 0 };
  if (!draining || draining.shareBp === 0) return [...rest, empty];
  if (to !== undefined && !rest.some((s) => s.cell === to)) rest.push({ cell: to, shareBp: 0, coverInstances: 0 });
  const takers = rest.filter((s) => (to === undefined ? s.shareBp > 0 : s.cell === to));
  const carried = takers.reduce((sum, s) => sum + s.shareBp, 0);
  if (takers.length === 0) {
    throw new PreconditionError(
      `cell ${cell} carries all of ${service}: nobody else takes a share; name who is to take it`,
    );
  }
  const parts = takers.map((s) => (to === undefined ? (draining.shareBp * s.shareBp) / carried : draining.shareBp));
  const more = parts.map(Math.floor);
  const left = draining.shareBp - more.reduce((a, b) => a + b, 0);
  const byRemainder = parts.map((_, i) => i).sort((a, b) => parts[b]! - more[b]! - (parts[a]! - more[a]!) || a - b);
  for (const i of byRemainder.slice(0, left)) more[i]! += 1;
  const gained = new Map(takers.map((s, i) => [s.cell, more[i]!]));
  return [...rest.map((s) => ({ ...s, shareBp: s.shareBp + (gained.get(s.cell) ?? 0) })), empty];
}

/** Load reports come in steps; looking more often sees nothing new. */
const lookEveryMs = 100;

/** Waits until load reports from now on show nothing of the cell, the time is up or nobody waits; answers what they show. */
export async function untilQuiet(
  views: Pick<TrafficViews, 'loads'>,
  service: string,
  cell: string,
  withinMs: number,
  hasLeft: () => boolean = () => false,
): Promise<Quiet> {
  const began = performance.now();
  for (;;) {
    const { loads, proxies } = await views.loads(service);
    const forMs = performance.now() - began;
    const seen = quiet(cell, loads, proxies, forMs);
    if (seen.verdict === 'quiet' || forMs >= withinMs || hasLeft()) return seen;
    await sleep(Math.min(lookEveryMs, withinMs - forMs + 1));
  }
}
