/** Everything that Envoy is told about one service. */
import type { BlueprintVersion, CellRecord, ServiceRecord, TrafficState } from '../../blueprints/records';
import { cellCluster, serviceCluster, weightedCluster, type ServiceSize } from './cluster';
import { cellAssignment, placesOf, serviceAssignment, weightedAssignment } from './endpoints';
import { proxylessListener, serviceListener } from './listener';
import { carriesLiveTraffic, type Resource, type ResourceKey } from './resource';
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
  const places = placesOf(spec, traffic.split, cells);
  const live =
    spec.distribution === 'locality-weights'
      ? [serviceCluster(spec, size), serviceAssignment(spec, places)]
      : reachable.flatMap((cell) => [weightedCluster(spec, cell.name, size), weightedAssignment(spec, cell, places)]);
  return [
    ...live,
    ...reachable.flatMap((cell) => [cellCluster(spec, cell.name, size), cellAssignment(spec, cell)]),
    serviceListener(spec),
    ...(spec.protocol === 'grpc' && spec.grpc.proxyless ? [proxylessListener(spec)] : []),
    serviceRoutes(spec, reachable, places),
  ];
}

/** Of a service's resources those that carry out its split: a proxy follows the split once it has taken these. */
export function resourcesOfSplit(resources: Resource[], service: string): ResourceKey[] {
  const weighted = !resources.some(({ type, name }) => type === 'cluster' && name === service);
  return resources
    .filter(({ type, name }) =>
      type === 'route' ? weighted : (type === 'cluster' || type === 'endpoints') && carriesLiveTraffic(name, service),
    )
    .map(({ type, name }) => ({ type, name }));
}

function serviceSize(cells: CellRecord[], blueprints: BlueprintVersion[]): ServiceSize {
  const declared = cells.filter((cell) => cell.role !== 'synthetic');
  const capacity = (cell: CellRecord): number =>
    blueprints.find((b) => b.name === cell.blueprint.name && b.version === cell.blueprint.version)?.spec.capacity
      .requestsPerSecond ?? 0;
  return {
    declaredCells: declared.map(({ name }) => name),
    requestsPerSecond: declared.reduce((sum, cell) => sum + capacity(cell), 0),
  };
}
