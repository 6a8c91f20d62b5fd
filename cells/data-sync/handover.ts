/** Brings a cell's data up to its owner's, and hands the right to write over to it: the gates of a failover of data. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { DataCell } from './contract';
import { isWithin, lagText, type DataSync, type Lag } from './data-sync';

/** The data is not close enough behind its owner's: later it may be. */
export class LagGateClosedError extends Error {
  override readonly name = 'LagGateClosedError';
}

export type Progress = (sentence: string) => void;

export interface CaughtUp {
  lag: Lag;
  /** How far behind it was when it was looked at first. */
  from: Lag;
  tookMs: number;
}

const lookEveryMs = 200;
/** Without getting any closer for so long, catching up has failed. */
const stuckAfterMs = 60_000;

/** Waits until the cell is within the limit of the owner. It goes on following afterwards by itself. */
export async function catchUp(
  sync: DataSync,
  cell: DataCell,
  owner: DataCell,
  progress: Progress = () => undefined,
  signal?: AbortSignal,
): Promise<CaughtUp> {
  const since = performance.now();
  let from: Lag | undefined;
  let least = Infinity;
  let leastMs = since;
  let why = '';
  for (;;) {
    signal?.throwIfAborted();
    const lag = await sync.lag(cell, owner).catch((error: unknown) => void (why = (error as Error).message));
    // It may have been restarted, and forgotten what it was told.
    if (!lag) await sync.follow(cell, owner).catch((error: unknown) => void (why += `; ${(error as Error).message}`));
    const now = performance.now();
    if (lag) {
      from ??= lag;
      progress(`${cell.name} is ${lagText(lag)}`);
      if (isWithin(lag, sync.limit)) return { lag, from, tookMs: now - since };
      why = lagText(lag);
      if (lag.behind < least) [least, leastMs] = [lag.behind, now];
    } else progress(`how far ${cell.name} is behind cannot be told: ${why}`);
    if (now - leastMs > stuckAfterMs)
      throw new LagGateClosedError(`${cell.name} has come no closer for ${stuckAfterMs / 1000} s: ${why}`);
    await sleep(lookEveryMs, undefined, { signal });
  }
}

export interface Handover {
  sync: DataSync;
  /** Who takes the writes over. */
  to: DataCell;
  /** Every cell of the service that can be asked, `to` among them. */
  cells: readonly DataCell[];
  progress?: Progress;
  signal?: AbortSignal;
}

export interface HandedOver {
  from: string | null;
  to: string;
  epoch: number;
  /** False if `to` had the right to write already, from an earlier attempt perhaps. */
  changed: boolean;
  /** What was done and seen, one sentence per step. */
  evidence: string[];
  /** From the fence to the promotion, in milliseconds: how long writes had to wait. */
  writePauseMs: number;
}

/**
 * Gate, fence, drain, promote, read back. Given again after a crash at any point it ends in the same state: what has been
 * done already is seen in the data. Throws with the reason where it cannot be done; then nobody but the old owner, or in
 * the worst case nobody at all, can write.
 */
export async function handOver({ sync, to, cells, progress = () => undefined, signal }: Handover): Promise<HandedOver> {
  const evidence: string[] = [];
  const say = (sentence: string) => {
    evidence.push(sentence);
    progress(sentence);
  };
  const { epoch: current, owner: ownerName } = await sync.ownership(cells);
  if (ownerName === to.name) {
    // The promotion may have ended half-way: it is finished, in its own epoch.
    await sync.promote(to, current);
    say(await sync.readBack(to, current));
    return { from: null, to: to.name, epoch: current, changed: false, evidence, writePauseMs: 0 };
  }
  const epoch = current + 1;
  const owner = cells.find(({ name }) => name === ownerName);
  if (ownerName !== null && !owner) throw new Error(`${ownerName} owns the data, and where it answers is not known`);
  let acknowledged: number | null = null;
  let fencedMs = performance.now();
  if (owner) {
    const lag = await sync.lag(to, owner);
    if (!isWithin(lag, sync.limit))
      throw new LagGateClosedError(
        `${to.name} is ${lagText(lag)}; it may be ${sync.limit.behind} ${lag.unit} and ${sync.limit.seconds} s`,
      );
    say(`${to.name} is ${lagText(lag)}: the gate is open`);
    signal?.throwIfAborted();
    await sync.secure(to, owner);
    signal?.throwIfAborted();
    fencedMs = performance.now();
    const fenced = await sync.fence(owner, to, epoch);
    acknowledged = fenced.acknowledged;
    say(fenced.how);
  }
  // No way back from here: from now on only the promotion ends the pause.
  const { position, tookMs } = await sync.promote(to, epoch);
  if (acknowledged !== null && position < acknowledged)
    throw new Error(`${to.name} owns the data up to ${position}, but ${ownerName} acknowledged ${acknowledged}`);
  const writePauseMs = performance.now() - fencedMs;
  say(`${to.name} has everything up to ${position} and may write since ${tookMs.toFixed(0)} ms`);
  say(await sync.readBack(to, epoch));
  return { from: ownerName, to: to.name, epoch, changed: true, evidence, writePauseMs };
}

/** Within it a new owner has come to know itself as one. */
export const followWithinMs = 3_000;

/**
 * Turns the other cells to a new owner of data that lives in the cells; one that follows it already is left in peace. A cell
 * that cannot be told now is only reported: until it is told again it has what it had.
 */
export async function haveFollow(
  sync: DataSync,
  owner: DataCell,
  cells: readonly DataCell[],
  progress: Progress = () => undefined,
  withinMs = followWithinMs,
): Promise<void> {
  if (!sync.livesInCells) return;
  const others = cells.filter(({ name, instances }) => name !== owner.name && instances.length > 0);
  await Promise.all(
    others.map(async (cell) => {
      for (const deadline = Date.now() + withinMs; ; await sleep(lookEveryMs)) {
        try {
          if (await sync.isFollowing(cell, owner)) return;
          return await sync.follow(cell, owner);
        } catch (error) {
          if (Date.now() < deadline) continue;
          return progress(`${cell.name} could not be told to follow ${owner.name}: ${(error as Error).message}`);
        }
      }
    }),
  );
}
