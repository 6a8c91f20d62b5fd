/** Whom a warming cell is compared with: the service's healthy instances. And whether its source still answers. */
import type { CellRecord } from '../../blueprints/records';
import { request, type Reached } from '../http';

export interface Neighbours {
  peers: Reached[];
  /** None of the source's instances answers: every second of the warm-up costs its callers. */
  isSourceDead: boolean;
}

const answerWithinMs = 1_000;

/**
 * Instances of the service's other cells that answer their readiness path now. Those of the source come last: it is
 * predicted to fail, and what it knows is taken only if nobody else has it.
 */
export async function neighboursOf(
  cell: CellRecord,
  cells: readonly CellRecord[],
  path: string,
  reached: (cell: CellRecord) => Promise<Reached[]>,
): Promise<Neighbours> {
  const others = cells.filter(
    ({ name, role, state }) => name !== cell.name && (role !== 'synthetic' || state === 'serving'),
  );
  const answering = async (peer: CellRecord) => {
    const instances = await reached(peer);
    const answers = await Promise.all(instances.map((instance) => isWell(instance, path)));
    return { name: peer.name, all: instances, well: instances.filter((_, index) => answers[index]) };
  };
  const found = await Promise.all(others.map(answering));
  const source = found.find(({ name }) => name === cell.sourceCell);
  const sound = found.filter((one) => one !== source).flatMap(({ well }) => well);
  return {
    peers: sound.length > 0 ? sound : (source?.well ?? []),
    isSourceDead: source !== undefined && source.all.length > 0 && source.well.length === 0,
  };
}

function isWell(instance: Reached, path: string): Promise<boolean> {
  return request(instance, path, { timeoutMs: answerWithinMs }).then(
    ({ status }) => status >= 200 && status <= 299,
    () => false,
  );
}
