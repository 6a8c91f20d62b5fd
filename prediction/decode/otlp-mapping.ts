/** Which OTLP metric becomes which canonical metric, and how its points are put together. */
import type { Sample } from '../contracts';
import { isMetricName, metrics, type MetricName } from '../metrics';
import { problem, type DecodeProblem } from './decoder';
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
import { histogramQuantile, type Interval, type Point, type SeriesStore } from './series';

export interface ResourceContext {
  cell: string;
  instance: string;
  /** Path of the resource in the request, for problems. */
  where: string;
  series: SeriesStore;
  samples: Sample[];
  problems: DecodeProblem[];
}

interface Reading {
  attributes: Attributes;
  timeMs: number;
  value: number;
}

type Emit = (metric: MetricName, atMs: number, value: number | undefined) => void;

interface Mapping {
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
    readings: (readings, emit) => {
      const kept = readings.filter((r) => keep(r.attributes));
      if (kept.length > 0) emit(metric, newest(kept), total(kept));
    },
  };
}

function combineTo(metric: MetricName): Mapping {
  return {
    readings: (readings, emit) => {
      const values = readings.map((r) => r.value);
      const { aggregate } = metrics[metric];
      const combined =
        aggregate === 'max'
          ? Math.max(...values)
          : aggregate === 'min'
            ? Math.min(...values)
            : aggregate === 'sum'
              ? total(readings)
              : total(readings) / readings.length;
      emit(metric, newest(readings), combined);
    },
  };
}

const cpuState = (a: Attributes) => attribute(a, 'process.cpu.state', 'system.cpu.state', 'cpu.mode', 'state');
const isIdle = (a: Attributes) => ['idle', 'wait', 'iowait'].includes(cpuState(a) ?? '');
const memoryState = (a: Attributes) => attribute(a, 'system.memory.state', 'state');
const isError = (a: Attributes) =>
  a.has('error.type') || Number(attribute(a, 'http.response.status_code', 'http.status_code') ?? 0) >= 500;

const systemCpuUtilization: Mapping = {
  unless: 'process.cpu.',
  readings: (readings, emit) => {
    const cpus = new Set(
      readings.map((r) => attribute(r.attributes, 'system.cpu.logical_number', 'cpu.logical_number', 'cpu') ?? ''),
    );
    emit('cpu.utilization', newest(readings), total(readings.filter((r) => !isIdle(r.attributes))) / cpus.size);
  },
};

