/** How the parts of one reading become canonical values: the CPU's states its use, the file systems the fullest one. */
import { metrics, type MetricName } from '../metrics';
import type { Parts } from './rounds';
import { histogramQuantile } from './series';

type Emit = (metric: MetricName, value: number) => void;
type Combine = (parts: Parts, emit: Emit) => void;

const separator = '\u0000';

/** A part is named by what it is (`role`) and whose it is (`owner`: a device, a CPU, a series). */
export const partName = (role: string, owner = ''): string => `${role}${separator}${owner}`;

/** The parts' values by owner, then role. Values that are not there yet (NaN) are left out. */
function byOwner(parts: Parts): Map<string, Map<string, number>> {
  const owners = new Map<string, Map<string, number>>();
  for (const [name, value] of parts) {
    if (Number.isNaN(value)) continue;
    const cut = name.indexOf(separator);
    const owner = name.slice(cut + 1);
    const role = name.slice(0, cut);
    const roles = owners.get(owner);
    if (roles) roles.set(role, value);
    else owners.set(owner, new Map([[role, value]]));
  }
  return owners;
}

/** The values of a role over all owners. */
function valuesOf(parts: Parts, role: string): number[] {
  const values: number[] = [];
  for (const [name, value] of parts) if (!Number.isNaN(value) && name.startsWith(role + separator)) values.push(value);
  return values;
}

const total = (values: readonly number[]): number => values.reduce((sum, v) => sum + v, 0);

/** One canonical metric over all owners, by the rule the metric itself has for instances. */
export function aggregate(metric: MetricName, values: readonly number[]): number | undefined {
  if (values.length === 0) return undefined;
  switch (metrics[metric].aggregate) {
    case 'max':
      return values.reduce((a, b) => Math.max(a, b));
    case 'min':
      return values.reduce((a, b) => Math.min(a, b));
    case 'sum':
      return total(values);
  }
}

const idleStates: ReadonlySet<string> = new Set(['idle', 'iowait', 'wait']);

/** Shares or times of states, of one CPU or of each: what is not idle. A host that only sends `active` means per cent. */
const cpu: Combine = (parts, emit) => {
  const active = valuesOf(parts, 'active');
  let idle = 0;
  let all = 0;
  let idleSeen = false;
  for (const [name, value] of parts) {
    const state = name.slice(0, name.indexOf(separator));
    // Guests' time is in user and nice already.
    if (Number.isNaN(value) || state === 'active' || state.startsWith('guest')) continue;
    all += value;
    if (idleStates.has(state)) idle += value;
    idleSeen ||= state === 'idle';
  }
  if (idleSeen && all > 0) emit('cpu.utilization', (all - idle) / all);
  else if (active.length > 0) emit('cpu.utilization', total(active) / active.length / 100);
};

/** Either `used` and a `total`, or states that add up to the whole. */
const memory: Combine = (parts, emit) => {
  const [used] = valuesOf(parts, 'used');
  const [whole] = valuesOf(parts, 'total');
  const [available] = valuesOf(parts, 'available');
  if (whole !== undefined) {
    emit('memory.limit_bytes', whole);
    if (used !== undefined) emit('memory.used_bytes', used);
    else if (available !== undefined) emit('memory.used_bytes', whole - available);
    return;
  }
  if (used === undefined) return;
  emit('memory.used_bytes', used);
  if (valuesOf(parts, 'free').length > 0) emit('memory.limit_bytes', total([...parts.values()]));
};

/** Used and limit of whichever owner is closest to its limit. Roles: `used`, `free`, `limit`. */
function fullest(used: MetricName, limit: MetricName): Combine {
  return (parts, emit) => {
    let worst = -1;
    let [worstUsed, worstLimit] = [0, 0];
    for (const roles of byOwner(parts).values()) {
      const has = roles.get('used') ?? difference(roles.get('size'), roles.get('free'));
      const left = roles.get('available') ?? roles.get('free');
      if (has === undefined) continue;
      // What only root may still write does not help a service: the limit is what is used and what is left.
      const ends = roles.get('limit') ?? (left === undefined ? undefined : has + left);
      if (ends === undefined || ends <= 0 || has / ends <= worst) continue;
      worst = has / ends;
      [worstUsed, worstLimit] = [has, ends];
    }
    if (worst < 0) return;
    emit(used, worstUsed);
    emit(limit, worstLimit);
  };
}

const difference = (a: number | undefined, b: number | undefined) =>
  a === undefined || b === undefined ? undefined : a - b;

/** Roles: `write_rate` (By/s), `busy` (share), and `write_latency` (s) or `write_time` (s/s) with `writes` (1/s). */
const disk: Combine = (parts, emit) => {
  const rates = valuesOf(parts, 'write_rate');
  if (rates.length > 0) emit('disk.write_rate', total(rates));
  const busy = aggregate('disk.utilization', valuesOf(parts, 'busy'));
  if (busy !== undefined) emit('disk.utilization', busy);
  const latencies = valuesOf(parts, 'write_latency');
  for (const roles of byOwner(parts).values()) {
    const time = roles.get('write_time');
    const writes = roles.get('writes');
    // Without a write there is no latency: missing, not zero.
    if (time !== undefined && writes !== undefined && writes > 0) latencies.push(time / writes);
  }
  const latency = aggregate('disk.write_latency_s', latencies);
  if (latency !== undefined) emit('disk.write_latency_s', latency);
};

