/** All side effects of a failover over the ports it is given. */
import type { FailoverActivities } from '../workflows/steps';
import { assessing } from './assess';
import type { Ports } from './ports';
import { trafficShifts } from './shift-traffic';
import { syntheticCells } from './synthetic-cell';
import { watching } from './watch-failover';

export function createActivities(ports: Ports): FailoverActivities {
  return {
    ...assessing(ports),
    ...syntheticCells(ports),
    ...trafficShifts(ports),
    ...watching(ports),
    saveDossier: (dossier) => ports.store.saveDossier(dossier),
  };
}
