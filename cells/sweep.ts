/**
 * The janitor: finds what providers keep though nobody answers for it any more, after whatever crash, and removes it when
 * told to. It never touches what carries traffic, what the store knows, or what has no lease that could lapse.
 */
import type { CellRecord, TrafficState } from '../blueprints/records';
import type { ConfigurationStore } from '../blueprints/store';
import { bounded } from './bounded';
import { isLapsed, type CellProvider, type ObservedCell } from './provider';

export interface Judgement {
  isOrphan: boolean;
  why: string;
}

export interface SweptCell extends Judgement {
  provider: string;
  cell: string;
  service: string;
  owner: string;
  phase: ObservedCell['phase'];
  /** Null: it is kept, or it was only looked for. */
  removed: boolean | null;
  /** Why an orphan could not be removed. */
  trouble?: string;
}

export interface Sweep {
  cells: SweptCell[];
  /** Providers that could not be asked: what they keep is unknown. */
  silent: { provider: string; trouble: string }[];
}

type SweepStore = Pick<ConfigurationStore, 'cells' | 'services' | 'traffic' | 'whileUnknown'>;

/** Pure. `splits` are those of all services. */
export function judge(
  observed: ObservedCell,
  known: Pick<CellRecord, 'name' | 'state' | 'owner'> | undefined,
  splits: readonly Pick<TrafficState, 'service' | 'split'>[],
  now = Date.now(),
): Judgement {
  const kept = (why: string): Judgement => ({ isOrphan: false, why });
  for (const { service, split } of splits) {
    const share = split.find(({ cell }) => cell === observed.cell);
    if (share)
      return kept(`the split of ${service} names it (${share.shareBp} bp, ${share.coverInstances} instances as cover)`);
  }
  if (known)
    return kept(`the store knows it as ${known.state}${known.owner === null ? '' : `, held by ${known.owner}`}`);
  if (observed.phase === 'deleting') return { isOrphan: true, why: 'its destruction was begun and never ended' };
  if (observed.expiresAt === undefined) return kept('it has no lease');
  if (!isLapsed(observed, now)) return kept(`its lease holds until ${observed.expiresAt}`);
  return { isOrphan: true, why: `the store does not know it, and its lease lapsed at ${observed.expiresAt}` };
}

/** What a sweep found that somebody has to know of. */
export interface Leftovers extends Pick<Sweep, 'silent'> {
  /** How many cells were looked at. */
  cells: number;
  orphans: SweptCell[];
}

export function leftoversOf({ cells, silent }: Sweep): Leftovers {
  return { cells: cells.length, orphans: cells.filter(({ isOrphan }) => isOrphan), silent };
}

/**
 * Without the store nothing is judged and nothing removed: it rejects. One provider does not wait for another, and none is
 * waited for beyond `withinMs` for a call.
 */
export async function sweepCells(
  store: SweepStore,
  providers: readonly CellProvider[],
  { remove, withinMs = 60_000 }: { remove: boolean; withinMs?: number },
): Promise<Sweep> {
  const sweeps = await Promise.all(providers.map((provider) => sweepProvider(store, provider, { remove, withinMs })));
  return { cells: sweeps.flatMap(({ cells }) => cells), silent: sweeps.flatMap(({ silent }) => silent) };
}

async function sweepProvider(
  store: SweepStore,
  provider: CellProvider,
  { remove, withinMs }: { remove: boolean; withinMs: number },
): Promise<Sweep> {
  const sweep: Sweep = { cells: [], silent: [] };
  // The store is asked after the provider: what was made in between is then known.
  const standing = await bounded(withinMs, 'its list of cells', provider.list()).catch((error: Error) => {
    sweep.silent.push({ provider: provider.kind, trouble: error.message });
    return [];
  });
  const cells = new Map((await store.cells()).map((cell) => [cell.name, cell]));
  const splits: TrafficState[] = [];
  for (const { name } of await store.services()) {
    const traffic = await store.traffic(name);
    if (traffic) splits.push(traffic);
  }
  for (const observed of standing) {
    const { cell, service, owner, phase } = observed;
    const judgement = judge(observed, cells.get(cell), splits);
    const swept: SweptCell = { provider: provider.kind, cell, service, owner, phase, removed: null, ...judgement };
    if (remove && judgement.isOrphan) Object.assign(swept, await removeOrphan(store, provider, observed, withinMs));
    sweep.cells.push(swept);
  }
  return sweep;
}

async function removeOrphan(
  store: SweepStore,
  provider: CellProvider,
  { cell, service }: ObservedCell,
  withinMs: number,
): Promise<Pick<SweptCell, 'removed' | 'trouble'>> {
  let isRemoved = false;
  try {
    const obstacle = await store.whileUnknown({ cell, service }, async () => {
      // Left waiting it would hold the store's lock: nobody could make a cell of this service.
      isRemoved = await bounded(withinMs, `the removal of ${cell}`, provider.removeLapsed(cell));
    });
    if (obstacle !== undefined) return { removed: false, trouble: obstacle };
    return isRemoved ? { removed: true } : { removed: false, trouble: 'its lease was renewed, or it has gone' };
  } catch (error) {
    return { removed: isRemoved, trouble: (error as Error).message };
  }
}
