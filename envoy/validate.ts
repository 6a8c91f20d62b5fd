/** Refuses what Envoy would accept without a word and then route by wrongly. Its own checks are left to Envoy. */
import { isIP } from 'node:net';
import { encodeStrictly, type EnvoyMessage } from './protos';
import { messageName, serviceOf, type Resource } from './resources/resource';
import { assignmentProblems, hasWeights } from './validate-assignment';

/** Every reason why these resources must not be published together, each with its path; none if they may. */
export function resourceProblems(resources: Resource[]): string[] {
  const unsound = resources.flatMap(encodingProblems);
  // What cannot be read cannot be judged either.
  if (unsound.length > 0) return unsound;
  return [
    ...resources
      .filter(({ type }) => type === 'endpoints')
      .flatMap(({ name, message }) => assignmentProblems(name, message, serviceOf(name) === name)),
    ...ignoredWeights(resources),
    ...sharedAssignments(resources),
    ...listenerProblems(resources),
    ...missingReferences(resources),
  ];
}

/** A key that the message does not have would be dropped, at any depth. */
function encodingProblems({ type, name, message }: Resource): string[] {
  try {
    encodeStrictly(messageName(type), message);
    return [];
  } catch (error) {
    return [`${type} ${name}: ${(error as Error).message}`];
  }
}

/** Envoy shares out by locality only if it is told so; otherwise weights are there and mean nothing. */
function ignoredWeights(resources: Resource[]): string[] {
  const weighted = new Set(
    resources.filter(({ type, message }) => type === 'endpoints' && hasWeights(message)).map(({ name }) => name),
  );
  return resources
    .filter(({ type, message }) => {
      const common = message.common_lb_config as { locality_weighted_lb_config?: object } | undefined;
      return type === 'cluster' && weighted.has(assignmentOf(message)) && !common?.locality_weighted_lb_config;
    })
    .map(
      ({ name }) =>
        `cluster ${name}: common_lb_config.locality_weighted_lb_config: is missing; Envoy would ignore the weights of its cells`,
    );
}

function assignmentOf(cluster: EnvoyMessage): string {
  const eds = cluster.eds_cluster_config as { service_name?: string } | undefined;
  return eds?.service_name ?? String(cluster.name);
}

/** Two clusters on one assignment stall Envoy for 15 s (envoy#47302). */
function sharedAssignments(resources: Resource[]): string[] {
  return sharedBy(resources, 'cluster', (message) =>
    message.type === 'EDS' ? `assignment ${assignmentOf(message)}` : undefined,
  );
}

function listenerProblems(resources: Resource[]): string[] {
  const named = resources
    .filter(({ type }) => type === 'listener')
    .map(({ name, message }) => ({ name, address: socketAddress(message)?.address }))
    .filter(({ address }) => address !== undefined && !isIP(address))
    .map(
      ({ name, address }) => `listener ${name}: address: ${address} is not an IP address; Envoy resolves no names here`,
    );
  const clashing = sharedBy(resources, 'listener', (message) => {
    const address = listenerAddress(message);
    return address && `address ${address}`;
  });
  return [...named, ...clashing];
}

/** `address:port` of a Listener; none of one for clients without a proxy. */
export function listenerAddress(message: EnvoyMessage): string | undefined {
  const at = socketAddress(message);
  return at && `${at.address}:${at.port_value}`;
}

function socketAddress(message: EnvoyMessage): { address: string; port_value: number } | undefined {
  return (message.address as { socket_address?: { address: string; port_value: number } } | undefined)?.socket_address;
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
      // Secrets are nobody's of the service's: they come from where secrets are kept.
      .filter(({ type }) => type !== 'secret')
      .map((reference) => `${reference.type} ${reference.name}`)
      .filter((wanted) => !known.has(wanted))
      .map((wanted) => `${resource.type} ${resource.name}: names ${wanted}, which is not published`),
  );
}
