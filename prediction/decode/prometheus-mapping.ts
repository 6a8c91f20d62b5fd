/** What is read of Prometheus' series, by name, and which canonical metrics it becomes. */
import type { Route } from './assembler';
import type { GroupName } from './combine';
import { isRealFilesystem, isRealInterface, isWholeDisk } from './devices';

export type Labels = (name: string) => string | undefined;
type Rule = (labels: Labels, every: () => string) => Route | undefined;

const gauge =
  (group: GroupName, role = '', ...owners: string[]): Rule =>
  (labels) => ({ group, role, owner: owners.map((name) => labels(name) ?? '').join('\u0001') });
const counter =
  (group: GroupName, role: string, owner: string, test: (value: string) => boolean = () => true): Rule =>
  (labels) => {
    const name = labels(owner) ?? '';
    return test(name) ? { group, role, owner: name, counter: true } : undefined;
  };
const filesystem =
  (role: string): Rule =>
  (labels) =>
    isRealFilesystem(labels('fstype') ?? '')
      ? { group: 'filesystem', role, owner: labels('mountpoint') ?? labels('device') ?? '' }
      : undefined;
/** cAdvisor also sends the pod as a whole (no container) and its pause container. */
const ofContainer =
  (group: GroupName, role: string, isCounter = false): Rule =>
  (labels) => {
    const name = labels('container') ?? labels('name');
    if (name === undefined || name === '' || name === 'POD') return undefined;
    return { group, role, owner: name, counter: isCounter };
  };
const heapSpace: Rule = (labels) =>
  labels('area') === 'heap' ? { group: 'heap spaces', owner: labels('id') ?? '' } : undefined;

type Requests = 'served' | 'called';
const statusOf = (labels: Labels) =>
  labels('http_response_status_code') ?? labels('status_code') ?? labels('status') ?? labels('code');
const isFailure = (labels: Labels) => /^5/.test(statusOf(labels) ?? '');

/** The series of a histogram of request durations. `scale` brings `le` to seconds. */
function requestHistogram(name: string, group: Requests, scale = 1): [string, Rule][] {
  return [
    [
      `${name}_bucket`,
      (labels, every) => {
        const le = labels('le');
        const bound = le === '+Inf' || le === 'Inf' ? Infinity : Number(le) * scale;
        return Number.isNaN(bound) ? undefined : { group, role: `bucket ${bound}`, owner: every(), counter: true };
      },
    ],
    [`${name}_count`, countOf(group)],
  ];
}

/** All requests and the failed ones are told apart by status; a series is part of one or of both. */
const countOf =
  (group: Requests): Rule =>
  (labels, every) => ({ group, role: isFailure(labels) ? 'failed' : 'answered', owner: every(), counter: true });

const envoyClass =
  (group: Requests): Rule =>
  (labels, every) => {
    // The administration listener's requests are nobody's.
    if (labels('envoy_http_conn_manager_prefix') === 'admin') return undefined;
    const failed = labels('envoy_response_code_class') === '5';
    return { group, role: failed ? 'failed' : 'answered', owner: every(), counter: true };
  };
const envoyTime = (name: string, group: Requests): [string, Rule][] =>
  requestHistogram(name, group, 1e-3)
    .slice(0, 1)
    .map(([series, rule]) => [
      series,
      (labels, every) => (labels('envoy_http_conn_manager_prefix') === 'admin' ? undefined : rule(labels, every)),
    ]);

