/** The scale-down policy: idle synthetic cells are kept for `retireAfterS`, then retired. */
import type { ServiceRecord } from '../blueprints/records';
import type { ConfigurationStore, IdleCell } from '../blueprints/store';
import type { SyntheticCellManager } from './manager';

/** The idle cells that have been kept for long enough. Pure. */
export function cellsToRetire(idle: readonly IdleCell[], services: readonly ServiceRecord[]): IdleCell[] {
  const keepS = new Map(services.map(({ name, spec }) => [name, spec.policy.retireAfterS]));
  return idle.filter(({ cell, idleForS }) => idleForS >= (keepS.get(cell.service) ?? Infinity));
}

export interface RetiredCell {
  cell: string;
  idleForS: number;
  /** Set if it could not be retired now; it is tried again at the next round. */
  error?: Error;
}

/** One round: retires what is due, and ends retirements that were begun and not finished. */
export async function retireIdleCells(
  store: ConfigurationStore,
  manager: SyntheticCellManager,
): Promise<RetiredCell[]> {
  const due = cellsToRetire(await store.idleCells(), await store.services());
  const unfinished = (await store.cells()).filter(({ state }) => state === 'retired');
  const round = [...due, ...unfinished.map((cell) => ({ cell, idleForS: 0 }))];
  const retired: RetiredCell[] = [];
  for (const { cell, idleForS } of round) {
    try {
      await manager.retire(cell);
      retired.push({ cell: cell.name, idleForS });
    } catch (error) {
      // One cell that resists (a failover has just taken it, the split names it) must not keep the others.
      retired.push({ cell: cell.name, idleForS, error: error as Error });
    }
  }
  return retired;
}

export interface RetirementLoop {
  stop(): Promise<void>;
}

/** Runs a round every `everyMs` (default 10,000) until stopped. What it did is told to `report`. */
export function startRetirementLoop(
  store: ConfigurationStore,
  manager: SyntheticCellManager,
  report: (retired: RetiredCell[] | Error) => void,
  everyMs = 10_000,
): RetirementLoop {
  let running = Promise.resolve();
  const timer = setInterval(() => {
    running = running.then(() => retireIdleCells(store, manager)).then(report, (error: Error) => report(error));
  }, everyMs);
  return {
    stop: async () => {
      clearInterval(timer);
      await running;
    },
  };
}
