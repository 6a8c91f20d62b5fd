/** What the comparators read from a recorded cell: which metrics, how near to their limits, which stretches are healthy. */
import { metricNames, metrics, type MetricName } from '../../../prediction/metrics';
import type { CellSeries } from '../contracts';

/** What runs out when it fills up; the published disk and memory rules are about these. */
export const exhaustibles: readonly MetricName[] = [
  'memory.used_bytes',
  'heap.used_bytes',
  'disk.used_bytes',
  'fd.used',
  'pool.used',
];

/** Limits stand still, and the rest only count time: what is unusual for them says nothing of health. */
const withoutCourse = new Set<MetricName>([
  ...metricNames.filter((name) => name.endsWith('limit_bytes') || name.endsWith('.limit') || name.endsWith('_limit')),
  'process.uptime_s',
  'change.age_s',
  'certificate.left_s',
]);

/** Every metric whose course can be usual or unusual, in the order of the metric table. */
export const courseMetrics: readonly MetricName[] = metricNames.filter((name) => !withoutCourse.has(name));

/** Errors above this share are an alarm by the static rule, and the top of the scale for an extrapolated one. */
export const errorAlarm = 0.05;

/** Where no latency objective is declared it is this many times the cell's usual p99 ... */
const objectiveFactor = 5;
/** ... which is known from so many samples on ... */
const objectiveFrom = 30;
/** ... and settled after so many. */
const objectiveSettled = 240;

/**
 * A change smaller than this is nothing to a person, however steady the metric has been. Without a floor a file
 * descriptor opened by a cell that never opens any is a deviation of infinitely many sigmas.
 */
export function smallestChange(metric: MetricName, usual: number): number {
  const definition = metrics[metric];
  const relative = 0.01 * Math.abs(usual);
  if (definition.unit === 's') return Math.max(relative, 0.0005);
  if (definition.unit === 'By' || definition.unit === 'By/s') return Math.max(relative, 4096);
  if (definition.unit === '1/s') return Math.max(relative, 0.1);
  const isShare = /ratio|share|utilization/.test(metric);
  return Math.max(relative, isShare ? 0.005 : 0.5);
}

/**
 * Keeps each cell's result of the latest key only: neighbouring members of a grid share it, and a recording of
 * 500,000 ticks still fits into memory.
 */
export function rememberLatest<Value>(
  compute: (cell: CellSeries, key: number) => Value,
): (cell: CellSeries, key: number) => Value {
  const latest = new WeakMap<CellSeries, { key: number; value: Value }>();
  return (cell, key) => {
    const known = latest.get(cell);
    if (known && known.key === key) return known.value;
    const value = compute(cell, key);
    latest.set(cell, { key, value });
    return value;
  };
}

/** Beyond this a value is a fault of the telemetry: its square would still be finite, but no longer of use to anybody. */
const absurd = 1e18;

/** Neither missing nor infinite nor absurd. */
export const isUsable = (value: number): boolean => Math.abs(value) < absurd;

/** A hundred times the limit is as bad as a million times, and does not spoil the sums it goes into. */
const largestShare = 100;

function shareOf(value: number, whole: number): number {
  const share = value / whole;
  return share >= 0 && share < Infinity ? Math.min(share, largestShare) : NaN;
}

/** The metric as a share of its limit; a limit that is not sent at a tick is the last one sent. */
function shareOfLimit(cell: CellSeries, metric: MetricName): Float64Array | undefined {
  const values = cell.values.get(metric);
  const limit = metrics[metric].limit;
  if (!values || limit === undefined) return undefined;
  const limits = typeof limit === 'number' ? undefined : cell.values.get(limit);
  if (typeof limit !== 'number' && !limits) return undefined;
  let current = typeof limit === 'number' ? limit : NaN;
  return Float64Array.from(values, (value, tick) => {
    const sent = limits?.[tick];
    if (sent !== undefined && Number.isFinite(sent) && sent > 0) current = sent;
    return shareOf(value, current);
  });
}

/** The latency objective in force at each tick; NaN while the cell's usual latency is not known yet. */
function latencyObjective(cell: CellSeries, p99: Float64Array): Float64Array {
  if (Number.isFinite(cell.sloLatencyS)) return new Float64Array(cell.ticks).fill(cell.sloLatencyS);
  const sorted: number[] = [];
  let objective = NaN;
  return Float64Array.from(p99, (value) => {
    if (isUsable(value) && sorted.length < objectiveSettled) {
      let at = sorted.length;
      while (at > 0 && sorted[at - 1]! > value) at--;
      sorted.splice(at, 0, value);
      if (sorted.length >= objectiveFrom) objective = objectiveFactor * sorted[sorted.length >> 1]!;
    }
    return objective;
  });
}

/** How near something is to its end: 1 is exhausted, or a breach that users feel. */
export interface Pressure {
  metric: MetricName;
  kind: 'exhaustible' | 'load' | 'service-level';
  /** Per tick; NaN where missing. */
  share: Float64Array;
}

export const pressures: (cell: CellSeries) => readonly Pressure[] = (() => {
  const remembered = rememberLatest((cell): readonly Pressure[] => {
    const found: Pressure[] = [];
    for (const metric of exhaustibles) {
      const share = shareOfLimit(cell, metric);
      if (share) found.push({ metric, kind: 'exhaustible', share });
    }
    const cpu = shareOfLimit(cell, 'cpu.utilization');
    if (cpu) found.push({ metric: 'cpu.utilization', kind: 'load', share: cpu });
    const errors = cell.values.get('http.error_ratio');
    if (errors) {
      const share = errors.map((value) => shareOf(value, errorAlarm));
      found.push({ metric: 'http.error_ratio', kind: 'service-level', share });
    }
    const p99 = cell.values.get('http.latency_p99_s');
    if (p99) {
      const objective = latencyObjective(cell, p99);
      const share = p99.map((value, tick) => shareOf(value, objective[tick]!));
      found.push({ metric: 'http.latency_p99_s', kind: 'service-level', share });
    }
    return found;
  });
  return (cell: CellSeries) => remembered(cell, 0);
})();

/** How long after an incident a cell is not yet called healthy. */
const settleTicks = 60;

/** 1 at each tick at which nothing was wrong with the cell and no fault was at work: what the detectors may learn from. */
export function healthyTicks(cell: CellSeries): Uint8Array {
  const healthy = new Uint8Array(cell.ticks).fill(1);
  for (const incident of cell.incidents) {
    const first = Math.floor((Math.min(incident.faultStartMs, incident.onsetMs) - cell.startMs) / cell.stepMs);
    const last = Math.ceil((incident.recoveredMs - cell.startMs) / cell.stepMs) + settleTicks;
    healthy.fill(0, Math.min(cell.ticks, Math.max(0, first)), Math.min(cell.ticks, Math.max(0, last + 1)));
  }
  return healthy;
}
