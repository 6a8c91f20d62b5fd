/** Which OTLP metric becomes which canonical metric, and how its points are put together. */
import { isMetricName, metrics, type MetricName } from '../metrics';
import { aggregate, combine, partName, type GroupName } from './combine';
import { isRealInterface, isRealFilesystem, isWholeDisk } from './devices';
import { commonScale, explicitBuckets, exponentialBounds, exponentialPoints } from './otlp-exponential';
import { unitScale, type Dimension } from './otlp-units';
import {
  attributesOf,
  millis,
  number,
  numbers,
  object,
  objects,
  pointValue,
  seriesKey,
  type Attributes,
  type Loose,
} from './otlp-wire';
import { histogramQuantile, type Delta, type Interval, type Point, type SeriesStore } from './series';
import type { Identity, SampleSink } from './sink';

export interface ResourceContext {
  id: Identity;
  /** Path of the resource in the request, for problems. */
  where: string;
  series: SeriesStore;
  sink: SampleSink;
}

interface Reading {
  attributes: Attributes;
  timeMs: number;
  value: number;
}

type Emit = (metric: MetricName, atMs: number, value: number | undefined) => void;

interface Mapping {
  /** What the metric is measured in: a declared unit is brought to it. */
  dimension: Dimension;
  /** A host's figures stand for the process only where the resource sends none of its own: names with this beginning. */
  unless?: string;
  /** Metrics read as their current values: gauges and non-monotonic sums. */
  readings?: (readings: Reading[], emit: Emit) => void;
  /** Metrics read as what was added since the last export: histograms and monotonic sums. */
  interval?: (interval: Interval, bounds: readonly number[], emit: Emit) => void;
}

/** Both dialects of an attribute: the SDKs' (first) and the Collector's. */
function attribute(attributes: Attributes, ...names: string[]): string | undefined {
  for (const name of names) {
    const value = attributes.get(name);
    if (value !== undefined) return value;
  }
  return undefined;
}

const newest = (readings: Reading[]): number => readings.reduce((t, r) => Math.max(t, r.timeMs), 0);
const total = (readings: Reading[]): number => readings.reduce((sum, r) => sum + r.value, 0);

function sumTo(metric: MetricName, keep: (a: Attributes) => boolean = () => true): Mapping {
  return {
    dimension: metrics[metric].unit,
    readings: (readings, emit) => {
      const kept = readings.filter((r) => keep(r.attributes));
      if (kept.length > 0) emit(metric, newest(kept), total(kept));
    },
  };
}

function combineTo(metric: MetricName, keep: (a: Attributes) => boolean = () => true): Mapping {
  return {
    dimension: metrics[metric].unit,
    readings: (readings, emit) => {
      const kept = readings.filter((r) => keep(r.attributes));
      emit(
        metric,
        newest(kept),
        aggregate(
          metric,
          kept.map((r) => r.value),
        ),
      );
    },
  };
}

/** Levels that are parts of a group: each by its role in it and by whose it is. */
function levelsTo(
  group: GroupName,
  role: (a: Attributes) => string | undefined,
  owner: (a: Attributes) => string,
): Mapping {
  return {
    dimension: 'By',
    readings: (readings, emit) => {
      const parts = new Map<string, number>();
      for (const { attributes, value } of readings) {
        const as = role(attributes);
        if (as !== undefined) parts.set(partName(as, owner(attributes)), value);
      }
      combine(group, parts, (metric, value) => emit(metric, newest(readings), value));
    },
  };
}

/** Counters whose growth per second, per role and owner, makes a group. */
function ratesTo(
  group: GroupName,
  dimension: Dimension,
  role: (a: Attributes) => string | undefined,
  owner: (a: Attributes) => string,
): Mapping {
  return {
    dimension,
    interval: ({ atMs, elapsedMs, deltas }, _bounds, emit) => {
      const parts = new Map<string, number>();
      for (const { point, sum } of deltas) {
        const attributes = attributesFromKey(point.key);
        const as = role(attributes);
        if (as === undefined) continue;
        const name = partName(as, owner(attributes));
        parts.set(name, (parts.get(name) ?? 0) + (sum * 1000) / elapsedMs);
      }
      combine(group, parts, (metric, value) => emit(metric, atMs, value));
    },
  };
}

const deviceOf = (a: Attributes) => attribute(a, 'system.device', 'network.interface.name', 'device') ?? '';
const directionOf = (a: Attributes) =>
  attribute(a, 'network.io.direction', 'disk.io.direction', 'system.disk.direction', 'direction');
const mountOf = (a: Attributes) => attribute(a, 'system.filesystem.mountpoint', 'mountpoint') ?? deviceOf(a);
const isHeap = (a: Attributes) => attribute(a, 'jvm.memory.type', 'type') === 'heap';
const written = (role: string) => (a: Attributes) =>
  directionOf(a) === 'write' && isWholeDisk(deviceOf(a)) ? role : undefined;

