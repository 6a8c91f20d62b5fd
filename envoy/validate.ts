/** Refuses what Envoy would accept without a word and then route by wrongly. Its own checks are left to Envoy. */
import { isIP } from 'node:net';
import type { EnvoyMessage } from './protos';
import type { Resource } from './resources/resource';

interface Locality {
  locality?: { region?: string; zone?: string; sub_zone?: string };
  priority?: number;
  load_balancing_weight?: { value: number };
  lb_endpoints?: { endpoint: { address: { socket_address: { address: string; port_value: number } } } }[];
}

/** Every reason why these resources must not be published together, each with its path; none if they may. */
export function resourceProblems(resources: Resource[]): string[] {
  return [
    ...resources.filter((r) => r.type === 'endpoints').flatMap((r) => assignmentProblems(r.name, r.message)),
    ...sharedAssignments(resources),
    ...sharedAddresses(resources),
    ...missingReferences(resources),
  ];
}

/** Problems of one ClusterLoadAssignment; measured on Envoy 1.40.0, which takes all of these but the weight of 0. */
export function assignmentProblems(name: string, message: EnvoyMessage): string[] {
  const problems: string[] = [];
  const localities = (message.endpoints ?? []) as Locality[];
  const seenLocality = new Set<string>();
  const seenEndpoint = new Map<string, string>();
  const sums = new Map<number, number>();
  localities.forEach((entry, i) => {
    const path = `endpoints ${name}: endpoints[${i}]`;
    const { region = '', zone = '', sub_zone = '' } = entry.locality ?? {};
    const priority = entry.priority ?? 0;
    const weight = entry.load_balancing_weight?.value;
    if (!sub_zone) problems.push(`${path}.locality: names no cell; sub_zone must be the cell's name`);
    const place = `${priority}/${region}/${zone}/${sub_zone}`;
    if (seenLocality.has(place))
      problems.push(
        `${path}.locality: ${sub_zone} is twice at priority ${priority}; Envoy would merge them and take the last weight`,
      );
    seenLocality.add(place);
    if (weight === undefined || !Number.isInteger(weight) || weight < 1)
      problems.push(
        `${path}.load_balancing_weight: must be a whole number from 1, not ${weight}; leave the cell out instead`,
      );
    sums.set(priority, (sums.get(priority) ?? 0) + (weight ?? 0));
    if (!entry.lb_endpoints?.length) problems.push(`${path}.lb_endpoints: cell ${sub_zone} has no instances here`);
    entry.lb_endpoints?.forEach(({ endpoint }, j) => {
      const { address, port_value } = endpoint.address.socket_address;
      const where = `${path}.lb_endpoints[${j}]`;
      if (!isIP(address)) problems.push(`${where}: ${address} is not an IP address; Envoy resolves no names here`);
      const before = seenEndpoint.get(`${address}:${port_value}`);
      if (before)
        problems.push(`${where}: ${address}:${port_value} is already ${before}; a second entry is dropped silently`);
      seenEndpoint.set(`${address}:${port_value}`, `in ${sub_zone} at priority ${priority}`);
    });
  });
  for (const [priority, sum] of sums) {
    if (sum > 0xffffffff)
      problems.push(`endpoints ${name}: the weights at priority ${priority} add up to ${sum}, above 2^32-1`);
  }
  for (let priority = 0; priority < Math.max(-1, ...sums.keys()); priority += 1) {
    if (!sums.has(priority))
      problems.push(`endpoints ${name}: nothing at priority ${priority} but something behind it`);
  }
  if (localities.length === 0) problems.push(`endpoints ${name}: no instances at all; every request would fail`);
  return problems;
}

/** Two clusters on one assignment stall Envoy for 15 s (envoy#47302). */
function sharedAssignments(resources: Resource[]): string[] {
  return sharedBy(resources, 'cluster', (message) => {
    const eds = message.eds_cluster_config as { service_name?: string } | undefined;
    return eds?.service_name && `assignment ${eds.service_name}`;
  });
}

function sharedAddresses(resources: Resource[]): string[] {
  return sharedBy(resources, 'listener', (message) => {
    const address = listenerAddress(message);
    return address && `address ${address}`;
  });
}

/** `address:port` of a Listener; none of one for clients without a proxy. */
export function listenerAddress(message: EnvoyMessage): string | undefined {
  const { socket_address: at } = (message.address ?? {}) as {
    socket_address?: { address: string; port_value: number };
  };
  return at && `${at.address}:${at.port_value}`;
}

function sharedBy(resources: Resource[], type: string, what: (message: EnvoyMessage) => string | undefined): string[] {
  const owners = new Map<string, string>();
  const problems: string[] = [];
  for (const { name, message } of resources.filter((r) => r.type === type)) {
    const thing = what(message);
    if (!thing) continue;
    const owner = owners.get(thing);
    if (owner) problems.push(`${type} ${name}: ${thing} is already ${owner}'s; each needs its own`);
    else owners.set(thing, name);
  }
  return problems;
}

function missingReferences(resources: Resource[]): string[] {
  const known = new Set(resources.map((r) => `${r.type} ${r.name}`));
  return resources.flatMap((resource) =>
    resource.references
      .map((reference) => `${reference.type} ${reference.name}`)
      .filter((wanted) => !known.has(wanted))
      .map((wanted) => `${resource.type} ${resource.name}: names ${wanted}, which is not published`),
  );
}
