/**
 * Make before break, per stream: a route is not sent before the clusters it names are in use there, and nothing is
 * removed while something that was sent there still names it. A proxy that is slow or refuses holds up only itself.
 */
import type { ResourceType } from '../resources/resource';
import type { VersionedResource } from './resource-set';
import type { Subscription } from './subscription';

/** Which types name which: removal waits for those on the right. */
const namedBy: Record<ResourceType, ResourceType[]> = {
  cluster: ['route', 'listener'],
  endpoints: ['cluster'],
  listener: [],
  route: ['listener'],
  secret: ['cluster', 'listener'],
};

export function mayBeSent(resource: VersionedResource, on: Subscription): boolean {
  // Endpoints never wait for the acknowledgement of their cluster: Envoy sends that only when the cluster is warm, and
  // warm it gets by its endpoints. On one stream the cluster, sent before, is taken in before them.
  if (resource.type === 'route') return clustersInUse(resource, on);
  return true;
}

export function mayBeRemoved(type: ResourceType, name: string, on: Subscription): boolean {
  return namedBy[type].every((namer) => {
    const its = on.stream.siblings(namer);
    if (its) return !isNamed(type, name, its);
    // Clusters are asked for first: a proxy that comes back may have yet to say which routes it holds.
    return type !== 'cluster' || on.stream.hasSettled;
  });
}

/**
 * Whether the stream was sent anew something that cannot be used before these endpoints: a proxy that comes back and
 * is told of a changed cluster warms it, and waits for endpoints that it says it holds already.
 */
export function isAwaited(type: ResourceType, name: string, on: Subscription): boolean {
  if (type !== 'endpoints') return false;
  for (const { sent, acked } of on.stream.siblings('cluster')?.entries.values() ?? []) {
    if (!sent || sent.version === acked?.version || sent.references === 'unknown') continue;
    if (sent.references.some((r) => r.type === type && r.name === name)) return true;
  }
  return false;
}

/** Whether something that this stream was sent, or has accepted, of the other type names the resource. */
function isNamed(type: ResourceType, name: string, by: Subscription): boolean {
  if (by.mayHoldMore()) return true;
  for (const { acked, sent } of by.entries.values()) {
    for (const held of [acked, sent]) {
      if (!held) continue;
      if (held.references === 'unknown' || held.references.some((r) => r.type === type && r.name === name)) return true;
    }
  }
  return false;
}

/** "Cluster acknowledged before a route names it" (kuma#4556, kgateway#14372), and warmed, which takes its endpoints. */
function clustersInUse(route: VersionedResource, on: Subscription): boolean {
  const clusters = on.stream.siblings('cluster');
  if (!clusters || route.references === 'unknown') return true;
  const current = (type: ResourceType, name: string) => on.stream.resources.get(type, name);
  return route.references.every(({ type, name }) => {
    if (type !== 'cluster') return true;
    // A client that asks for clusters only after it has read the routes, as gRPC does, cannot be made to wait.
    if (!clusters.wants(name)) return true;
    const cluster = current('cluster', name);
    if (!cluster) return true;
    if (!clusters.holds(name)) {
      // Without any route a service is down; with one that names a refused cluster only that cluster is.
      return clusters.hasRejected(cluster) && !on.holds(route.name);
    }
    return (cluster.references === 'unknown' ? [] : cluster.references).every((needed) => {
      const resource = current(needed.type, needed.name);
      if (!resource || !clusters.wildcard) return true;
      const its = on.stream.siblings(needed.type);
      if (its?.holds(needed.name)) return true;
      return Boolean(its?.hasRejected(resource)) && !on.holds(route.name);
    });
  });
}