const cpuState = (a: Attributes) => attribute(a, 'process.cpu.state', 'system.cpu.state', 'cpu.mode', 'state');
const isIdle = (a: Attributes) => ['idle', 'wait', 'iowait'].includes(cpuState(a) ?? '');
const memoryState = (a: Attributes) => attribute(a, 'system.memory.state', 'state');
const isError = (a: Attributes) =>
  a.has('error.type') || Number(attribute(a, 'http.response.status_code', 'http.status_code') ?? 0) >= 500;

const systemCpuUtilization: Mapping = {
  dimension: '1',
  unless: 'process.cpu.',
  readings: (readings, emit) => {
    const cpus = new Set(
      readings.map((r) => attribute(r.attributes, 'system.cpu.logical_number', 'cpu.logical_number', 'cpu') ?? ''),
    );
    emit('cpu.utilization', newest(readings), total(readings.filter((r) => !isIdle(r.attributes))) / cpus.size);
  },
};

const systemCpuTime: Mapping = {
  dimension: 's',
  unless: 'process.cpu.',
  interval: ({ atMs, deltas }, _bounds, emit) => {
    let busy = 0;
    let all = 0;
    for (const { point, sum } of deltas) {
      all += sum;
      if (!isIdle(attributesFromKey(point.key))) busy += sum;
    }
    if (all > 0) emit('cpu.utilization', atMs, busy / all);
  },
};

/** The Collector's slab states lie within `used` and `cached` and would be counted twice. */
const systemMemoryUsage: Mapping = {
  ...levelsTo(
    'memory',
    (a) => {
      const state = memoryState(a);
      return state?.startsWith('slab') ? undefined : state;
    },
    () => '',
  ),
  unless: 'process.memory.',
};

/** Durations of requests: their rate, share of errors and latencies, under the canonical names of their side. */
function requestDuration(names: { rate: MetricName; errors: MetricName; p99: MetricName; p50?: MetricName }): Mapping {
  return {
    dimension: 's',
    interval: ({ atMs, elapsedMs, deltas }, bounds, emit) => {
      const { count, errors, buckets } = addedUp(deltas, bounds.length + 1);
      emit(names.rate, atMs, (count * 1000) / elapsedMs);
      // Without a request there is neither an error ratio nor a latency: missing, not zero.
      if (count <= 0) return;
      emit(names.errors, atMs, errors / count);
      if (names.p50) emit(names.p50, atMs, histogramQuantile(0.5, bounds, buckets));
      emit(names.p99, atMs, histogramQuantile(0.99, bounds, buckets));
    },
  };
}

function addedUp(deltas: readonly Delta[], bucketCount: number) {
  const buckets = new Array<number>(bucketCount).fill(0);
  let count = 0;
  let errors = 0;
  for (const delta of deltas) {
    count += delta.count;
    if (isError(attributesFromKey(delta.point.key))) errors += delta.count;
    delta.buckets.forEach((n, i) => (buckets[i] = (buckets[i] ?? 0) + n));
  }
  return { count, errors, buckets };
}

const served = requestDuration({
  rate: 'http.request_rate',
  errors: 'http.error_ratio',
  p50: 'http.latency_p50_s',
  p99: 'http.latency_p99_s',
});
const called = requestDuration({
  rate: 'dependency.request_rate',
  errors: 'dependency.error_ratio',
  p99: 'dependency.latency_p99_s',
});

const waitForConnection: Mapping = {
  dimension: 's',
  interval: ({ atMs, deltas }, bounds, emit) =>
    emit('pool.wait_p99_s', atMs, histogramQuantile(0.99, bounds, addedUp(deltas, bounds.length + 1).buckets)),
};

const gcDuration: Mapping = {
  dimension: 's',
  interval: ({ atMs, elapsedMs, deltas }, _bounds, emit) => {
    const seconds = deltas.reduce((sum, d) => sum + d.sum, 0);
    emit('gc.share', atMs, Math.min(1, (seconds * 1000) / elapsedMs));
  },
};

