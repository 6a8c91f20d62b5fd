/** Captures a whole service of this machine: every cell with its instances, and a blueprint of the first one. */
import { processListeningOn } from '../sockets';
import { captureProcess } from './captured';
import { readinessPathOf } from './capture-cell';
import { draftBlueprint } from './draft';
import { instanceName, serviceDraftText, type RunningCell } from './draft-service';
import { driftOf } from './drift';
import { blueprintSchema } from '../../blueprints/schema';

/** The documents as text, and in what the other instances differ from the one that was captured. */
export async function captureService(of: {
  service: string;
  listenerPort: number;
  cells: readonly RunningCell[];
}): Promise<{ text: string; differences: string[] }> {
  const { service, cells } = of;
  const places = cells.flatMap(({ name, instances }) =>
    instances.map((at, index) => ({ ...at, cell: name, name: instanceName(name, index) })),
  );
  const all = await Promise.all(places.map(async (place) => ({ ...place, pid: await pidAt(place) })));
  const first = all[0];
  if (!first) throw new Error('Capture which cells? Name them by --cell NAME=PORT,PORT.');
  const paths = await Promise.all(all.map(({ address, port }) => readinessPathOf(address, port)));
  const healthPath = paths.every((path) => path === paths[0]) ? paths[0] : undefined;
  const captured = await captureProcess(first.pid, { askVersions: true });
  const blueprint = draftBlueprint({
    name: service,
    captured,
    instances: cells[0]!.instances.length,
    words: { service, cell: first.cell, instance: first.name },
    readinessPath: healthPath,
    port: first.port,
    surroundings: process.env,
  });
  const document = blueprintSchema.parse(blueprint.document);
  const own = new Set(driftOf(captured, document).map(({ text }) => text));
  const differences: string[] = [];
  for (const { name, pid } of all.slice(1))
    for (const { path, text } of driftOf(await captureProcess(pid, { askVersions: true }), document))
      if (!own.has(text)) differences.push(`${name} differs from ${first.name}: ${path}: ${text}`);
  return { text: serviceDraftText({ ...of, blueprint, healthPath }), differences };
}

async function pidAt({ address, port }: { address: string; port: number }): Promise<number> {
  const pid = await processListeningOn(address, port);
  if (pid !== undefined) return pid;
  throw new Error(
    `No process can be seen that listens at ${address}:${port}. Run this on the machine of the service, as its user or as root.`,
  );
}

/** `shop-a=18081,10.0.0.2:18082`: a cell's name and where its instances answer. Throws what is wrong with it. */
export function parseRunningCell(text: string): RunningCell {
  const [, name = '', places = ''] = /^([^=]+)=(.+)$/.exec(text) ?? [];
  const instances = places.split(',').map((place) => {
    const [, address = '127.0.0.1', port = ''] = /^(?:\[?(.+?)\]?:)?(\d+)$/.exec(place.trim()) ?? [];
    return { address, port: Number(port) };
  });
  if (name && instances.every(({ port }) => port > 0 && port < 65_536)) return { name, instances };
  throw new Error('expected NAME=PORT,PORT or NAME=ADDRESS:PORT, such as shop-a=18081,18082.');
}
