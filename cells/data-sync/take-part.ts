/** A declared cell takes its part in its service's data: the first primary becomes its owner, every other cell follows. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { CellRecord } from '../../blueprints/records';
import type { ConfigurationStore } from '../../blueprints/store';
import type { TlsTo } from '../identity/cell-identities';
import { DataRefusedError } from './contract';
import type { DataSync } from './data-sync';
import { catchUp, handOver, haveFollow } from './handover';
import { dataSyncOf } from './of-blueprint';

const triedEveryMs = 300;

type Store = Pick<ConfigurationStore, 'cells' | 'blueprint' | 'oneAtATime'>;

/**
 * An owner is made only where nobody has ever owned the data: a service's very first start. Where somebody owns it, or has
 * owned it, whoever reads the log or the database as the new owner finds that, and refuses. Throws where the part is not
 * taken after `withinMs`.
 */
export async function takePart(store: Store, cell: CellRecord, withinMs: number, tlsTo?: TlsTo): Promise<void> {
  const blueprint = await store.blueprint(cell.blueprint.name, cell.blueprint.version);
  const sync = blueprint && dataSyncOf(blueprint.spec.dataSync, async (name) => tlsTo?.(blueprint.spec, name));
  if (!sync) return;
  try {
    for (const deadline = Date.now() + withinMs; ; await sleep(triedEveryMs)) {
      try {
        // Two primaries that start at once, each with a database of its own, must not both find it to be nobody's.
        await store.oneAtATime(`data of ${cell.service}`, () => ownOrFollow(store, sync, cell, deadline));
        return;
      } catch (error) {
        if (error instanceof DataRefusedError) return;
        if (Date.now() > deadline)
          throw new Error(`the part of ${cell.name} in the data of ${cell.service}: ${(error as Error).message}`);
      }
    }
  } finally {
    await sync.close();
  }
}

async function ownOrFollow(store: Store, sync: DataSync, cell: CellRecord, deadline: number): Promise<void> {
  // Cells that have never run have nothing and cannot be asked.
  const cells = (await store.cells(cell.service)).filter(({ instances }) => instances.length > 0);
  const { owner: name, epoch } = await sync.ownership(cells);
  if (name === cell.name) return;
  // Whoever follows throws away what it has: only one whose own data could be asked, and is no newer than that owner's.
  if (name !== null && sync.livesInCells && (await sync.ownership([cell])).epoch > epoch)
    throw new Error(`its data are of a later epoch than ${epoch}, that of ${name}`);
  const owner = cells.find((each) => each.name === name);
  if (owner) {
    if (sync.livesInCells)
      await catchUp(sync, cell, owner, undefined, AbortSignal.timeout(Math.max(1, deadline - Date.now())));
    return;
  }
  if (name !== null || cell.role !== 'primary') return;
  await handOver({ sync, to: cell, cells });
  await haveFollow(sync, cell, cells);
}