const systemCpuTime: Mapping = {
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

const systemMemoryUsage: Mapping = {
  unless: 'process.memory.',
  readings: (readings, emit) => {
    const used = readings.filter((r) => memoryState(r.attributes) === 'used');
    if (used.length === 0) return;
    emit('memory.used_bytes', newest(used), total(used));
    if (readings.some((r) => memoryState(r.attributes) === 'free')) {
      emit('memory.limit_bytes', newest(readings), total(readings));
    }
  },
};

const httpServerDuration: Mapping = {
  interval: ({ atMs, elapsedMs, deltas }, bounds, emit) => {
    let count = 0;
    let errors = 0;
    const buckets = new Array<number>(bounds.length + 1).fill(0);
    for (const delta of deltas) {
      count += delta.count;
      if (isError(attributesFromKey(delta.point.key))) errors += delta.count;
      delta.buckets.forEach((n, i) => (buckets[i] = (buckets[i] ?? 0) + n));
    }
    emit('http.request_rate', atMs, (count * 1000) / elapsedMs);
    // Without a request there is neither an error ratio nor a latency: missing, not zero.
    if (count <= 0) return;
    emit('http.error_ratio', atMs, errors / count);
    emit('http.latency_p50_s', atMs, histogramQuantile(0.5, bounds, buckets));
    emit('http.latency_p99_s', atMs, histogramQuantile(0.99, bounds, buckets));
  },
};

const gcDuration: Mapping = {
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
  'http.server.request.duration': httpServerDuration,
  'http.server.active_requests': sumTo('http.in_flight'),
  'process.uptime': combineTo('process.uptime_s'),
  'process.open_file_descriptor.count': sumTo('fd.used'),
  'process.unix.file_descriptor.count': sumTo('fd.used'),
  'db.client.connection.count': sumTo('pool.used', (a) => (a.get('db.client.connection.state') ?? 'used') === 'used'),
  'db.client.connection.max': sumTo('pool.limit'),
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

/** Adds the samples of one `resourceMetrics` entry to the context. */
export function mapResource(context: ResourceContext, resourceMetrics: Loose): void {
  const found: { metric: Loose; name: string; mapping: Mapping }[] = [];
  for (const scope of objects(resourceMetrics.scopeMetrics)) {
    for (const metric of objects(scope.metrics)) {
      const name = metric.name;
      if (typeof name !== 'string') continue;
      const mapping = mappingOf(name);
      if (!mapping) continue;
      found.push({ metric, name, mapping });
    }
  }
  const emitted = new Set<MetricName>();
  for (const { metric, name, mapping } of found) {
    const { unless } = mapping;
    if (unless !== undefined && found.some((f) => f.name.startsWith(unless))) continue;
    mapMetric(context, metric, name, mapping, emitted);
  }
}

function mapMetric(
  context: ResourceContext,
  metric: Loose,
  name: string,
  mapping: Mapping,
  emitted: Set<MetricName>,
): void {
  const where = `${context.where} ${name}`;
  const emit: Emit = (canonical, atMs, value) => {
    // Two sources of one canonical metric in one resource: the first is taken, they are never mixed.
    if (value === undefined || emitted.has(canonical)) return;
    if (!Number.isFinite(value)) {
      context.problems.push(problem('bad-value', `${where}: not a finite number`));
      return;
    }
    emitted.add(canonical);
    context.samples.push({ cell: context.cell, instance: context.instance, atMs, metric: canonical, value });
  };
  if (mapping.readings) {
    const readings = readReadings(context, metric, where);
    if (readings.length > 0) mapping.readings(readings, emit);
  } else if (mapping.interval) {
    const read = readPoints(context, metric, where);
    if (!read) return;
    const group = `${context.cell}\u0000${context.instance}\u0000${name}`;
    const interval = context.series.advance(group, read.points, read.temporality);
    if (interval) mapping.interval(interval, read.bounds, emit);
  }
}

function readReadings(context: ResourceContext, metric: Loose, where: string): Reading[] {
  const gauge = object(metric.gauge);
  const sum = object(metric.sum);
  if (sum && number(sum.aggregationTemporality) !== 2) {
    context.problems.push(problem('bad-temporality', `${where}: a sum read as a level must be cumulative (2)`));
    return [];
  }
  const readings: Reading[] = [];
  for (const point of objects((gauge ?? sum)?.dataPoints)) {
    const value = pointValue(point);
    const timeMs = millis(point.timeUnixNano);
    if (value === undefined) continue;
    if (timeMs === 0) context.problems.push(problem('bad-time', `${where}: timeUnixNano is missing`));
    else if (!Number.isFinite(value)) context.problems.push(problem('bad-value', `${where}: not a finite number`));
    else readings.push({ attributes: attributesOf(point.attributes), timeMs, value });
  }
  return readings;
}

interface ReadPoints {
  points: Point[];
  bounds: number[];
  temporality: 'delta' | 'cumulative';
}

function readPoints(context: ResourceContext, metric: Loose, where: string): ReadPoints | undefined {
  const histogram = object(metric.histogram);
  const body = histogram ?? object(metric.sum);
  if (!body) return undefined;
  const temporality = number(body.aggregationTemporality);
  if (temporality !== 1 && temporality !== 2) {
    context.problems.push(problem('bad-temporality', `${where}: aggregationTemporality is neither 1 nor 2`));
    return undefined;
  }
  const points: Point[] = [];
  let bounds: number[] | undefined;
  for (const raw of objects(body.dataPoints)) {
    const timeMs = millis(raw.timeUnixNano);
    if (timeMs === 0) {
      context.problems.push(problem('bad-time', `${where}: timeUnixNano is missing`));
      continue;
    }
    const point = histogram ? histogramPoint(raw, timeMs) : counterPoint(raw, timeMs);
    if (!point) {
      context.problems.push(problem('bad-value', `${where}: count, sum or buckets are not numbers of 0 or more`));
      continue;
    }
    if (histogram) {
      const own = numbers(raw.explicitBounds);
      bounds ??= own;
      // Series with other bounds cannot be added up bucket by bucket.
      const same = own.length === bounds.length && own.every((b, i) => b === bounds?.[i] && Number.isFinite(b));
      if (!same || (point.buckets.length > 0 && point.buckets.length !== own.length + 1)) {
        context.problems.push(problem('bad-value', `${where}: explicitBounds differ or do not fit bucketCounts`));
        continue;
      }
    }
    points.push(point);
  }
  return { points, bounds: bounds ?? [], temporality: temporality === 1 ? 'delta' : 'cumulative' };
}

const isAmount = (n: number) => Number.isFinite(n) && n >= 0;

function histogramPoint(raw: Loose, timeMs: number): Point | undefined {
  const count = number(raw.count);
  const sum = Object.hasOwn(raw, 'sum') ? number(raw.sum) : 0;
  const buckets = numbers(raw.bucketCounts);
  if (!isAmount(count) || !Number.isFinite(sum) || !buckets.every(isAmount)) return undefined;
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
