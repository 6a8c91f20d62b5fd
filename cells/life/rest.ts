/** Lays a cell to rest for the next failover, or ends it for good. */
import { RefusedError, type CellRecord, type CellRest } from '../../blueprints/records';
import { chooseRest } from '../choose-rest';
import type { CellMakings } from './makings';

export async function restCell(makings: CellMakings, cell: CellRecord): Promise<CellRecord> {
  // Before it is given away: nobody else can be about to use what is being laid idle.
  const rest = await layIdle(makings, cell);
  try {
    const rested = await makings.store.restCell(cell.name, cell.owner, rest);
    return rested ?? { ...cell, state: 'retired', owner: null };
  } catch (error) {
    // Refused for good it goes on serving this failover; anything else is tried again.
    if (rest && rest.how !== 'running' && error instanceof RefusedError) await makings.begin(cell, cell.owner!);
    throw error;
  }
}

/**
 * How it lies now; undefined where it may not be laid idle. What cannot be rests running: that costs more, and protects as
 * well. So does a cell that keeps data: its owner may wait for it at every commit.
 */
async function layIdle(makings: CellMakings, cell: CellRecord): Promise<CellRest | undefined> {
  const { store } = makings;
  const { blueprint, provider } = await makings.of(cell);
  const isOwn = cell.owner !== null && (await store.cell(cell.name))?.owner === cell.owner;
  const split = (await store.traffic(cell.service))?.split ?? [];
  if (!isOwn || split.some((share) => share.cell === cell.name && share.shareBp > 0)) return undefined;
  const { how, why } = chooseRest(blueprint.spec, await store.cellStarts(cell.blueprint));
  if (how === 'running') return { how, why };
  return provider.idle(cell.name, how).then(
    () => ({ how, why }),
    (error: Error) => ({ how: 'running' as const, why: `it could not be laid idle: ${error.message}` }),
  );
}

/** The cell is gone, but not what others keep for it. Its retirement stays open, and the next round takes it up. */
export class TracesLeftError extends Error {
  override readonly name = 'TracesLeftError';
}

export async function retireCell(
  makings: CellMakings,
  cell: CellRecord,
  /** Of a cell that is gone: takes away what others keep for it. */
  afterEnd?: (cell: CellRecord) => Promise<void>,
): Promise<void> {
  const { store, identities } = makings;
  const retired = await store.beginRetirement(cell.name, cell.owner);
  if (!retired) return;
  const { provider } = await makings.of(retired);
  await provider.destroy(cell.name);
  await identities.remove(cell.name);
  await afterEnd?.(retired).catch((error: Error) => {
    throw new TracesLeftError(`${cell.name} has ended, and others still keep something for it: ${error.message}`, {
      cause: error,
    });
  });
  // Last: as long as anything is left of the cell, its name stays taken and the retirement can be taken up again.
  await store.finishRetirement(cell.name);
}
