/**
 * The scale-down policy: idle synthetic cells are kept for a time, or as many as are worth their cost, then retired. Those of
 * a blueprint that has changed go once others have taken their place.
 */
import type { CellRecord } from '../blueprints/records';
import type { ConfigurationStore, IdleCell } from '../blueprints/store';
import { bounded } from './bounded';
import type { SyntheticCellManager } from './manager';
import { decidePool } from './pool-economics';
import { poolFacts, poolQuestion } from './pool-facts';
import { mayMake, poolNeed } from './pool-need';

/** How the idle cells of a service, or of one blueprint of it, are scaled down. */
export interface ScaleDown {
  /** Seconds an idle cell is kept. */
  keepS: number;
  /** So many, the least idle, are kept for `keepAtMostS`. */
  worth: number;
  keepAtMostS: number;
  /** So many of the present blueprint are to lie idle first. Left out: it is of the present one itself. */
  outdatedUntil?: number;
}

/** The idle cells that have been kept for long enough. Those of nobody's service are kept. Pure. */
export function cellsToRetire(
  idle: readonly IdleCell[],
  scaleDownOf: (cell: CellRecord) => ScaleDown | undefined,
): IdleCell[] {
  const kept = new Map<string, number>();
  const isOutdated = (cell: CellRecord) => scaleDownOf(cell)?.outdatedUntil !== undefined;
  const current = (service: string) => idle.filter(({ cell }) => cell.service === service && !isOutdated(cell)).length;
  // The newest first: they are the last that need to be refreshed.
  const due = [...idle]
    .sort((a, b) => a.idleForS - b.idleForS)
    .filter(({ cell, idleForS }) => {
      const rule = scaleDownOf(cell);
      if (!rule) return false;
      if (rule.outdatedUntil !== undefined)
        return current(cell.service) >= rule.outdatedUntil || idleForS >= rule.keepAtMostS;
      const before = kept.get(cell.service) ?? 0;
      const isWorthIt = before < rule.worth && idleForS < rule.keepAtMostS;
      if (isWorthIt) kept.set(cell.service, before + 1);
      return !isWorthIt && idleForS >= rule.keepS;
    });
  return idle.filter((one) => due.includes(one));
}

/** By its blueprint's scaleDown, else by its service's policy. */
async function scaleDownRules(
  store: ConfigurationStore,
  idle: readonly IdleCell[],
): Promise<(cell: CellRecord) => ScaleDown | undefined> {
  const services = new Map((await store.services()).map((service) => [service.name, service]));
  const rules = new Map<string, ScaleDown | undefined>();
  for (const { cell } of idle) {
    const service = services.get(cell.service);
    if (!service) continue;
    const blueprint = await store.blueprint(cell.blueprint.name, cell.blueprint.version);
    const { keep, retireAfterS } = blueprint?.spec.scaleDown ?? { keep: 'time', retireAfterS: undefined };
    const { policy } = service.spec;
    const isByCost = keep === 'expected-cost';
    // Failovers under way change nothing about which of the idle cells are worth it.
    const facts = await poolFacts(store, service, []);
    const isOutdated = poolNeed(facts).outdated.includes(cell.name);
    rules.set(cell.name, {
      keepS: retireAfterS ?? (isByCost ? 0 : policy.retireAfterS),
      worth: isByCost ? decidePool(await poolQuestion(store, service)).keep : 0,
      keepAtMostS: policy.pool.keepAtMostS,
      ...(isOutdated && { outdatedUntil: mayMake(policy.autonomy) ? facts.keep : 0 }),
    });
  }
  return ({ name }) => rules.get(name);
}

/** A cloud may take minutes. Whoever takes longer is asked again at the next round, and keeps no other cell waiting. */
const retireWithinMs = 300_000;

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
  const idle = await store.idleCells();
  const due = cellsToRetire(idle, await scaleDownRules(store, idle));
  const unfinished = (await store.cells()).filter(({ state }) => state === 'retired');
  const round = [...due, ...unfinished.map((cell) => ({ cell, idleForS: 0 }))];
  const retired: RetiredCell[] = [];
  for (const { cell, idleForS } of round) {
    try {
      await bounded(retireWithinMs, `the end of ${cell.name}`, manager.retire(cell));
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
