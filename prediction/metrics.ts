/** The canonical metrics: the one table of names, units and limits that decoders, features, documents and the lab share. */

/** How the values of a cell's instances become the cell's one value at a tick. */
export type CellAggregate = 'max' | 'sum' | 'min';

export interface MetricDefinition {
  /** SI unit or `1` for a ratio. */
  unit: '1' | 's' | 'By' | '1/s' | 'By/s';
  /** The value at which the resource is exhausted: a constant, another metric's value, or none. */
  limit?: number | MetricName;
  aggregate: CellAggregate;
  /** Two to eight words for a sentence a person reads. */
  label: string;
}

const definitions = {
  'cpu.utilization': { unit: '1', limit: 1, aggregate: 'max', label: 'CPU use' },
  'cpu.throttled_share': { unit: '1', limit: 1, aggregate: 'max', label: 'share of CPU periods throttled' },
  'cpu.wait_share': { unit: '1', aggregate: 'max', label: 'share of time waiting for a CPU' },
  'memory.used_bytes': { unit: 'By', limit: 'memory.limit_bytes', aggregate: 'max', label: 'memory' },
  'memory.limit_bytes': { unit: 'By', aggregate: 'min', label: 'memory limit' },
  'heap.used_bytes': { unit: 'By', limit: 'heap.limit_bytes', aggregate: 'max', label: 'heap' },
  'heap.limit_bytes': { unit: 'By', aggregate: 'min', label: 'heap limit' },
  'gc.share': { unit: '1', limit: 1, aggregate: 'max', label: 'share of time in garbage collection' },
  'event_loop.delay_p99_s': { unit: 's', aggregate: 'max', label: 'event-loop delay p99' },
  'disk.used_bytes': { unit: 'By', limit: 'disk.limit_bytes', aggregate: 'max', label: 'disk space' },
  'disk.limit_bytes': { unit: 'By', aggregate: 'min', label: 'disk size' },
  'disk.write_latency_s': { unit: 's', aggregate: 'max', label: 'disk write latency' },
  'disk.write_rate': { unit: 'By/s', aggregate: 'sum', label: 'disk write rate' },
  'disk.utilization': { unit: '1', limit: 1, aggregate: 'max', label: 'disk busy' },
  'network.rtt_s': { unit: 's', aggregate: 'max', label: 'network round trip' },
  'network.retransmit_ratio': { unit: '1', limit: 1, aggregate: 'max', label: 'share of segments retransmitted' },
  'network.receive_rate': { unit: 'By/s', aggregate: 'sum', label: 'network bytes received' },
  'network.transmit_rate': { unit: 'By/s', aggregate: 'sum', label: 'network bytes sent' },
  'http.request_rate': { unit: '1/s', aggregate: 'sum', label: 'request rate' },
  'http.error_ratio': { unit: '1', limit: 1, aggregate: 'max', label: 'error ratio' },
  'http.latency_p50_s': { unit: 's', aggregate: 'max', label: 'latency p50' },
  'http.latency_p99_s': { unit: 's', aggregate: 'max', label: 'latency p99' },
  'http.in_flight': { unit: '1', limit: 'http.in_flight_limit', aggregate: 'max', label: 'requests in flight' },
  'http.in_flight_limit': { unit: '1', aggregate: 'min', label: 'limit of requests in flight' },
  'pool.used': { unit: '1', limit: 'pool.limit', aggregate: 'max', label: 'connections in use' },
  'pool.wait_p99_s': { unit: 's', aggregate: 'max', label: 'wait for a connection p99' },
  'pool.limit': { unit: '1', aggregate: 'min', label: 'connection pool size' },
  'fd.used': { unit: '1', limit: 'fd.limit', aggregate: 'max', label: 'open file descriptors' },
  'fd.limit': { unit: '1', aggregate: 'min', label: 'limit of file descriptors' },
  'queue.depth': { unit: '1', aggregate: 'max', label: 'queue depth' },
  'queue.oldest_age_s': { unit: 's', aggregate: 'max', label: 'age of the oldest message' },
  'cache.hit_ratio': { unit: '1', aggregate: 'min', label: 'cache hit ratio' },
  'retry.ratio': { unit: '1', aggregate: 'max', label: 'retries per request' },
  'dependency.request_rate': { unit: '1/s', aggregate: 'sum', label: 'requests to the dependency' },
  'dependency.latency_p99_s': { unit: 's', aggregate: 'max', label: 'dependency latency p99' },
  'dependency.error_ratio': { unit: '1', limit: 1, aggregate: 'max', label: 'dependency error ratio' },
  'process.uptime_s': { unit: 's', aggregate: 'min', label: 'time since start' },
  'change.age_s': { unit: 's', aggregate: 'min', label: 'time since the last change' },
  'certificate.left_s': { unit: 's', aggregate: 'min', label: 'certificate validity left' },
  'process.restarts': { unit: '1', aggregate: 'sum', label: 'restarts' },
} as const;

export type MetricName = keyof typeof definitions;

/** Every canonical metric by name. */
export const metrics: Readonly<Record<MetricName, MetricDefinition>> = definitions;

export const metricNames = Object.keys(definitions) as readonly MetricName[];

export function isMetricName(name: string): name is MetricName {
  return Object.hasOwn(definitions, name);
}
