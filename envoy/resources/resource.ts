/** What an xDS resource is here: a named message of one of five types, and the resources it refers to. */
import type { EnvoyMessage } from '../protos';

/**
 * The types in the order in which they may reach a proxy: what is referred to before what refers to it
 * (make before break). Removal goes the other way round.
 */
export const resourceTypes = [
  { type: 'cluster', message: 'envoy.config.cluster.v3.Cluster' },
  { type: 'endpoints', message: 'envoy.config.endpoint.v3.ClusterLoadAssignment' },
  { type: 'listener', message: 'envoy.config.listener.v3.Listener' },
  { type: 'route', message: 'envoy.config.route.v3.RouteConfiguration' },
  { type: 'secret', message: 'envoy.extensions.transport_sockets.tls.v3.Secret' },
] as const;

export type ResourceType = (typeof resourceTypes)[number]['type'];

export interface ResourceKey {
  type: ResourceType;
  name: string;
}

export interface Resource extends ResourceKey {
  message: EnvoyMessage;
  /** What this resource names and cannot work without. */
  references: ResourceKey[];
  /**
   * Ids of the nodes that may see it; to all others it does not exist. Without it everybody may see it, except that a
   * secret must always name its nodes or its owners.
   */
  visibleTo?: readonly string[];
  /**
   * Identities, as certificates say them, that alone may have it. A proxy on a plaintext port has none: what has an
   * owner never goes to it, whatever node id it claims.
   */
  owners?: readonly string[];
  /**
   * Proxies drop the resource when they have not heard of it for so long, milliseconds; it is confirmed well before, as
   * long as this control plane is there. Only for proxies that declare that they know of it. Without it: for ever.
   */
  ttlMs?: number;
}

/** "For Listener and Cluster resource types, there is also a wildcard subscription"; and what is asked for so is told whole. */
export function hasWildcard(type: ResourceType): boolean {
  return type === 'cluster' || type === 'listener';
}

const typeUrlPrefix = 'type.googleapis.com/';

export function messageName(type: ResourceType): string {
  return resourceTypes.find((t) => t.type === type)!.message;
}

export function typeUrl(type: ResourceType): string {
  return typeUrlPrefix + messageName(type);
}

export function typeOfUrl(url: string): ResourceType | undefined {
  return resourceTypes.find((t) => typeUrlPrefix + t.message === url)?.type;
}

/** The `@type` of a message packed into an Any. */
export function anyOf(name: string): string {
  return typeUrlPrefix + name;
}

/** The cluster that reaches one cell alone, for probes and per-cell statistics. */
export function cellClusterName(service: string, cell: string): string {
  return `${service}|${cell}`;
}

/** The cluster of one cell's live traffic, for services whose routes choose the cell (`weighted-clusters`). */
export function liveClusterName(service: string, cell: string): string {
  return `${service}/${cell}`;
}

/** Whether the cluster carries the service's live traffic, rather than probes and copies. */
export function carriesLiveTraffic(cluster: string, service: string): boolean {
  return cluster === service || cluster.startsWith(`${service}/`);
}

/** Whether the cluster carries what is meant for one cell of the service: probes and copies. */
export function reachesOneCell(cluster: string, service: string): boolean {
  return cluster.startsWith(`${service}|`);
}

/** The listener of a service for gRPC clients without a proxy. A service's own name has no dot. */
export function proxylessName(service: string): string {
  return `${service}.grpc`;
}

/** The service that a resource of this name belongs to. */
export function serviceOf(name: string): string {
  return name.split(/[|./]/, 1)[0]!;
}
