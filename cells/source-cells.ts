/** Runs a declared cell from its blueprint, for cells whose document leaves the instances open. */
import { RefusedError, type CellRecord } from '../blueprints/records';
import type { ConfigurationStore } from '../blueprints/store';
import { takePart } from './data-sync/take-part';
import type { CellIdentities } from './identity/cell-identities';
import { IdentityKeeper } from './identity/keeper';
import type { Heartbeat } from './life/heartbeat';
import { addressesOf, untilReady } from './life/ready';
import type { CellProvider } from './provider';

/** The owner of the cells that people declare. */
export const operator = 'operator';

/**
 * Starts the cell unless it runs, waits until it is ready and records where it answers. Where its service keeps data
 * it becomes the first to write it, or follows the one who does.
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
  await takePart(store, recorded, blueprint.spec.readiness.timeoutS * 1000, identities?.tlsTo);
  return recorded;
}

/** Ends a declared cell that its provider runs. RefusedError while a split gives it a share, or names it as cover. */
export async function stopDeclaredCell(
  provider: CellProvider,
  store: Pick<ConfigurationStore, 'cell' | 'traffic' | 'updateCell'>,
  cellName: string,
): Promise<void> {
  const cell = await store.cell(cellName);
  if (!cell) throw new RefusedError(`cell ${cellName} is not known`);
  if (cell.role === 'synthetic') throw new RefusedError(`cell ${cellName} is synthetic: its failover ends it`);
  const share = (await store.traffic(cell.service))?.split.find((each) => each.cell === cellName);
  if (share && (share.shareBp > 0 || share.coverInstances > 0))
    throw new RefusedError(`cell ${cellName} carries ${share.shareBp / 100} % of ${cell.service}: move that first`);
  if ((await provider.observe(cellName)).phase === 'absent')
    throw new RefusedError(`provider ${provider.kind} runs no cell ${cellName}`);
  await provider.destroy(cellName);
  await store.updateCell(cellName, { instances: [] });
}
