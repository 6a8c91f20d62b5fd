/** Assignments: which instances stand behind a cluster, at which priority and with which weight. */
import type { CellRecord, CellShare } from '../../blueprints/records';
import type { Instance, ServiceDocument } from '../../blueprints/schema';
import type { EnvoyMessage } from '../protos';
import { cellClusterName, type Resource } from './resource';

/**
 * The assignment of a service's split. One locality per cell, the share in basis points as its weight at priority 0;
 * each cell's cover, its last `coverInstances` instances, at priority 1. A cell with neither leaves the assignment.
 *
 * With `overprovisioning_factor: 100` exactly the share that priority 0 loses goes to the cover: no more, no less, and
 * without the control plane doing anything. A cell's locality and addresses are the same at both priorities, so Envoy
 * keeps its connections and health when an instance moves between them.
 */
export function serviceAssignment(service: ServiceDocument, split: CellShare[], cells: CellRecord[]): Resource {
  const serving: EnvoyMessage[] = [];
  const covering: EnvoyMessage[] = [];
  for (const share of [...split].sort((a, b) => a.cell.localeCompare(b.cell))) {
    const cell = cells.find((c) => c.name === share.cell && c.service === service.name);
    if (!cell) throw new Error(`service ${service.name}: its split names cell ${share.cell}, which it does not have`);
    const takers = cell.instances.slice(0, cell.instances.length - share.coverInstances);
    const cover = cell.instances.slice(takers.length);
    // A cell whose instances have gone cannot take its share; Envoy gives it to the others.
    if (share.shareBp > 0 && takers.length > 0) serving.push(locality(cell, takers, 0, share.shareBp));
    // Priority 1 spills by instances: a weight must be there, or the cell gets nothing until all others are gone.
    if (cover.length > 0) covering.push(locality(cell, cover, 1, cover.length));
  }
  return assignment(service.name, [...serving, ...covering]);
}

/** The assignment of one cell alone: all its instances. */
export function cellAssignment(service: ServiceDocument, cell: CellRecord): Resource {
  return assignment(cellClusterName(service.name, cell.name), [locality(cell, cell.instances, 0, 1)]);
}

function assignment(name: string, endpoints: EnvoyMessage[]): Resource {
  return {
    type: 'endpoints',
    name,
    references: [],
    message: { cluster_name: name, endpoints, policy: { overprovisioning_factor: { value: 100 } } },
  };
}

function locality(cell: CellRecord, instances: Instance[], priority: number, weight: number): EnvoyMessage {
  return {
    locality: { region: 'understudy', zone: cell.zone, sub_zone: cell.name },
    priority,
    load_balancing_weight: { value: weight },
    lb_endpoints: instances.map((instance) => ({
      endpoint: { address: { socket_address: { address: instance.address, port_value: instance.port } } },
    })),
  };
}
