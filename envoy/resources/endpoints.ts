/** Assignments: which instances stand behind a cluster, at which priority and with which weight. */
import type { CellRecord, CellShare } from '../../blueprints/records';
import type { Instance, ServiceDocument } from '../../blueprints/schema';
import { struct, type EnvoyMessage } from '../protos';
import { cellMetadata } from './access-log';
import { socketMatchKey } from './cell-tls';
import { cellClusterName, liveClusterName, type Resource } from './resource';

/** What of a cell stands in a service's traffic now. */
export interface CellPlace {
  cell: CellRecord;
  /** Takes requests in this proportion, in basis points. */
  shareBp: number;
  takers: Instance[];
  /** Stand behind the others, at priority 1. */
  cover: Instance[];
}

/**
 * Who takes what. The shares of cells that can take theirs add up to 10,000: a cell whose instances have gone leaves
 * its share to the others, in proportion. Throws an Error if the split names a cell that the service does not have.
 */
export function placesOf(service: ServiceDocument, split: CellShare[], cells: CellRecord[]): CellPlace[] {
  const places = [...split]
    .sort((a, b) => a.cell.localeCompare(b.cell))
    .map((share): CellPlace => {
      const cell = cells.find((c) => c.name === share.cell && c.service === service.name);
      if (!cell) throw new Error(`service ${service.name}: its split names cell ${share.cell}, which it does not have`);
      const takers = cell.instances.slice(0, Math.max(0, cell.instances.length - share.coverInstances));
      const cover = cell.instances.slice(takers.length);
      return { cell, takers, cover, shareBp: takers.length > 0 ? share.shareBp : 0 };
    });
  const shares = tenThousand(places.map(({ shareBp }) => shareBp));
  return places.map((place, i) => ({ ...place, shareBp: shares[i]! }));
}

/**
 * The assignment of a service's split. One locality per cell, the share in basis points as its weight at priority 0;
 * each cell's cover, its last `coverInstances` instances, at priority 1. A cell that is named with neither is draining:
 * it gets no new request, but stays, so that its requests in flight end and are still reported.
 *
 * With `overprovisioning_factor: 100` exactly the share that priority 0 loses goes to the cover: no more, no less, and
 * without the control plane doing anything. A cell's locality and addresses are the same at both priorities, so Envoy
 * keeps its connections and health when an instance moves between them.
 */
export function serviceAssignment(service: ServiceDocument, places: CellPlace[]): Resource {
  const serving = places.filter(
    ({ shareBp, takers, cover }) => takers.length > 0 && (shareBp > 0 || cover.length === 0),
  );
  return assignment(service.name, [
    ...serving.map(({ cell, takers, shareBp }) =>
      shareBp > 0 ? locality(service, cell, takers, 0, shareBp) : drainingLocality(service, cell),
    ),
    ...coverLocalities(service, places),
  ]);
}

/**
 * The assignment of one cell's live traffic, for routes that choose the cell: the instances that take its share, and
 * behind them the cover of all cells. Of a cell without a share all instances are there: should a proxy still have a
 * route that names it, its requests are answered.
 */
export function weightedAssignment(service: ServiceDocument, cell: CellRecord, places: CellPlace[]): Resource {
  const own = places.find((place) => place.cell.name === cell.name);
  const takers = own && own.shareBp > 0 ? own.takers : cell.instances;
  const cover = own && own.shareBp > 0 ? places : places.filter((place) => place !== own);
  return assignment(liveClusterName(service.name, cell.name), [
    locality(service, cell, takers, 0, 1),
    ...coverLocalities(service, cover),
  ]);
}

/** The assignment of one cell alone: all its instances. */
export function cellAssignment(service: ServiceDocument, cell: CellRecord): Resource {
  return assignment(cellClusterName(service.name, cell.name), [locality(service, cell, cell.instances, 0, 1)]);
}

/** Priority 1 spills by instances: a weight must be there, or the cell gets nothing until all others are gone. */
function coverLocalities(service: ServiceDocument, places: CellPlace[]): EnvoyMessage[] {
  return places
    .filter(({ cover }) => cover.length > 0)
    .map(({ cell, cover }) => locality(service, cell, cover, 1, cover.length));
}

function assignment(name: string, endpoints: EnvoyMessage[]): Resource {
  return {
    type: 'endpoints',
    name,
    references: [],
    message: { cluster_name: name, endpoints, policy: { overprovisioning_factor: { value: 100 } } },
  };
}

/** Without a weight and out of the count of healthy hosts: nothing is sent to it, and nothing spills because of it. */
function drainingLocality(service: ServiceDocument, cell: CellRecord): EnvoyMessage {
  const { load_balancing_weight: _none, ...rest } = locality(service, cell, cell.instances, 0, 0);
  const endpoints = rest.lb_endpoints as EnvoyMessage[];
  return { ...rest, lb_endpoints: endpoints.map((endpoint) => ({ ...endpoint, health_status: 'DRAINING' })) };
}

function locality(
  service: ServiceDocument,
  cell: CellRecord,
  instances: Instance[],
  priority: number,
  weight: number,
): EnvoyMessage {
  const metadata = cellMetadataOf(service, cell.name);
  return {
    locality: { region: 'understudy', zone: cell.zone, sub_zone: cell.name },
    priority,
    load_balancing_weight: { value: weight },
    lb_endpoints: instances.map(({ address, port }) => ({
      endpoint: { address: { socket_address: { address, port_value: port } } },
      ...(metadata && { metadata }),
    })),
  };
}

/** Whatever must know an instance's cell: the choice of whom to trust, and the access log. */
function cellMetadataOf(service: ServiceDocument, cell: string): EnvoyMessage | undefined {
  const filter_metadata = {
    ...(service.tls && { [socketMatchKey]: struct({ cell }) }),
    ...(service.latency.samplePercent > 0 && { [cellMetadata.key]: struct({ [cellMetadata.path]: cell }) }),
  };
  return Object.keys(filter_metadata).length > 0 ? { filter_metadata } : undefined;
}

/** The shares in the same proportions, adding up to 10,000, by largest remainder; none of a positive one is lost. */
function tenThousand(shares: number[]): number[] {
  const sum = shares.reduce((a, b) => a + b, 0);
  if (sum === 0 || sum === 10_000) return shares;
  const exact = shares.map((share) => (10_000 * share) / sum);
  const whole = exact.map((share) => (share > 0 ? Math.max(1, Math.floor(share)) : 0));
  const byRemainder = exact
    .map((share, i) => ({ i, remainder: share - whole[i]! }))
    .filter(({ i }) => exact[i]! > 0)
    .sort((a, b) => b.remainder - a.remainder);
  let left = 10_000 - whole.reduce((a, b) => a + b, 0);
  for (let k = 0; left > 0; k += 1, left -= 1) whole[byRemainder[k % byRemainder.length]!.i]! += 1;
  return whole;
}
