/** Refuses assignments that Envoy would accept without a word and then route by wrongly. */
import { isIP, SocketAddress } from 'node:net';
import type { EnvoyMessage } from './protos';

interface Endpoint {
  health_status?: string;
  endpoint?: { address?: { socket_address?: { address?: string; port_value?: number } } };
}

interface Locality {
  locality?: { region?: string; zone?: string; sub_zone?: string };
  priority?: number;
  load_balancing_weight?: { value: number };
  lb_endpoints?: Endpoint[];
}

/** What the shares at priority 0 of a service's assignment add up to. */
const wholeBp = 10_000;

/**
 * Problems of one ClusterLoadAssignment, each with its path, `endpoints[0].locality`. Measured on Envoy 1.40.0, which
 * takes all of these but a weight of 0 and a priority above 128: it merges, drops or ignores, and says nothing.
 *
 * @param sharesOf10000 whether the weights at priority 0 are shares of a service's traffic.
 */
export function assignmentProblems(name: string, message: EnvoyMessage, sharesOf10000 = false): string[] {
  const problems: string[] = [];
  const say = (path: string, what: string): void => void problems.push(`endpoints ${name}: ${path}: ${what}`);
  const localities = (message.endpoints ?? []) as Locality[];
  const seen = new Seen();
  const sums = new Map<number, number>();
  if (message.cluster_name !== undefined && message.cluster_name !== name)
    say('cluster_name', `is ${JSON.stringify(message.cluster_name)}; a proxy that asks for ${name} would not take it`);
  localities.forEach((entry, i) => {
    const path = `endpoints[${i}]`;
    const { priority = 0, lb_endpoints = [] } = entry;
    const cell = entry.locality?.sub_zone ?? '';
    if (!Number.isInteger(priority) || priority < 0 || priority > 127)
      say(`${path}.priority`, `must be a whole number from 0 to 127, not ${priority}`);
    if (!cell) say(`${path}.locality`, "names no cell; sub_zone must be the cell's name");
    else if (seen.locality(priority, entry))
      say(
        `${path}.locality`,
        `${cell} is twice at priority ${priority}; Envoy would merge them and take the last weight`,
      );
    const weight = entry.load_balancing_weight?.value;
    // A cell that drains has no weight: it gets nothing, whatever the others' weights are.
    const isDraining = weight === undefined && lb_endpoints.every((e) => e.health_status === 'DRAINING');
    if (!isDraining && (weight === undefined || !Number.isInteger(weight) || weight < 1))
      say(
        `${path}.load_balancing_weight`,
        `must be a whole number from 1, not ${weight}; leave the cell out, or let it drain`,
      );
    sums.set(priority, (sums.get(priority) ?? 0) + (weight ?? 0));
    if (lb_endpoints.length === 0) say(`${path}.lb_endpoints`, `cell ${cell} has no instances here`);
    lb_endpoints.forEach((endpoint, j) => {
      const problem = seen.endpoint(endpoint, `in ${cell} at priority ${priority}`);
      if (problem) say(`${path}.lb_endpoints[${j}]`, problem);
    });
  });
  if (localities.length === 0) say('endpoints', 'no instances at all; every request would fail');
  else if (![...sums.values()].some((sum) => sum > 0))
    say('endpoints', 'no cell has a weight; every request would fail');
  for (const [priority, sum] of sums)
    if (sum > 0xffffffff) say('endpoints', `the weights at priority ${priority} add up to ${sum}, above 2^32-1`);
  for (let priority = 0; priority < Math.max(-1, ...sums.keys()); priority += 1)
    if (!sums.has(priority)) say('endpoints', `nothing at priority ${priority} but something behind it`);
  if (sharesOf10000 && sums.has(0) && sums.get(0) !== wholeBp)
    say('endpoints', `the shares at priority 0 add up to ${sums.get(0)}, not to ${wholeBp}`);
  return problems;
}

/** Whether any weight of the assignment matters: one locality alone at its priority takes everything anyway. */
export function hasWeights(message: EnvoyMessage): boolean {
  const priorities = ((message.endpoints ?? []) as Locality[]).map(({ priority = 0 }) => priority);
  return new Set(priorities).size < priorities.length;
}

/** What one assignment has named so far. */
class Seen {
  private readonly localities = new Set<string>();
  private readonly endpoints = new Map<string, string>();

  /** Whether it was there already. */
  locality(priority: number, { locality: { region = '', zone = '', sub_zone = '' } = {} }: Locality): boolean {
    const place = JSON.stringify([priority, region, zone, sub_zone]);
    const before = this.localities.has(place);
    this.localities.add(place);
    return before;
  }

  /** What is wrong with it, if anything. */
  endpoint({ endpoint }: Endpoint, where: string): string | undefined {
    const { address = '', port_value = 0 } = endpoint?.address?.socket_address ?? {};
    if (!isIP(address)) return `${address || 'nothing'} is not an IP address; Envoy resolves no names here`;
    if (!Number.isInteger(port_value) || port_value < 1 || port_value > 65535)
      return `port ${port_value} is none; it must be a whole number from 1 to 65535`;
    const key = `${canonical(address)} ${port_value}`;
    const before = this.endpoints.get(key);
    this.endpoints.set(key, before ?? where);
    return before && `${address}:${port_value} is already ${before}; a second entry is dropped silently`;
  }
}

/** An IPv6 address can be written in many ways. */
function canonical(address: string): string {
  return new SocketAddress({ address, family: isIP(address) === 6 ? 'ipv6' : 'ipv4' }).address;
}
