/** Looks at all cells for what a crash left behind and for drift, and keeps what was found where people can read it. */
import { Context } from '@temporalio/activity';
import type { ConfigurationStore } from '../blueprints/store';
import { lookForDrift } from '../cells/look-for-drift';
import type { SyntheticCellManager } from '../cells/manager';
import { leftoversOf } from '../cells/sweep';
import type { LookAfterCellsActivities } from '../workflows/look-after-cells';
import { beating } from './synthetic-cell';

export interface LookPorts {
  store: Pick<ConfigurationStore, 'cells' | 'blueprint' | 'saveLook' | 'lastLook'>;
  cells: Pick<SyntheticCellManager, 'sweep' | 'driftOf'>;
}

export function lookingAfterCells({ store, cells }: LookPorts): LookAfterCellsActivities {
  return {
    async sweepCells({ remove }): ReturnType<LookAfterCellsActivities['sweepCells']> {
      const left = leftoversOf(await beating(() => cells.sweep({ remove })));
      await store.saveLook('sweep', left);
      const trouble = left.silent.map(({ provider, trouble: why }) => `provider ${provider}: ${why}`);
      for (const text of trouble) Context.current().log.warn(`cells were not looked at: ${text}`);
      for (const { cell, why, removed } of left.orphans)
        Context.current().log.warn(`${cell} is an orphan${removed ? ' and was removed' : ''}: ${why}`);
      return { orphans: left.orphans, trouble };
    },

    async lookForDrift(): ReturnType<LookAfterCellsActivities['lookForDrift']> {
      const before = await store.lastLook('drift');
      const look = await beating(() => lookForDrift(store, (cell, of) => cells.driftOf(cell, of), before));
      await store.saveLook('drift', look);
      const drifted = look.cells.filter(({ drift }) => drift.length > 0);
      for (const { cell, blueprint, drift } of drifted)
        Context.current().log.warn(
          `${cell} has drifted from ${blueprint} at ${drift.map(({ path }) => path).join(', ')}`,
        );
      return { drifted, trouble: look.silent.map(({ cell, trouble }) => `${cell}: ${trouble}`) };
    },
  };
}
