/** What is read of Telegraf's metrics, whichever way they are written, and which canonical metrics it becomes. */
import type { Assembler } from './assembler';
import { partName, type GroupName } from './combine';
import { isRealFilesystem, isRealInterface, isWholeDisk } from './devices';
import { isTime, type RecordContext } from './decoder';
import type { Resolver } from './identity';
import type { SampleSink } from './sink';

/** One Telegraf metric: a measurement with its tags, its numeric fields and its time. */
export interface TelegrafMetric {
  name: string;
  tags: (name: string) => string | undefined;
  fields: ReadonlyMap<string, number>;
  atMs: number;
}

interface FieldRule {
  role?: string;
  counter?: boolean;
  scale?: number;
  /** A canonical metric or group of its own, where it is not the measurement's. */
  group?: GroupName;
}

interface MeasurementRule {
  group: GroupName;
  fields: Readonly<Record<string, FieldRule>>;
  /** Metrics with other tags are ignored. */
  when?: (tag: TelegrafMetric['tags']) => boolean;
  /** The tags that tell apart what comes in several records of one reading; without, a record is a whole reading. */
  owner?: readonly string[];
}

const tagged = (name: string, test: (value: string) => boolean) => (tag: TelegrafMetric['tags']) => {
  const value = tag(name);
  return value === undefined || test(value);
};
const count = (role: string, scale?: number): FieldRule => ({ role, counter: true, ...(scale ? { scale } : {}) });

const cpuStates = ['user', 'system', 'idle', 'nice', 'iowait', 'irq', 'softirq', 'steal'];

/** By measurement. What is not here has no canonical metric, or none without a guess (load, processes, netstat). */
const rules: Readonly<Record<string, MeasurementRule>> = {
  cpu: {
    group: 'cpu',
    when: tagged('cpu', (cpu) => cpu === 'cpu-total'),
    fields: Object.fromEntries(cpuStates.map((state) => [`usage_${state}`, { role: state }])),
  },
  mem: { group: 'memory', fields: { used: { role: 'used' }, total: { role: 'total' } } },
  disk: {
    group: 'filesystem',
    when: tagged('fstype', isRealFilesystem),
    owner: ['path', 'device'],
    fields: { used: { role: 'used' }, free: { role: 'free' } },
  },
  diskio: {
    group: 'disk',
    when: tagged('name', isWholeDisk),
    owner: ['name'],
    fields: {
      write_bytes: count('write_rate'),
      // Milliseconds, spent writing and spent busy.
      write_time: count('write_time', 1e-3),
      writes: count('writes'),
      io_time: count('busy', 1e-3),
    },
  },
  net: {
    group: 'network',
    when: tagged('interface', isRealInterface),
    owner: ['interface'],
    fields: { bytes_recv: count('receive'), bytes_sent: count('transmit') },
  },
  nstat: { group: 'tcp', fields: { TcpRetransSegs: count('retransmitted'), TcpOutSegs: count('sent') } },
  procstat: {
    group: 'descriptors',
    owner: ['pid', 'pattern', 'process_name', 'exe', 'pidfile', 'systemd_unit'],
    fields: { num_fds: { role: 'used' }, rlimit_num_fds_soft: { role: 'limit' } },
  },
  docker_container_mem: {
    group: 'container memory',
    owner: ['container_name'],
    fields: { usage: { role: 'used' }, limit: { role: 'limit' } },
  },
  docker_container_cpu: {
    group: 'container',
    when: tagged('cpu', (cpu) => cpu === 'cpu-total'),
    owner: ['container_name'],
    fields: { throttling_throttled_periods: count('throttled'), throttling_periods: count('periods') },
  },
  nginx: { group: 'http.request_rate', owner: ['server', 'port'], fields: { requests: { counter: true } } },
  ping: { group: 'network.rtt_s', owner: ['url'], fields: { average_response_ms: { scale: 1e-3 } } },
  // A probe's figure: one request, whose duration is its own median.
  http_response: { group: 'http.latency_p50_s', owner: ['server', 'method'], fields: { response_time: {} } },
  rabbitmq_queue: { group: 'queue.depth', owner: ['queue', 'vhost'], fields: { messages_ready: {} } },
  x509_cert: { group: 'certificate.left_s', owner: ['source', 'serial_number'], fields: { expiry: {} } },
};

export const isTelegrafMeasurement = (name: string): boolean => Object.hasOwn(rules, name);

/** Adds what a metric says to the sink. */
export function mapTelegraf(
  assembler: Assembler,
  resolve: Resolver,
  sink: SampleSink,
  record: RecordContext | undefined,
  metric: TelegrafMetric,
): void {
  const { name, tags, fields, atMs } = metric;
  const rule = isTelegrafMeasurement(name) ? rules[name] : undefined;
  if (!rule || (rule.when && !rule.when(tags))) return sink.ignore('unmapped', fields.size);
  if (!isTime(atMs)) return sink.object('bad-time', `${name}: its time is no time since 1970`);
  const id = resolve(tags, record, sink, name);
  if (!id) return;
  const owner = rule.owner?.map((tag) => tags(tag) ?? '').join('\u0001');
  const whole = new Map<string, number>();
  for (const [field, value] of fields) {
    const fieldRule = Object.hasOwn(rule.fields, field) ? rule.fields[field] : undefined;
    if (!fieldRule) {
      sink.ignore('unmapped');
      continue;
    }
    const { role = '', counter = false, scale = 1, group = rule.group } = fieldRule;
    const source = `${name}.${field}`;
    if (owner !== undefined) assembler.add(sink, id, { group, role, owner, counter, scale }, source, atMs, value);
    else {
      const reading = counter ? assembler.rate(sink, id, source, atMs, value) : value;
      if (reading !== undefined) whole.set(partName(role), reading * scale);
    }
  }
  if (whole.size > 0) assembler.whole(sink, id, rule.group, whole, name, atMs);
}
