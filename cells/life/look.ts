/** Looks at what really runs of a cell: where it differs from its blueprint, and whether it is as protected as its source. */
import type { BlueprintVersion, CellRecord } from '../../blueprints/records';
import type { Instance } from '../../blueprints/schema';
import { driftOfCell, type CellDrift } from '../capture/capture-cell';
import type { Drift } from '../capture/drift';
import {
  readBackProtection,
  type PlacedInstance,
  type ProtectionReader,
  type ProtectionReport,
} from '../protection/read-back';
import type { CellMakings } from './makings';

/** Where a cell differs from its blueprint, as far as it can be seen from this machine. */
export async function driftFromBlueprint(
  makings: CellMakings,
  cell: CellRecord,
  blueprint: BlueprintVersion,
): Promise<CellDrift> {
  const peers = await endsOf(makings, cell.service);
  return driftOfCell(await placesOf(makings, cell), blueprint.spec, { askVersions: true, peers });
}

/** Before the cell is armed: is it as protected as its source, and is the source what its blueprint says? */
export async function lookAtSource(
  makings: CellMakings,
  readers: Readonly<Record<string, ProtectionReader>>,
  cell: CellRecord,
  blueprint: BlueprintVersion,
): Promise<{ protection: ProtectionReport; drift: Drift[] }> {
  const reader = readers[blueprint.spec.provider];
  const [synthetic, source] = await Promise.all([placesOf(makings, cell), sourcePlaces(makings, cell)]);
  const peers = await endsOf(makings, cell.service);
  const protection = await readBackProtection({
    blueprint: blueprint.spec,
    synthetic,
    source,
    peers,
    ...(reader && { reader }),
  });
  // A warning only: what cannot be seen from here, or not now, keeps nobody from a failover.
  const { drift } = await driftOfCell(source, blueprint.spec, { peers }).catch(() => ({ drift: [] }));
  return { protection: await makings.identities.readBack(cell, blueprint, protection), drift };
}

async function endsOf({ store }: CellMakings, service: string): Promise<Instance[]> {
  return (await store.cells(service)).flatMap(({ instances }) => instances);
}

async function sourcePlaces(makings: CellMakings, { sourceCell }: CellRecord): Promise<PlacedInstance[]> {
  const source = sourceCell === null ? undefined : await makings.store.cell(sourceCell);
  return source ? placesOf(makings, source).catch(() => source.instances) : [];
}

/** With their pids where a provider runs them, else as they are recorded. */
async function placesOf(makings: CellMakings, cell: CellRecord): Promise<PlacedInstance[]> {
  const { instances } = await makings.observe(cell);
  return instances.length > 0 ? instances : cell.instances;
}