/** Roles: `receive`, `transmit` (By/s). */
const network: Combine = (parts, emit) => {
  const receive = aggregate('network.receive_rate', valuesOf(parts, 'receive'));
  const transmit = aggregate('network.transmit_rate', valuesOf(parts, 'transmit'));
  if (receive !== undefined) emit('network.receive_rate', receive);
  if (transmit !== undefined) emit('network.transmit_rate', transmit);
};

/** A part of a whole, both summed over their owners; none of a whole of nothing. */
function ratio(metric: MetricName, part: string, whole: string): Combine {
  return (parts, emit) => {
    const counted = valuesOf(parts, part);
    const sum = total(valuesOf(parts, whole));
    if (counted.length > 0 && sum > 0) emit(metric, total(counted) / sum);
  };
}

/** CPU of a container within its quota. Roles: `usage` (s/s), `quota` and `period`, `throttled` and `periods` (1/s). */
const container: Combine = (parts, emit) => {
  const uses: number[] = [];
  const throttles: number[] = [];
  for (const roles of byOwner(parts).values()) {
    const [usage, quota, period] = [roles.get('usage'), roles.get('quota'), roles.get('period')];
    if (usage !== undefined && quota !== undefined && period !== undefined && quota > 0 && period > 0) {
      uses.push((usage * period) / quota);
    }
    const [throttled, periods] = [roles.get('throttled'), roles.get('periods')];
    if (throttled !== undefined && periods !== undefined && periods > 0) throttles.push(throttled / periods);
  }
  const use = aggregate('cpu.utilization', uses);
  const throttle = aggregate('cpu.throttled_share', throttles);
  if (use !== undefined) emit('cpu.utilization', use);
  if (throttle !== undefined) emit('cpu.throttled_share', throttle);
};

/** Rates of requests: `bucket <bound in seconds>` (with all below it), `answered` and `failed`. */
function requests(rate: MetricName, errors: MetricName, p99: MetricName, p50?: MetricName): Combine {
  return (parts, emit) => {
    const cumulative = new Map<number, number>();
    for (const [name, value] of parts) {
      if (Number.isNaN(value) || !name.startsWith('bucket ')) continue;
      const bound = Number(name.slice(7, name.indexOf(separator)));
      cumulative.set(bound, (cumulative.get(bound) ?? 0) + value);
    }
    const answered = valuesOf(parts, 'answered');
    const failed = valuesOf(parts, 'failed');
    const count = total(answered) + total(failed);
    if (answered.length + failed.length > 0) emit(rate, count);
    // Without a request there is neither an error ratio nor a latency: missing, not zero.
    if (count > 0) emit(errors, total(failed) / count);
    const bounds = [...cumulative.keys()].sort((a, b) => a - b);
    const buckets = bounds.map((b, i) =>
      Math.max(0, (cumulative.get(b) ?? 0) - (i === 0 ? 0 : (cumulative.get(bounds[i - 1] ?? 0) ?? 0))),
    );
    const finite = bounds.filter(Number.isFinite);
    for (const [metric, q] of [[p50, 0.5] as const, [p99, 0.99] as const]) {
      const value = metric && histogramQuantile(q, finite, buckets);
      if (metric && value !== undefined) emit(metric, value);
    }
  };
}

function sumTo(metric: MetricName): Combine {
  return (parts, emit) => {
    const values = valuesOf(parts, '');
    if (values.length > 0) emit(metric, total(values));
  };
}

/** The groups of parts by name; a group under a canonical name combines that metric's values alone. */
const combiners = {
  cpu,
  memory,
  filesystem: fullest('disk.used_bytes', 'disk.limit_bytes'),
  'container memory': fullest('memory.used_bytes', 'memory.limit_bytes'),
  heap: fullest('heap.used_bytes', 'heap.limit_bytes'),
  descriptors: fullest('fd.used', 'fd.limit'),
  pool: fullest('pool.used', 'pool.limit'),
  'gc time': sumTo('gc.share'),
  'heap spaces': sumTo('heap.used_bytes'),
  'open requests': sumTo('http.in_flight'),
  container,
  disk,
  network,
  tcp: ratio('network.retransmit_ratio', 'retransmitted', 'sent'),
  cache: ratio('cache.hit_ratio', 'hits', 'lookups'),
  served: requests('http.request_rate', 'http.error_ratio', 'http.latency_p99_s', 'http.latency_p50_s'),
  called: requests('dependency.request_rate', 'dependency.error_ratio', 'dependency.latency_p99_s'),
} satisfies Record<string, Combine>;

export type GroupName = keyof typeof combiners | MetricName;

export function combine(group: GroupName, parts: Parts, emit: Emit): void {
  if (Object.hasOwn(combiners, group)) return combiners[group as keyof typeof combiners](parts, emit);
  const metric = group as MetricName;
  const value = aggregate(
    metric,
    [...parts.values()].filter((v) => !Number.isNaN(v)),
  );
  if (value !== undefined) emit(metric, value);
}
