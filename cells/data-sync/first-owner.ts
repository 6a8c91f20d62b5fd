/** Makes a declared primary the owner of its service's data where nobody has ever owned it: a service's very first start. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { CellRecord } from '../../blueprints/records';
import type { ConfigurationStore } from '../../blueprints/store';
import { DataRefusedError } from './contract';
import { handOver } from './handover';
import { dataSyncOf } from './of-blueprint';

const triedEveryMs = 300;

/**
 * Changes nothing where somebody owns the data, or has owned it: whoever reads the log or the database as the new owner
 * finds that, and refuses. Throws where it is not known after `withinMs`.
 */
export async function ensureFirstOwner(
  store: Pick<ConfigurationStore, 'cells' | 'blueprint'>,
  primary: CellRecord,
  withinMs: number,
): Promise<void> {
  const blueprint = await store.blueprint(primary.blueprint.name, primary.blueprint.version);
  const sync = blueprint && dataSyncOf(blueprint.spec.dataSync);
  if (!sync) return;
  try {
    for (const deadline = Date.now() + withinMs; ; await sleep(triedEveryMs)) {
      try {
        // Cells that have never run have nothing and cannot be asked.
        const cells = (await store.cells(primary.service)).filter(({ instances }) => instances.length > 0);
        const { owner } = await sync.ownership(cells);
        if (owner === null) await handOver({ sync, to: primary, cells });
        return;
      } catch (error) {
        if (error instanceof DataRefusedError) return;
        if (Date.now() > deadline)
          throw new Error(`who owns the data of ${primary.service} cannot be settled: ${(error as Error).message}`);
      }
    }
  } finally {
    await sync.close();
  }
}
