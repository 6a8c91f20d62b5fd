/** Runs a declared cell from its blueprint, for cells whose document leaves the instances open. */
import { RefusedError, type CellRecord } from '../blueprints/records';
import type { ConfigurationStore } from '../blueprints/store';
import { ensureFirstOwner } from './data-sync/first-owner';
import type { CellIdentities } from './identity/cell-identities';
import { IdentityKeeper } from './identity/keeper';
import { addressesOf, untilReady, type Heartbeat } from './manager';
import type { CellProvider } from './provider';

/** The owner of the cells that people declare. */
export const operator = 'operator';

/**
 * Starts the cell unless it runs, waits until it is ready and records where it answers. A primary whose service keeps data
 * becomes the first to write it.
 */
export async function startDeclaredCell(
  provider: CellProvider,
  store: ConfigurationStore,
  cellName: string,
  heartbeat?: Heartbeat,
  identities?: CellIdentities,
): Promise<CellRecord> {
  const cell = await store.cell(cellName);
  if (!cell) throw new RefusedError(`cell ${cellName} is not known: apply its document first`);
  if (cell.role === 'synthetic')
    throw new RefusedError(`cell ${cellName} is synthetic: the Synthetic Cell Manager starts it, for a failover`);
  const blueprint = await store.blueprint(cell.blueprint.name, cell.blueprint.version);
  if (!blueprint) throw new RefusedError(`cell ${cellName}: blueprint ${cell.blueprint.name} is not in the store`);
  if (blueprint.spec.provider !== provider.kind)
    throw new RefusedError(`cell ${cellName} wants provider ${blueprint.spec.provider}, this one is ${provider.kind}`);
  const given = await new IdentityKeeper(store, identities).given(cell, blueprint);
  const { service } = cell;
  await provider.ensure({ cell: cell.name, service, owner: operator, blueprint: blueprint.spec, ...given });
  const ready = await untilReady(provider, cell.name, blueprint, heartbeat);
  const recorded = await store.updateCell(cell.name, { instances: addressesOf(ready) });
  if (cell.role === 'primary') await ensureFirstOwner(store, recorded, blueprint.spec.readiness.timeoutS * 1000);
  return recorded;
}
