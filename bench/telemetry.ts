/** Telemetry of healthy cells, twelve metrics each, the same at every run. */
import type { Sample } from '../prediction/contracts';
import type { MetricName } from '../prediction/metrics';

const usual: readonly (readonly [MetricName, value: number, noise: number])[] = [
  ['cpu.utilization', 0.5, 0.1],
  ['memory.used_bytes', 30e6, 0.02],
  ['memory.limit_bytes', 64e6, 0],
  ['heap.used_bytes', 20e6, 0.1],
  ['heap.limit_bytes', 64e6, 0],
  ['gc.share', 0.01, 0.5],
  ['event_loop.delay_p99_s', 0.01, 0.2],
  ['http.request_rate', 100, 0.1],
  ['http.error_ratio', 0.001, 1],
  ['http.latency_p50_s', 0.01, 0.1],
  ['http.latency_p99_s', 0.04, 0.1],
  ['http.in_flight', 3, 0.5],
];
export const metricsPerCell = usual.length;

/** Deterministic noise in [-1, 1). */
function noise(seed: number): number {
  let x = Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return ((x ^ (x >>> 16)) >>> 0) / 2 ** 31 - 1;
}

export const cellName = (cell: number): string => `bench-${String(cell).padStart(5, '0')}`;

export function metricsOf(cell: number, second: number): Partial<Record<MetricName, number>> {
  const values: Partial<Record<MetricName, number>> = {};
  usual.forEach(([metric, value, spread], i) => {
    values[metric] = value * (1 + spread * noise(cell * 7919 + second * 31 + i));
  });
  return values;
}

export function samplesOf(cell: number, second: number, atMs: number): Sample[] {
  const name = cellName(cell);
  const values = metricsOf(cell, second);
  return usual.map(([metric]) => ({ cell: name, instance: name, atMs, metric, value: values[metric] ?? 0 }));
}

export function recordOf(cell: number, second: number, atMs: number): string {
  const name = cellName(cell);
  const ts = new Date(atMs).toISOString();
  const metrics = metricsOf(cell, second);
  return JSON.stringify({ schema: 'understudy.telemetry/v1', cell: name, instance: name, ts, interval_s: 1, metrics });
}

/** The same as a Collector's export: gauges under the canonical names, and cumulative request histograms left out. */
export function otlpRecordOf(cell: number, second: number, atMs: number): string {
  const name = cellName(cell);
  const timeUnixNano = `${atMs}000000`;
  const attributes = [
    { key: 'cell.id', value: { stringValue: name } },
    { key: 'service.instance.id', value: { stringValue: name } },
  ];
  const metrics = Object.entries(metricsOf(cell, second)).map(([metric, asDouble]) => ({
    name: metric,
    gauge: { dataPoints: [{ timeUnixNano, asDouble }] },
  }));
  return JSON.stringify({ resourceMetrics: [{ resource: { attributes }, scopeMetrics: [{ metrics }] }] });
}
