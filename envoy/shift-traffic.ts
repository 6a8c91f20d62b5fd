/** The specification's `shiftTraffic` and its gradual reduction, as pure functions over a split. */
import type { CellShare } from '../blueprints/records';

export interface ShiftTraffic {
  split: CellShare[];
  /** The cell that is predicted to fail. */
  source: string;
  synthetic: string;
  /** Share to move now, in basis points of the whole service. */
  requestedBp: number;
  /** The source's load as a part of its capacity: 0 idle, 1 full. */
  sourceLoad: number;
  /** The source must carry more than this for a shift to make sense. */
  highThreshold: number;
  /** The share of the whole service, in basis points, that the synthetic cell can carry in all. */
  syntheticCapacityBp: number;
  /** How many of the synthetic cell's instances stay behind as cover while it takes a share. Default 0. */
  coverInstances?: number;
}

export interface ReduceTraffic {
  split: CellShare[];
  source: string;
  synthetic: string;
  /** Share to give back now, in basis points of the whole service. */
  reductionBp: number;
  sourceHealthy: boolean;
  /** The share, in basis points, that the source can carry in all. Default everything. */
  sourceCapacityBp?: number;
  /** How many of the synthetic cell's instances stand as cover afterwards. Default as before. */
  coverInstances?: number;
}

export interface Shift {
  split: CellShare[];
  /** Share moved, in basis points; 0 when the split is as it was. */
  shiftedBp: number;
  /** One sentence: what was moved, or why nothing. */
  reason: string;
}

/**
 * Moves `min(requested, capacity)` from the source to the synthetic cell, if the source is loaded and the synthetic
 * cell has room. Takes from nobody else. `split` must add up to 10,000, and still does afterwards.
 */
export function shiftTraffic(shift: ShiftTraffic): Shift {
  const { split, source, synthetic, sourceLoad, highThreshold } = shift;
  const capacityBp = Math.max(0, Math.floor(shift.syntheticCapacityBp) - shareOf(split, synthetic));
  if (!(sourceLoad > highThreshold)) {
    return nothing(
      split,
      `${source} carries ${percent(sourceLoad)} of its capacity, not more than ${percent(highThreshold)}`,
    );
  }
  if (capacityBp <= 0)
    return nothing(split, `${synthetic} has no room: it carries all of its ${shift.syntheticCapacityBp} bp`);
  const sourceBp = shareOf(split, source);
  if (sourceBp === 0) return nothing(split, `${source} carries no share any more`);
  const shiftedBp = Math.min(Math.max(0, Math.floor(shift.requestedBp)), capacityBp, sourceBp);
  if (shiftedBp === 0) return nothing(split, `no shift was requested`);
  return {
    split: move(split, source, synthetic, shiftedBp, { [synthetic]: shift.coverInstances ?? 0 }),
    shiftedBp,
    reason: `traffic shifted from ${source} to ${synthetic} (${shiftedBp} bp)`,
  };
}

/** Gives some of the synthetic cell's share back to a healthy source, as far as the source has room for it. */
export function reduceTraffic(reduction: ReduceTraffic): Shift {
  const { split, source, synthetic, sourceHealthy, sourceCapacityBp = 10_000 } = reduction;
  const syntheticBp = shareOf(split, synthetic);
  if (!sourceHealthy) return nothing(split, `${source} is not healthy: ${synthetic} keeps its ${syntheticBp} bp`);
  if (syntheticBp === 0) return nothing(split, `${synthetic} carries no traffic any more`);
  const roomBp = Math.max(0, Math.floor(sourceCapacityBp) - shareOf(split, source));
  if (roomBp === 0) return nothing(split, `${source} has no room: it carries all of its ${sourceCapacityBp} bp`);
  const shiftedBp = Math.min(Math.max(0, Math.floor(reduction.reductionBp)), syntheticBp, roomBp);
  if (shiftedBp === 0) return nothing(split, `no reduction was requested`);
  const { coverInstances } = reduction;
  return {
    split: move(
      split,
      synthetic,
      source,
      shiftedBp,
      coverInstances === undefined ? {} : { [synthetic]: coverInstances },
    ),
    shiftedBp,
    reason: `traffic given back from ${synthetic} to ${source} (${shiftedBp} bp)`,
  };
}

function shareOf(split: CellShare[], cell: string): number {
  return split.find((s) => s.cell === cell)?.shareBp ?? 0;
}

function move(split: CellShare[], from: string, to: string, bp: number, cover: Record<string, number>): CellShare[] {
  const cells = split.some((s) => s.cell === to) ? split : [...split, { cell: to, shareBp: 0, coverInstances: 0 }];
  return cells.map((share) => ({
    cell: share.cell,
    shareBp: share.shareBp + (share.cell === to ? bp : 0) - (share.cell === from ? bp : 0),
    coverInstances: cover[share.cell] ?? share.coverInstances,
  }));
}

function nothing(split: CellShare[], why: string): Shift {
  return { split, shiftedBp: 0, reason: `nothing shifted: ${why}` };
}

function percent(part: number): string {
  // "0 %, not more than 2 %" would say that nothing arrives at all.
  return `${Number((100 * part).toFixed(part < 0.1 ? 1 : 0))} %`;
}