const mappings: Readonly<Record<string, Mapping>> = {
  'process.cpu.utilization': sumTo('cpu.utilization', (a) => !isIdle(a)),
  'system.cpu.utilization': systemCpuUtilization,
  'system.cpu.time': systemCpuTime,
  'process.memory.usage': sumTo('memory.used_bytes'),
  'system.memory.usage': systemMemoryUsage,
  'v8js.memory.heap.used': sumTo('heap.used_bytes'),
  // Per heap space this metric is what V8 has set aside so far and grows with use; only a total without a space can be
  // the limit at which the process dies.
  'v8js.memory.heap.limit': sumTo('heap.limit_bytes', (a) => !a.has('v8js.heap.space.name')),
  'nodejs.eventloop.delay.p99': combineTo('event_loop.delay_p99_s'),
  'v8js.gc.duration': gcDuration,
  'jvm.memory.used': sumTo('heap.used_bytes', isHeap),
  'jvm.memory.limit': sumTo('heap.limit_bytes', isHeap),
  'jvm.gc.duration': gcDuration,
  'http.server.request.duration': served,
  // Before the names of HTTP metrics were settled; in milliseconds, as its unit says.
  'http.server.duration': served,
  'http.client.request.duration': called,
  'http.client.duration': called,
  'http.server.active_requests': sumTo('http.in_flight'),
  'process.uptime': combineTo('process.uptime_s'),
  'process.open_file_descriptor.count': sumTo('fd.used'),
  'process.unix.file_descriptor.count': sumTo('fd.used'),
  'db.client.connection.count': sumTo('pool.used', (a) => (a.get('db.client.connection.state') ?? 'used') === 'used'),
  'db.client.connection.max': sumTo('pool.limit'),
  'db.client.connection.wait_time': waitForConnection,
  'system.memory.limit': { ...combineTo('memory.limit_bytes'), unless: 'process.memory.' },
  'system.filesystem.usage': levelsTo(
    'filesystem',
    (a) => {
      if (!isRealFilesystem(attribute(a, 'system.filesystem.type', 'type') ?? '')) return undefined;
      const state = attribute(a, 'system.filesystem.state', 'state');
      return state === 'used' || state === 'free' ? state : undefined;
    },
    mountOf,
  ),
  'system.network.io': ratesTo(
    'network',
    'By',
    (a) => (isRealInterface(deviceOf(a)) ? directionOf(a) : undefined),
    deviceOf,
  ),
  'system.disk.io': ratesTo('disk', 'By', written('write_rate'), deviceOf),
  'system.disk.io_time': ratesTo('disk', 's', (a) => (isWholeDisk(deviceOf(a)) ? 'busy' : undefined), deviceOf),
};

/** Series keys are the sorted attributes as JSON; a series' attributes are read back rather than stored twice. */
function attributesFromKey(key: string): Attributes {
  return new Map(JSON.parse(key) as [string, string][]);
}

/** A gauge under a canonical name (a limit, say) is that metric. */
function mappingOf(name: string): Mapping | undefined {
  if (Object.hasOwn(mappings, name)) return mappings[name];
  return isMetricName(name) ? combineTo(name) : undefined;
}

/** Adds the samples of one `resourceMetrics` entry to the sink. */
export function mapResource(context: ResourceContext, resourceMetrics: Loose): void {
  const found: { metric: Loose; name: string; mapping: Mapping }[] = [];
  let unmapped = 0;
  for (const scope of objects(resourceMetrics.scopeMetrics)) {
    for (const metric of objects(scope.metrics)) {
      const name = metric.name;
      const mapping = typeof name === 'string' ? mappingOf(name) : undefined;
      if (mapping) found.push({ metric, name: name as string, mapping });
      else unmapped += 1;
    }
  }
  if (unmapped > 0) context.sink.ignore('unmapped', unmapped);
  const emitted = new Set<MetricName>();
  const outdone = new Set(['process.cpu.', 'process.memory.'].filter((p) => found.some((f) => f.name.startsWith(p))));
  for (const { metric, name, mapping } of found) {
    if (mapping.unless !== undefined && outdone.has(mapping.unless)) context.sink.ignore('secondary');
    else mapMetric(context, metric, name, mapping, emitted);
  }
}

function mapMetric(
  context: ResourceContext,
  metric: Loose,
  name: string,
  mapping: Mapping,
  emitted: Set<MetricName>,
): void {
  const { id, sink } = context;
  const where = `${context.where} ${name}`;
  // Quantiles over a time that nobody says cannot be combined with others.
  if (object(metric.summary)) return sink.ignore('summary');
  const scale = unitScale(metric.unit, mapping.dimension);
  if (scale === undefined) {
    const expected = mapping.dimension;
    return sink.object('bad-unit', `${where}: unit ${JSON.stringify(metric.unit)} is none of ${expected}`);
  }
  const emit: Emit = (canonical, atMs, value) => {
    // Two sources of one canonical metric in one resource: the first is taken, they are never mixed.
    if (value === undefined || emitted.has(canonical)) return;
    emitted.add(canonical);
    sink.emit(id, atMs, canonical, value, where);
  };
  if (mapping.readings) {
    const readings = readReadings(context, metric, where, scale);
    if (readings.length > 0) mapping.readings(readings, emit);
  } else if (mapping.interval) {
    const read = readPoints(context, metric, where, scale);
    if (!read) return;
    const group = `${id.cell}\u0000${id.instance}\u0000${name}\u0000${read.layout}`;
    const interval = context.series.advance(group, read.points, read.temporality);
    if (interval) mapping.interval(interval, read.bounds, emit);
    else if (read.points.length > 0) sink.ignore('no-value');
  }
}

