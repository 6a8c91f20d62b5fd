/** Clusters: one per service that carries live traffic over all its cells, and one per cell for probes. */
import type { ServiceDocument } from '../../blueprints/schema';
import { duration, type EnvoyMessage } from '../protos';
import { ownTransportSocket, secretsOf, transportSockets } from './cell-tls';
import { anyOf, cellClusterName, liveClusterName, type Resource } from './resource';

/** What of a service's declared cells shapes its cluster. Synthetic cells have no part in it: a cluster that changed
 * when one is armed would be created anew by Envoy, with new connections and health checks, at the worst moment. */
export interface ServiceSize {
  /** Primary and secondary cells, by name. */
  declaredCells: string[];
  /** What they carry together, requests per second. */
  requestsPerSecond: number;
}

/** The cluster of live traffic: localities are cells, locality weights their shares. */
export function serviceCluster(service: ServiceDocument, size: ServiceSize): Resource {
  return {
    type: 'cluster',
    name: service.name,
    references: [{ type: 'endpoints', name: service.name }, ...secretsOf(service)],
    message: {
      ...liveCluster(service.name, service, size, ejectable(size.declaredCells.length)),
      ...transportSockets(service, size.declaredCells),
    },
  };
}

/** The cluster of one cell's live traffic, and of the cover behind it, for routes that choose the cell. */
export function weightedCluster(service: ServiceDocument, cell: string, size: ServiceSize): Resource {
  const name = liveClusterName(service.name, cell);
  return {
    type: 'cluster',
    name,
    references: [{ type: 'endpoints', name }, ...secretsOf(service)],
    // At most half of a cell: with all of it ejected and no cover armed, its share would fail altogether.
    message: { ...liveCluster(name, service, size, 50), ...transportSockets(service, [cell]) },
  };
}

function liveCluster(
  name: string,
  service: ServiceDocument,
  size: ServiceSize,
  maxEjectionPercent: number,
): EnvoyMessage {
  return {
    ...edsCluster(name, service),
    common_lb_config: {
      locality_weighted_lb_config: {},
      // Panic routing would ignore the weights and feed hosts that are draining or down.
      healthy_panic_threshold: { value: 0 },
      // By default Envoy sits on health changes for a second before it acts on them.
      update_merge_window: duration(0),
      ignore_new_hosts_until_first_hc: true,
    },
    // Otherwise a removed host that still answers its health check is routed to.
    ignore_health_on_host_removal: true,
    circuit_breakers: circuitBreakers(inFlightLimit(service, size)),
    health_checks: [healthCheck(service)],
    outlier_detection: outlierDetection(maxEjectionPercent),
  };
}

/**
 * The cluster of one cell. Without health checks and outlier detection on purpose: a probe is to meet the cell as it
 * is, and a second set of checks would only load it.
 */
export function cellCluster(service: ServiceDocument, cell: string, size: ServiceSize): Resource {
  const name = cellClusterName(service.name, cell);
  return {
    type: 'cluster',
    name,
    references: [{ type: 'endpoints', name }, ...secretsOf(service)],
    message: {
      ...edsCluster(name, service),
      ...ownTransportSocket(service, cell),
      common_lb_config: { healthy_panic_threshold: { value: 0 }, update_merge_window: duration(0) },
      circuit_breakers: circuitBreakers(Math.max(fewestProbes, inFlightLimit(service, size))),
    },
  };
}

/** A handful of requests at once is no overload, whatever the figures say. */
const fewestInFlight = 16;
/** A probe of many requests at once is to meet the cell, not the limit. */
const fewestProbes = 64;
/** Of the objective that a request may spend waiting: what waits longer is late by the time it has been answered too. */
const waitingPart = 0.75;
/** A cell that stands still for as long (its memory is tidied, its machine is busy) is not overload. */
const pauseMs = 1000;

