/** Routes: all traffic to the service's cells by their shares, except what asks for one cell by header. */
import type { CellRecord } from '../../blueprints/records';
import type { ServiceDocument } from '../../blueprints/schema';
import { duration, type EnvoyMessage } from '../protos';
import type { CellPlace } from './endpoints';
import { anyOf, cellClusterName, liveClusterName, type Resource } from './resource';

/** A request with this header set to a cell's name reaches that cell and no other: for probes and warm-up. */
export const cellHeader = 'x-understudy-cell';

const requestTimeoutMs = 15_000;

/** The routes of a service whose `reachable` cells can also be reached alone. */
export function serviceRoutes(service: ServiceDocument, reachable: CellRecord[], places: CellPlace[]): Resource {
  const cells = [...reachable].sort((a, b) => (a.name < b.name ? -1 : 1));
  const mirrors = service.mirror.percent > 0 ? cells.filter((cell) => isMirrored(cell, places)) : [];
  const target = liveTarget(service, places);
  const live = 'cluster' in target ? [service.name] : target.weighted_clusters.clusters.map(({ name }) => name);
  return {
    type: 'route',
    name: service.name,
    references: [...live, ...cells.map((cell) => cellClusterName(service.name, cell.name))].map((name) => ({
      type: 'cluster',
      name,
    })),
    message: {
      name: service.name,
      virtual_hosts: [
        {
          name: service.name,
          domains: ['*'],
          routes: [
            ...cells.map((cell) => probeRoute(service.name, cell.name)),
            ...mirroredRoutes(service, target, mirrors),
            ...liveRoutes(service, target),
          ],
        },
      ],
    },
  };
}

type Target = { cluster: string } | { weighted_clusters: { clusters: { name: string; weight: { value: number } }[] } };

/** Either Envoy shares out within one cluster by the weights of its localities, or the route chooses among clusters. */
function liveTarget({ name, distribution }: ServiceDocument, places: CellPlace[]): Target {
  if (distribution === 'locality-weights') return { cluster: name };
  const clusters = places
    .filter(({ shareBp }) => shareBp > 0)
    .map(({ cell, shareBp }) => ({ name: liveClusterName(name, cell.name), weight: { value: shareBp } }));
  return { weighted_clusters: { clusters } };
}

// A write that was reset may have been done, and the answer to a second would hide the first's: repeat only what surely
// was not begun.
const notBegun = ['connect-failure', 'refused-stream', 'reset-before-request'];
const unanswered = ['connect-failure', 'refused-stream', 'reset', 'gateway-error'];
const reading = ['GET', 'HEAD', 'OPTIONS', 'TRACE'];

function liveRoutes({ protocol, http, grpc }: ServiceDocument, target: Target): EnvoyMessage[] {
  // Every call is a POST, and which may run twice only the service knows: its document says upon what.
  if (protocol === 'grpc') return [route('calls', { prefix: '/' }, liveAction(target, [...notBegun, ...grpc.retryOn]))];
  const repeatable = byMethod('/', [...reading, ...http.repeatable]);
  return [
    route('repeatable', repeatable, liveAction(target, unanswered)),
    route('once', { prefix: '/' }, liveAction(target, notBegun)),
  ];
}

/** Like the live routes, with a copy for each cell that warms up or is quarantined. Only what reads: a copy must do nothing. */
function mirroredRoutes(service: ServiceDocument, target: Target, mirrors: CellRecord[]): EnvoyMessage[] {
  if (mirrors.length === 0) return [];
  const { protocol, grpc, mirror, name } = service;
  const request_mirror_policies = mirrors.map((cell) => ({
    // A cluster of its own: the copies count neither as load of the service nor against its limits.
    cluster: cellClusterName(name, cell.name),
    runtime_fraction: {
      default_value: { numerator: Math.round(10_000 * mirror.percent), denominator: 'MILLION' },
    },
    // Otherwise the cell would be asked for another host than callers ask for.
    disable_shadow_host_suffix_append: true,
  }));
  if (protocol === 'grpc') {
    const action = { ...liveAction(target, [...notBegun, ...grpc.retryOn]), request_mirror_policies };
    return mirror.paths.map((path) => route(`mirrored ${path}`, { path }, action));
  }
  const action = { ...liveAction(target, unanswered), request_mirror_policies };
  const prefixes = mirror.paths.length > 0 ? mirror.paths : ['/'];
  return prefixes.map((prefix) => route(`mirrored ${prefix}`, byMethod(prefix, ['GET', 'HEAD', 'OPTIONS']), action));
}

/** What warms up, and what is watched without any share of its own: would it have failed as predicted? */
function isMirrored({ name, role, state }: CellRecord, places: CellPlace[]): boolean {
  if (role === 'synthetic') return state === 'warming';
  return state === 'quarantined' && !places.some(({ cell, shareBp }) => cell.name === name && shareBp > 0);
}

/** No retries: a probe that fails is to fail. */
function probeRoute(service: string, cell: string): EnvoyMessage {
  const match = { prefix: '/', headers: [{ name: cellHeader, string_match: { exact: cell } }] };
  return route(`cell-${cell}`, match, {
    cluster: cellClusterName(service, cell),
    timeout: duration(requestTimeoutMs),
  });
}

function route(name: string, match: EnvoyMessage, action: EnvoyMessage): EnvoyMessage {
  return { name, match, route: action };
}

function byMethod(prefix: string, methods: string[]): EnvoyMessage {
  return { prefix, headers: [{ name: ':method', string_match: { safe_regex: { regex: methods.join('|') } } }] };
}

function liveAction(target: Target, retryOn: string[]): EnvoyMessage {
  return {
    ...target,
    timeout: duration(requestTimeoutMs),
    retry_policy: {
      retry_on: retryOn.join(','),
      num_retries: { value: 2 },
      // Another host, and after the first failure another priority: that is how a retry reaches an armed cell.
      retry_host_predicate: [
        {
          name: 'envoy.retry_host_predicates.previous_hosts',
          typed_config: { '@type': anyOf('envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate') },
        },
      ],
      host_selection_retry_max_attempts: 5,
      retry_priority: {
        name: 'envoy.retry_priorities.previous_priorities',
        typed_config: {
          '@type': anyOf('envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig'),
          update_frequency: 1,
        },
      },
    },
  };
}
