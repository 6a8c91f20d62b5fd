/** Everything that Envoy is told about one service. */
import type { BlueprintVersion, CellRecord, ServiceRecord, TrafficState } from '../../blueprints/records';
import { cellCluster, serviceCluster, type ServiceSize } from './cluster';
import { cellAssignment, serviceAssignment } from './endpoints';
import { proxylessListener, serviceListener } from './listener';
import type { Resource } from './resource';
import { serviceRoutes } from './route';

/** What the store knows of a service. */
export interface ServiceFacts {
  service: ServiceRecord;
  /** The service's cells, synthetic ones included. */
  cells: CellRecord[];
  traffic: TrafficState;
  /** The blueprint versions its cells were made from. */
  blueprints: BlueprintVersion[];
}

/** The listener, routes, clusters and assignments of a service. Throws an Error if the split names an unknown cell. */
export function serviceResources({ service: { spec }, cells, traffic, blueprints }: ServiceFacts): Resource[] {
  const size = serviceSize(cells, blueprints);
  const reachable = cells.filter((cell) => cell.state !== 'retired' && cell.instances.length > 0);
  return [
    serviceCluster(spec, size),
    serviceAssignment(spec, traffic.split, cells),
    ...reachable.flatMap((cell) => [cellCluster(spec, cell.name, size), cellAssignment(spec, cell)]),
    serviceListener(spec),
    ...(spec.protocol === 'grpc' && spec.grpc.proxyless ? [proxylessListener(spec)] : []),
    serviceRoutes(
      spec,
      reachable.map((cell) => cell.name),
    ),
  ];
}

function serviceSize(cells: CellRecord[], blueprints: BlueprintVersion[]): ServiceSize {
  const declared = cells.filter((cell) => cell.role !== 'synthetic');
  const capacity = (cell: CellRecord): number =>
    blueprints.find((b) => b.name === cell.blueprint.name && b.version === cell.blueprint.version)?.spec.capacity
      .requestsPerSecond ?? 0;
  return {
    declaredCells: declared.length,
    requestsPerSecond: declared.reduce((sum, cell) => sum + capacity(cell), 0),
  };
}