function readReadings(context: ResourceContext, metric: Loose, where: string, scale: number): Reading[] {
  const gauge = object(metric.gauge);
  const sum = object(metric.sum);
  if (sum && number(sum.aggregationTemporality) !== 2) {
    context.sink.object('bad-temporality', `${where}: a sum read as a level must be cumulative (2)`);
    return [];
  }
  const readings: Reading[] = [];
  for (const point of objects((gauge ?? sum)?.dataPoints)) {
    const value = pointValue(point);
    const timeMs = millis(point.timeUnixNano);
    if (value === undefined) context.sink.ignore('no-value');
    else if (timeMs === 0) context.sink.object('bad-time', `${where}: timeUnixNano is missing`);
    else if (!Number.isFinite(value)) context.sink.object('bad-value', `${where}: not a finite number`);
    else readings.push({ attributes: attributesOf(point.attributes), timeMs, value: value * scale });
  }
  return readings;
}

interface ReadPoints {
  points: Point[];
  bounds: number[];
  temporality: 'delta' | 'cumulative';
  /** Counts of another layout of buckets are no continuation of these. */
  layout: string;
}

function readPoints(context: ResourceContext, metric: Loose, where: string, scale: number): ReadPoints | undefined {
  const { sink } = context;
  const histogram = object(metric.histogram);
  const exponential = object(metric.exponentialHistogram);
  const body = histogram ?? exponential ?? object(metric.sum);
  if (!body) return undefined;
  const temporality = number(body.aggregationTemporality);
  if (temporality !== 1 && temporality !== 2) {
    sink.object('bad-temporality', `${where}: aggregationTemporality is neither 1 nor 2`);
    return undefined;
  }
  const grid = exponential && !histogram ? commonScale(exponentialPoints(metric)) : undefined;
  if (exponential && !histogram && grid === undefined) {
    sink.object('bad-value', `${where}: scale must be a whole number from -2 to 20`);
    return undefined;
  }
  const gridBounds = grid === undefined ? undefined : exponentialBounds(grid);
  const points: Point[] = [];
  let bounds = gridBounds;
  for (const raw of objects(body.dataPoints)) {
    const timeMs = millis(raw.timeUnixNano);
    if (timeMs === 0) {
      sink.object('bad-time', `${where}: timeUnixNano is missing`);
      continue;
    }
    const point =
      gridBounds && grid !== undefined
        ? histogramPoint(raw, timeMs, explicitBuckets(raw, grid, gridBounds.length + 1))
        : histogram
          ? histogramPoint(raw, timeMs, numbers(raw.bucketCounts))
          : counterPoint(raw, timeMs);
    if (!point) {
      sink.object('bad-value', `${where}: count, sum or buckets are not numbers of 0 or more`);
      continue;
    }
    if (histogram) {
      const own = numbers(raw.explicitBounds);
      bounds ??= own;
      // Series with other bounds cannot be added up bucket by bucket.
      const same = own.length === bounds.length && own.every((b, i) => b === bounds?.[i] && Number.isFinite(b));
      if (!same || (point.buckets.length > 0 && point.buckets.length !== own.length + 1)) {
        sink.object('bad-value', `${where}: explicitBounds differ or do not fit bucketCounts`);
        continue;
      }
    }
    points.push({ ...point, sum: point.sum * scale });
  }
  return {
    points,
    bounds: (bounds ?? []).map((bound) => bound * scale),
    temporality: temporality === 1 ? 'delta' : 'cumulative',
    layout: grid === undefined ? '' : `2^-${grid}`,
  };
}

const isAmount = (n: number) => Number.isFinite(n) && n >= 0;

function histogramPoint(raw: Loose, timeMs: number, buckets: readonly number[] | undefined): Point | undefined {
  const count = number(raw.count);
  const sum = Object.hasOwn(raw, 'sum') ? number(raw.sum) : 0;
  if (!buckets || !isAmount(count) || !Number.isFinite(sum) || !buckets.every(isAmount)) return undefined;
  return {
    key: seriesKey(attributesOf(raw.attributes)),
    startMs: millis(raw.startTimeUnixNano),
    timeMs,
    count,
    sum,
    buckets,
  };
}

function counterPoint(raw: Loose, timeMs: number): Point | undefined {
  const value = pointValue(raw);
  if (value === undefined || !isAmount(value)) return undefined;
  const key = seriesKey(attributesOf(raw.attributes));
  return { key, startMs: millis(raw.startTimeUnixNano), timeMs, count: value, sum: value, buckets: [] };
}
