/** Which metrics a fault is seen in: what the drivers of a score are checked against. */
import { metricNames, type MetricName } from '../../prediction/metrics';

/** By fault; `*` at the end stands for any metric of that beginning. */
const patterns: Readonly<Record<string, readonly string[]>> = {
  'memory-leak': ['heap.used_bytes', 'memory.used_bytes', 'gc.share'],
  'heap-leak': ['heap.used_bytes', 'memory.used_bytes', 'gc.share'],
  'buffer-leak': ['memory.used_bytes'],
  'cpu-saturation': ['cpu.*'],
  'cpu-burn': ['cpu.*'],
  'slow-code': ['cpu.*', 'http.latency_*', 'http.in_flight', 'event_loop.delay_p99_s'],
  'pool-leak': ['pool.*'],
  'fd-exhaustion': ['fd.used'],
  'fd-leak': ['fd.used'],
  'disk-fill': ['disk.used_bytes'],
  'disk-slow': ['disk.write_latency_s', 'disk.utilization'],
  'network-creep': [
    'network.rtt_s',
    'network.retransmit_ratio',
    'dependency.latency_p99_s',
    'http.latency_p50_s',
    'http.latency_p99_s',
  ],
  'dependency-slow': ['dependency.*'],
  'retry-storm': ['retry.ratio', 'http.*', 'dependency.*'],
  'gray-failure': ['http.error_ratio', 'http.latency_p99_s'],
  'gray-slow': ['http.error_ratio', 'http.latency_p99_s'],
  'gray-error': ['http.error_ratio', 'http.latency_p99_s'],
  'cache-loss': ['cache.hit_ratio', 'dependency.*'],
  'queue-backlog': ['queue.*'],
  'noisy-neighbour': ['cpu.wait_share', 'cpu.throttled_share'],
  'bad-release': ['http.error_ratio'],
  'certificate-expiry': ['certificate.left_s'],
};

/** Metrics the fault shows in; undefined for a fault that is not in the table. */
export function metricsOfFault(fault: string): ReadonlySet<MetricName> | undefined {
  const listed = Object.hasOwn(patterns, fault) ? patterns[fault] : undefined;
  if (!listed) return undefined;
  const matches = (metric: string, pattern: string): boolean =>
    pattern.endsWith('*') ? metric.startsWith(pattern.slice(0, -1)) : metric === pattern;
  return new Set(metricNames.filter((metric) => listed.some((pattern) => matches(metric, pattern))));
}

/** Whether one of the first k drivers is a metric of the fault; undefined if the fault is in no table. */
export function hitAt(k: number, drivers: readonly { metric: string }[], fault: string): boolean | undefined {
  const expected = metricsOfFault(fault) as ReadonlySet<string> | undefined;
  return expected && drivers.slice(0, k).some(({ metric }) => expected.has(metric));
}

/** Faults that degrade without failing openly; they have a target of their own. */
export const grayFaults: ReadonlySet<string> = new Set([
  'gray-failure',
  'gray-slow',
  'gray-error',
  'disk-slow',
  'network-creep',
  'noisy-neighbour',
]);
