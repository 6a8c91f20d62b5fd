/** How a cell is to wait idle: as its blueprint says, or, with `scaleDown.idle: auto`, by how long starts of such cells took. Pure. */
import type { CellRest, CellStart } from '../blueprints/records';
import type { BlueprintDocument } from '../blueprints/schema';
import { isOfGivenLength } from './warm-up/step';

type Resting = Pick<BlueprintDocument, 'scaleDown' | 'dataSync' | 'provider' | 'warmUp'>;

/** The slowest of so many decides: one start that went well by chance is no promise. */
const lastStarts = 5;
/** As soon as docs/providers.md aims to have a cell back: a process, and anything else. */
const processBackWithinS = 2;
const otherBackWithinS = 10;

/** `starts`: of cells of this version of the blueprint, the newest first. */
export function chooseRest(blueprint: Resting, starts: readonly CellStart[]): CellRest {
  const { scaleDown, dataSync } = blueprint;
  if (dataSync.kind !== 'none') return { how: 'running', why: 'it keeps data, and goes on following its owner' };
  if (scaleDown.idle !== 'auto') return { how: scaleDown.idle, why: `scaleDown.idle is ${scaleDown.idle}` };
  const tookS = secondsUntilOfUse(blueprint, starts);
  const until = isWarmed(blueprint) ? 'ready and warm' : 'ready';
  if (tookS.length === 0)
    return { how: 'frozen', why: `auto: no start of such a cell was measured until it was ${until}` };
  const slowestS = Math.max(...tookS);
  const withinS = backWithinS(blueprint);
  const which = tookS.length === 1 ? 'the last start' : `the slowest of the last ${tookS.length} starts`;
  const leftOut = blueprint.warmUp.some(({ kind }) => isOfGivenLength(kind)) ? ', mirror and load not counted' : '';
  const measured = `${which} was ${until} after ${slowestS.toFixed(2)} s${leftOut}`;
  if (slowestS <= withinS) return { how: 'stopped', why: `auto: ${measured}, within the ${withinS} s allowed` };
  return { how: 'frozen', why: `auto: ${measured}, more than the ${withinS} s allowed` };
}

/** What a stopped cell would take to be of use again. A plan that never left the cell warm has measured nothing. */
function secondsUntilOfUse(blueprint: Resting, starts: readonly CellStart[]): number[] {
  const complete = starts.filter(({ warmMs }) => warmMs !== null || !isWarmed(blueprint)).slice(0, lastStarts);
  return complete.map(({ readyMs, warmMs }) => (readyMs + (isWarmed(blueprint) ? warmMs! : 0)) / 1000);
}

function isWarmed({ warmUp }: Resting): boolean {
  return warmUp.length > 0;
}

function backWithinS({ scaleDown, provider }: Resting): number {
  return scaleDown.backWithinS ?? (provider === 'process' ? processBackWithinS : otherBackWithinS);
}
