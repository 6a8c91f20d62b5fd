/** Routes: all traffic to the service's cluster, except what asks for one cell by header. */
import type { ServiceDocument } from '../../blueprints/schema';
import { duration, type EnvoyMessage } from '../protos';
import { anyOf, cellClusterName, type Resource } from './resource';

/** A request with this header set to a cell's name reaches that cell and no other: for probes and warm-up. */
export const cellHeader = 'x-understudy-cell';

const requestTimeoutMs = 15_000;

/** The routes of a service whose cells, by name, can be reached alone. */
export function serviceRoutes(service: ServiceDocument, cells: string[]): Resource {
  const names = [...cells].sort();
  return {
    type: 'route',
    name: service.name,
    references: [service.name, ...names.map((cell) => cellClusterName(service.name, cell))].map((name) => ({
      type: 'cluster',
      name,
    })),
    message: {
      name: service.name,
      virtual_hosts: [
        {
          name: service.name,
          domains: ['*'],
          routes: [...names.map((cell) => probeRoute(service.name, cell)), ...liveRoutes(service)],
        },
      ],
    },
  };
}

function liveRoutes({ name, protocol, grpc }: ServiceDocument): EnvoyMessage[] {
  // Every call is a POST, and which may run twice only the service knows: its document says upon what.
  if (protocol === 'grpc')
    return [liveRoute('calls', name, ['connect-failure', 'refused-stream', 'reset-before-request', ...grpc.retryOn])];
  const gateway = ['unavailable', 'cancelled'];
  return [
    liveRoute(
      'repeatable',
      name,
      ['connect-failure', 'refused-stream', 'reset', ...gateway],
      [{ name: ':method', string_match: { safe_regex: { regex: 'GET|HEAD|OPTIONS|TRACE|PUT|DELETE' } } }],
    ),
    // A write that was reset may have been done: repeat only what surely was not.
    liveRoute('once', name, ['connect-failure', 'refused-stream', 'reset-before-request', ...gateway]),
  ];
}

/** No retries: a probe that fails is to fail. */
function probeRoute(service: string, cell: string): EnvoyMessage {
  return {
    name: `cell-${cell}`,
    match: { prefix: '/', headers: [{ name: cellHeader, string_match: { exact: cell } }] },
    route: { cluster: cellClusterName(service, cell), timeout: duration(requestTimeoutMs) },
  };
}

function liveRoute(name: string, cluster: string, retryOn: string[], headers?: EnvoyMessage[]): EnvoyMessage {
  return {
    name,
    match: { prefix: '/', ...(headers && { headers }) },
    route: {
      cluster,
      timeout: duration(requestTimeoutMs),
      retry_policy: {
        retry_on: retryOn.join(','),
        num_retries: { value: 2 },
        // Another host, and after the first failure another priority: that is how a retry reaches an armed cell.
        retry_host_predicate: [
          {
            name: 'envoy.retry_host_predicates.previous_hosts',
            typed_config: {
              '@type': anyOf('envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate'),
            },
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
    },
  };
}
