/** The port behind which the ways lie to keep a cell's data the same as its source's and to hand over the right to write. */
import type { DataCell } from './contract';

/** How far a cell's data is behind its owner's. */
export interface Lag {
  behind: number;
  unit: 'records' | 'bytes';
  /** Age of the newest change that it has, while it is behind; 0 when it is not; null where nothing was ever written. */
  seconds: number | null;
}

export interface LagLimit {
  behind: number;
  seconds: number;
}

/** How far the owner's writes had come when it stopped; `acknowledged` is null where it could not be asked. */
export interface Fenced {
  acknowledged: number | null;
  /** One sentence: what keeps the old owner from writing. */
  how: string;
}

export interface Promoted {
  /** Everything before it has been applied by the new owner. */
  position: number;
  tookMs: number;
}

/** Every call may be made again at any time, also after a crash in mid-call. */
export interface DataSync {
  readonly kind: string;
  readonly limit: LagLimit;
  /** The owner's data is in the owner: where it ends nobody has it. False where a log outside the cells holds it. */
  readonly livesInCells: boolean;
  /** The cell's data next to the owner's. Rejects where it cannot be told, or the cell does not follow it: not caught up. */
  lag(cell: DataCell, owner: DataCell): Promise<Lag>;
  /** Makes sure that the cell follows the owner, without waiting for it. */
  follow(cell: DataCell, owner: DataCell): Promise<void>;
  /** Whether the owner sends the cell what it writes now. Rejects where it cannot be told. */
  isFollowing(cell: DataCell, owner: DataCell): Promise<boolean>;
  /**
   * From its end on the owner's acknowledged writes are on `to` as well, whatever becomes of the owner. Nothing to do
   * where the log does that.
   */
  secure(to: DataCell, owner: DataCell): Promise<void>;
  /**
   * Takes `secure` back, before the cell rests or ends: the owner waits for it no longer, and it is not to be promoted.
   * `forGood`: the cell is about to be destroyed, so it may be too dead to be told.
   */
  release(owner: DataCell, from: DataCell, forGood: boolean): Promise<void>;
  /** The cell `at` keeps nothing any more for one that has ended. Nothing to do where no cell keeps anything for another. */
  forget(at: DataCell, ended: DataCell): Promise<void>;
  /** Asks the owner to stop. An owner that does not answer is fenced by what `how` says. */
  fence(owner: DataCell, to: DataCell, epoch: number): Promise<Fenced>;
  /** `to` has everything acknowledged and is the only one that can write. */
  promote(to: DataCell, epoch: number): Promise<Promoted>;
  /** Looks where the data lies, not at what the cell says, whether `to` owns it in this epoch. Rejects with the difference. */
  readBack(to: DataCell, epoch: number): Promise<string>;
  /** Whether the cell takes writes as the owner now, by its own word; false where it gives none. */
  isWriting(owner: DataCell): Promise<boolean>;
  /** The newest epoch that the data itself shows, and its owner. */
  ownership(cells: readonly DataCell[]): Promise<Ownership>;
  close(): Promise<void>;
}

export interface Ownership {
  epoch: number;
  /** Name of the cell; null before anybody has written. */
  owner: string | null;
  /** The owner was named and is not promoted: a handover was broken off in between, and nobody can write until it ends. */
  isUnfinished?: boolean;
}

export function isWithin({ behind, seconds }: Lag, limit: LagLimit): boolean {
  return behind <= limit.behind && (seconds ?? 0) <= limit.seconds;
}

export function lagText({ behind, unit, seconds }: Lag): string {
  return `${behind} ${unit}${seconds === null ? '' : ` and ${seconds.toFixed(1)} s`} behind`;
}