/**
 * Requests in flight above which Envoy sheds load, so that an overloaded survivor answers most callers in time rather than
 * all of them late. By Little's law what the cells but one answer in `waitingPart` of the objective, or in a pause: the limit
 * is one for all cells, and what waits for one that stands still must not keep callers from the others.
 */
export function inFlightLimit(service: ServiceDocument, { declaredCells, requestsPerSecond }: ServiceSize): number {
  const surviving = Math.max(1, declaredCells.length - 1) / Math.max(1, declaredCells.length);
  const waitingMs = Math.max(waitingPart * service.slo.latencyMs, pauseMs);
  return Math.max(fewestInFlight, Math.ceil((surviving * requestsPerSecond * waitingMs) / 1000));
}

function edsCluster(name: string, service: ServiceDocument): EnvoyMessage {
  return {
    name,
    type: 'EDS',
    eds_cluster_config: { service_name: name, eds_config: { resource_api_version: 'V3', ads: {} } },
    connect_timeout: duration(1000),
    lb_policy: 'ROUND_ROBIN',
    typed_extension_protocol_options: {
      'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
        '@type': anyOf('envoy.extensions.upstreams.http.v3.HttpProtocolOptions'),
        ...protocolOptions(service),
      },
    },
  };
}

function protocolOptions({ protocol }: ServiceDocument): EnvoyMessage {
  if (protocol === 'http/1.1') {
    return {
      explicit_http_config: { http_protocol_options: {} },
      // Below the 5 s after which a Node.js server closes an idle connection: never write into one it is closing.
      common_http_protocol_options: { idle_timeout: duration(4000) },
    };
  }
  // One connection carries all requests to an instance: if it goes dead without a word, they all wait for its timeout.
  const connection_keepalive = { interval: duration(10_000), timeout: duration(5000) };
  return { explicit_http_config: { http2_protocol_options: { connection_keepalive } } };
}

function circuitBreakers(limit: number): EnvoyMessage {
  return {
    thresholds: [
      {
        max_connections: { value: 10_000 },
        max_pending_requests: { value: limit },
        max_requests: { value: limit },
        // When a cell dies, what it had in flight fails at once: the usual minimum of 3 would let most of it fail.
        retry_budget: { budget_percent: { value: 20 }, min_retry_concurrency: { value: Math.ceil(limit / 4) } },
      },
    ],
  };
}

function healthCheck(service: ServiceDocument): EnvoyMessage {
  const { intervalMs } = service.healthCheck;
  return {
    timeout: duration(Math.max(500, intervalMs / 2)),
    interval: duration(intervalMs),
    // Defaults to a minute, for which an idle cluster's dead hosts would look healthy.
    no_traffic_interval: duration(intervalMs),
    unhealthy_threshold: { value: 2 },
    healthy_threshold: { value: 1 },
    ...healthRequest(service),
  };
}

function healthRequest({ protocol, healthCheck: { path }, grpc: { healthService } }: ServiceDocument): EnvoyMessage {
  if (protocol === 'grpc') return { grpc_health_check: healthService ? { service_name: healthService } : {} };
  return { http_health_check: { path, ...(protocol === 'http/2' && { codec_client_type: 'HTTP2' }) } };
}

/**
 * Up to a whole cell but never the last one: with 100 % an overloaded survivor is ejected too, and the service stays
 * down after the fault has gone.
 */
function ejectable(declaredCells: number): number {
  const cells = Math.max(1, declaredCells);
  return Math.ceil((100 * (cells - 1)) / cells);
}

/** Ejects hosts that keep failing. */
function outlierDetection(maxEjectionPercent: number): EnvoyMessage {
  return {
    consecutive_5xx: { value: 5 },
    consecutive_gateway_failure: { value: 5 },
    enforcing_consecutive_gateway_failure: { value: 100 },
    // Success rate compares hosts with one another; with a handful of hosts that is noise.
    enforcing_success_rate: { value: 0 },
    interval: duration(1000),
    base_ejection_time: duration(5000),
    max_ejection_time: duration(30_000),
    max_ejection_percent: { value: maxEjectionPercent },
  };
}
