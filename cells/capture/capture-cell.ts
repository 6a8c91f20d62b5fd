/** Finds the processes of a cell on this machine, and compares them with the cell's blueprint. */
import type { BlueprintDocument } from '../../blueprints/schema';
import { addressesOfHosts, entriesOf, type End } from '../egress';
import { request } from '../http';
import type { PlacedInstance } from '../protection/read-back';
import { processListeningOn } from '../sockets';
import { captureProcess, type CapturedProcess } from './captured';
import { driftOf, type Drift } from './drift';

/** The process of an instance: as its provider says, else whoever listens at its address. */
export async function processOf({ pid, address, port }: PlacedInstance): Promise<number | undefined> {
  return pid ?? processListeningOn(address, port);
}

export interface CellDrift {
  /** The instances that were compared; the others run elsewhere or not at all. */
  compared: string[];
  drift: Drift[];
}

export interface DriftOptions {
  askVersions?: boolean;
  /** Where the cells of the service answer: to call them is no egress. */
  peers?: readonly End[];
}

/** Of the instances that can be seen from here; the same drift of several is told once. */
export async function driftOfCell(
  instances: readonly PlacedInstance[],
  blueprint: BlueprintDocument,
  options: DriftOptions = {},
): Promise<CellDrift> {
  const { network } = blueprint;
  const allowing = {
    ...blueprint,
    network: { ...network, egress: [...network.egress, ...entriesOf(options.peers ?? [])] },
  };
  const addresses = await addressesOfHosts(blueprint.network.egress);
  const compared: string[] = [];
  const found = new Map<string, Drift>();
  for (const instance of instances) {
    const captured = await captureInstance(instance, options);
    if (!captured) continue;
    compared.push(instance.name);
    for (const drift of driftOf(captured, allowing, (host) => addresses.get(host) ?? []))
      found.set(`${drift.path} ${drift.text}`, drift);
  }
  if (compared.length > 0 && instances.length !== blueprint.resources.instances)
    found.set('instances', {
      path: 'resources.instances',
      matters: 'capacity',
      text: `it has ${instances.length} instances, the blueprint says ${blueprint.resources.instances}`,
    });
  return { compared, drift: [...found.values()] };
}

async function captureInstance(
  instance: PlacedInstance,
  options: { askVersions?: boolean },
): Promise<CapturedProcess | undefined> {
  const pid = await processOf(instance);
  // It may end while it is looked at.
  return pid === undefined ? undefined : captureProcess(pid, options).catch(() => undefined);
}

const usualPaths = ['/healthz', '/health', '/readyz', '/ready', '/livez', '/'];

/** The first of the usual paths that answers well. */
export async function readinessPathOf(address: string, port: number): Promise<string | undefined> {
  for (const path of usualPaths) {
    const answer = await request({ address, port }, path, { timeoutMs: 1_000 }).catch(() => undefined);
    if (answer && answer.status >= 200 && answer.status < 300) return path;
  }
  return undefined;
}
