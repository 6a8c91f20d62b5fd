/** All side effects of a failover over the ports it is given. */
import { Context } from '@temporalio/activity';
import type { FailoverActivities } from '../workflows/steps';
import { assessing } from './assess';
import type { Ports } from './ports';
import { trafficShifts } from './shift-traffic';
import { surveying } from './survey-fleet';
import { syntheticCells } from './synthetic-cell';
import { watching } from './watch-failover';

const beatEveryMs = 1000;

export function createActivities(ports: Ports): FailoverActivities {
  const survey = surveying(ports);
  const assess = assessing(ports, survey.surveyFleet);
  const cells = syntheticCells(ports);
  const shifts = trafficShifts(ports);
  return {
    ...assess,
    ...survey,
    ...cells,
    ...watching(ports),
    loadContext: beatingAlong((request) => assess.loadContext(request)),
    armCell: beatingAlong((request) => shifts.armCell(request)),
    shiftTraffic: beatingAlong((request) => shifts.shiftTraffic(request)),
    restAtIdle: beatingAlong((request) => cells.restAtIdle(request)),
    retireSyntheticCell: beatingAlong((request) => cells.retireSyntheticCell(request)),
    releaseSource: beatingAlong(async ({ cell }) => {
      const isQuarantined = (await ports.store.cell(cell))?.state === 'quarantined';
      if (isQuarantined) await ports.store.updateCell(cell, { state: 'active' });
    }),
    recordDecisions: beatingAlong((decisions) => ports.store.recordDecisions(decisions)),
    saveDossier: beatingAlong((dossier) => ports.store.saveDossier(dossier)),
  };
}

/** Heartbeats while a short call is under way: a dead worker is missed within seconds, not at the call's own deadline. */
function beatingAlong<A, R>(work: (request: A) => Promise<R>): (request: A) => Promise<R> {
  return async (request) => {
    const context = Context.current();
    const timer = setInterval(() => context.heartbeat(), beatEveryMs);
    try {
      return await work(request);
    } finally {
      clearInterval(timer);
    }
  };
}
