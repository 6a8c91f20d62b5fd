/** All rows of the reliability matrix. */
import type { Row } from './row';
import { callRows } from './rows/calls';
import { peopleRows } from './rows/people';
import { poolRows } from './rows/pool';
import { providerRows } from './rows/providers';
import { serverRows } from './rows/servers';
import { signalRows } from './rows/signals';
import { workerRows } from './rows/workers';

/** @param seed of everything that is random in them */
export function everyRow(seed: number): Row[] {
  return [
    ...workerRows(seed),
    ...callRows(),
    ...peopleRows(),
    ...signalRows(seed),
    ...providerRows(),
    ...serverRows(seed),
    ...poolRows(),
  ];
}
