/** An Envoy without a control plane, for the arms that only react: clusters from a file, hosts from files that may change. */
import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Instance } from '../../blueprints/schema';
import type { Deployment } from './cases';
import { healthIntervalMs } from './deployment';

/** One service behind it. */
export interface ReactiveService {
  name: string;
  port: number;
  deployment: Deployment;
  /** `usual`: what proxies are mostly left at. `best`: what this bench was found to do best with. */
  tuning: 'usual' | 'best';
  cells: number;
}

const s = (seconds: number): string => `${seconds}s`;
const type = (name: string): string => `type.googleapis.com/envoy.${name}`;

/** The file from which the hosts of a service are read anew whenever it is replaced. */
const hostsFile = (dir: string, service: string): string => join(dir, `${service}.hosts.json`);

export function writeHosts(dir: string, service: string, instances: readonly Instance[]): void {
  const assignment = {
    '@type': type('config.endpoint.v3.ClusterLoadAssignment'),
    cluster_name: service,
    endpoints: [
      {
        lb_endpoints: instances.map(({ address, port }) => ({
          endpoint: { address: { socket_address: { address, port_value: port } } },
        })),
      },
    ],
  };
  mkdirSync(dir, { recursive: true });
  const file = hostsFile(dir, service);
  writeFileSync(`${file}.new`, JSON.stringify({ version_info: String(Date.now()), resources: [assignment] }));
  // Envoy watches for files that are moved into place.
  renameSync(`${file}.new`, file);
}

export function reactiveBootstrap(dir: string, adminPort: number, services: readonly ReactiveService[]): object {
  return {
    node: { id: 'reactive', cluster: 'bench' },
    admin: { address: { socket_address: { address: '127.0.0.1', port_value: adminPort } } },
    static_resources: {
      listeners: services.map(listener),
      clusters: services.map((service) => cluster(dir, service)),
    },
  };
}

/** Of the objective that a request may spend waiting in the cells that are left: more is late, less is shed for nothing. */
const waitingShare = 0.5;

/** Requests in flight that the cells but one answer well within the objective: what is beyond it is shed. */
export function bestInFlightLimit({ cellCapacity, variant }: Deployment, cells: number): number {
  return Math.ceil((waitingShare * (cells - 1) * cellCapacity * variant.sloMs) / 1000);
}

function cluster(dir: string, { name, deployment, tuning, cells }: ReactiveService): object {
  const limit = bestInFlightLimit(deployment, cells);
  const usual = {
    lb_policy: 'ROUND_ROBIN',
    // Envoy's defaults, but for the share that may be ejected: with its 10 % no host of so few would ever be.
    outlier_detection: { consecutive_5xx: 5, interval: s(10), base_ejection_time: s(30), max_ejection_percent: 100 },
    circuit_breakers: { thresholds: [{ retry_budget: { budget_percent: { value: 20 } } }] },
  };
  const best = {
    lb_policy: 'LEAST_REQUEST',
    common_lb_config: { healthy_panic_threshold: { value: 0 }, update_merge_window: s(0) },
    outlier_detection: {
      consecutive_5xx: 5,
      consecutive_gateway_failure: 5,
      enforcing_consecutive_gateway_failure: 100,
      enforcing_success_rate: 0,
      interval: s(1),
      base_ejection_time: s(5),
      max_ejection_time: s(30),
      max_ejection_percent: Math.ceil((100 * (cells - 1)) / cells),
    },
    circuit_breakers: {
      thresholds: [
        {
          max_connections: 10_000,
          max_pending_requests: limit,
          max_requests: limit,
          retry_budget: { budget_percent: { value: 20 }, min_retry_concurrency: Math.ceil(limit / 4) },
        },
      ],
    },
  };
  return {
    name,
    type: 'EDS',
    eds_cluster_config: {
      service_name: name,
      eds_config: { resource_api_version: 'V3', path_config_source: { path: hostsFile(dir, name) } },
    },
    connect_timeout: s(1),
    health_checks: [
      {
        timeout: s(0.5),
        interval: s(healthIntervalMs / 1000),
        no_traffic_interval: s(healthIntervalMs / 1000),
        unhealthy_threshold: 2,
        healthy_threshold: 1,
        http_health_check: { path: '/healthz' },
      },
    ],
    typed_extension_protocol_options: {
      'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
        '@type': type('extensions.upstreams.http.v3.HttpProtocolOptions'),
        explicit_http_config: { http_protocol_options: {} },
        common_http_protocol_options: { idle_timeout: s(4) },
      },
    },
    ...(tuning === 'usual' ? usual : best),
  };
}

function listener({ name, port, tuning }: ReactiveService): object {
  const retries = {
    retry_on: '5xx',
    num_retries: 2,
    ...(tuning === 'best' && {
      retry_host_predicate: [
        {
          name: 'envoy.retry_host_predicates.previous_hosts',
          typed_config: { '@type': type('extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate') },
        },
      ],
      host_selection_retry_max_attempts: 5,
    }),
  };
  const route = { match: { prefix: '/' }, route: { cluster: name, timeout: s(15), retry_policy: retries } };
  return {
    name,
    address: { socket_address: { address: '127.0.0.1', port_value: port } },
    filter_chains: [
      {
        filters: [
          {
            name: 'envoy.filters.network.http_connection_manager',
            typed_config: {
              '@type': type('extensions.filters.network.http_connection_manager.v3.HttpConnectionManager'),
              stat_prefix: name,
              route_config: { virtual_hosts: [{ name, domains: ['*'], routes: [route] }] },
              http_filters: [
                {
                  name: 'envoy.filters.http.router',
                  typed_config: { '@type': type('extensions.filters.http.router.v3.Router') },
                },
              ],
            },
          },
        ],
      },
    ],
  };
}
