/**
 * How far the split counted at the cells is from the commanded one, and how far it may be.
 *
 * Envoy's choice by locality weight is no lottery. Each of its W worker threads has a schedule of its own, in which the
 * turns of a cell of share p are 1/p apart, and takes the cell whose turn comes next. Over any stretch of the schedule
 * a cell has its due of the virtual time give or take less than one turn. Of n picks over L cells it therefore gets n * p
 * give or take less than (1 - p) + p * (L - 1) = 1 + p * (L - 2), so of all requests of all workers give or take less than
 * W * (1 + p * (L - 2)), however many they are. With two workers and three cells that is two to four requests, where
 * random picks would scatter by a dozen in 200. It holds while the schedule is not made anew: a change of weights, hosts
 * or health within the stretch may add as much again.
 */
import type { CellShare } from '../blueprints/records';

export interface SplitDistance {
  /** Of the cell that is farthest off. */
  requests: number;
  /** The same in points of the share. */
  points: number;
  /** Of the cell that has used most of its bound: below 1 is within. A request to a cell without a share: Infinity. */
  ofBound: number;
  /** Cells that are farther off than 99.9 % of random picks would be. */
  beyondRandom: number;
}

/** Of the normal distribution, both sides together 0.1 %. */
const z = 3.29;

/** @param counts requests by cell, all cells. */
export function splitDistance(
  split: readonly CellShare[],
  counts: ReadonlyMap<string, number>,
  workers: number,
): SplitDistance {
  const all = [...counts.values()].reduce((sum, n) => sum + n, 0);
  const carrying = split.filter(({ shareBp }) => shareBp > 0).length;
  const worst: SplitDistance = { requests: 0, points: 0, ofBound: 0, beyondRandom: 0 };
  for (const [cell, count] of counts) {
    const shareBp = split.find((s) => s.cell === cell)?.shareBp ?? 0;
    const share = shareBp / 10_000;
    const off = Math.abs(10_000 * count - all * shareBp) / 10_000;
    const bound = share > 0 ? workers * (1 + share * (carrying - 2)) : 0;
    worst.requests = Math.max(worst.requests, off);
    worst.points = Math.max(worst.points, all > 0 ? (100 * off) / all : 100);
    worst.ofBound = Math.max(worst.ofBound, off === 0 ? 0 : off / bound);
    // Half a request for what counting in whole ones costs.
    if (off > z * Math.sqrt(all * share * (1 - share)) + 0.5) worst.beyondRandom += 1;
  }
  return worst;
}