const rules: ReadonlyMap<string, Rule> = new Map<string, Rule>([
  // node_exporter: the host.
  [
    'node_cpu_seconds_total',
    (labels) => ({ group: 'cpu', role: labels('mode') ?? '', owner: labels('cpu') ?? '', counter: true }),
  ],
  ['node_memory_MemTotal_bytes', gauge('memory', 'total')],
  ['node_memory_MemAvailable_bytes', gauge('memory', 'available')],
  ['node_filesystem_size_bytes', filesystem('size')],
  ['node_filesystem_free_bytes', filesystem('free')],
  ['node_filesystem_avail_bytes', filesystem('available')],
  ['node_disk_written_bytes_total', counter('disk', 'write_rate', 'device', isWholeDisk)],
  ['node_disk_write_time_seconds_total', counter('disk', 'write_time', 'device', isWholeDisk)],
  ['node_disk_writes_completed_total', counter('disk', 'writes', 'device', isWholeDisk)],
  ['node_disk_io_time_seconds_total', counter('disk', 'busy', 'device', isWholeDisk)],
  ['node_network_receive_bytes_total', counter('network', 'receive', 'device', isRealInterface)],
  ['node_network_transmit_bytes_total', counter('network', 'transmit', 'device', isRealInterface)],
  ['node_netstat_Tcp_RetransSegs', counter('tcp', 'retransmitted', '')],
  ['node_netstat_Tcp_OutSegs', counter('tcp', 'sent', '')],
  // cAdvisor: containers within their limits.
  ['container_cpu_usage_seconds_total', ofContainer('container', 'usage', true)],
  ['container_spec_cpu_quota', ofContainer('container', 'quota')],
  ['container_spec_cpu_period', ofContainer('container', 'period')],
  ['container_cpu_cfs_throttled_periods_total', ofContainer('container', 'throttled', true)],
  ['container_cpu_cfs_periods_total', ofContainer('container', 'periods', true)],
  ['container_memory_working_set_bytes', ofContainer('container memory', 'used')],
  ['container_spec_memory_limit_bytes', ofContainer('container memory', 'limit')],
  // The client libraries' own: one process. Its CPU seconds alone are no share of the host.
  ['process_resident_memory_bytes', gauge('memory.used_bytes')],
  ['process_open_fds', gauge('fd.used')],
  // Turned into a duration where it is read.
  ['process_start_time_seconds', gauge('process.uptime_s')],
  ['process_max_fds', gauge('fd.limit')],
  ['nodejs_heap_size_used_bytes', gauge('heap.used_bytes')],
  ['nodejs_eventloop_lag_p99_seconds', gauge('event_loop.delay_p99_s')],
  ['nodejs_gc_duration_seconds_sum', counter('gc time', '', 'kind')],
  ['jvm_memory_used_bytes', heapSpace],
  ['jvm_gc_pause_seconds_sum', (_labels, every) => ({ group: 'gc time', owner: every(), counter: true })],
  ['jvm_gc_collection_seconds_sum', counter('gc time', '', 'gc')],
  ['hikaricp_connections_active', gauge('pool', 'used', 'pool')],
  ['hikaricp_connections_max', gauge('pool', 'limit', 'pool')],
  // Requests served, and requests to what the service depends on.
  ...requestHistogram('http_server_request_duration_seconds', 'served'),
  ...requestHistogram('http_request_duration_seconds', 'served'),
  ...requestHistogram('http_server_requests_seconds', 'served'),
  ...requestHistogram('http_client_request_duration_seconds', 'called'),
  ...requestHistogram('http_client_requests_seconds', 'called'),
  ['http_server_active_requests', (_labels, every) => ({ group: 'open requests', owner: every() })],
  // Envoy beside the service: downstream are its callers, upstream its dependencies.
  ...envoyTime('envoy_http_downstream_rq_time', 'served'),
  ['envoy_http_downstream_rq_xx', envoyClass('served')],
  ...envoyTime('envoy_cluster_upstream_rq_time', 'called'),
  ['envoy_cluster_upstream_rq_xx', envoyClass('called')],
]);

export const isPrometheusSeries = (name: string): boolean => rules.has(name);

/** Where a series goes; undefined if it is none of ours. `every` writes all its labels in a fixed order. */
export function routeOf(name: string, labels: Labels, every: () => string): Route | undefined {
  return rules.get(name)?.(labels, every);
}
