/** From recorded telemetry to one series per cell, on the ticks and by the rules that serving uses. */
import type { Sample } from '../../prediction/contracts';
import { metricNames, metrics, type MetricName } from '../../prediction/metrics';
import type { CellSeries, IncidentSpan } from './contracts';
import type { SampleLog } from './sample-log';

/** A cell's series together with the samples it was made of, which the model is replayed on. */
export interface RecordedCell extends CellSeries {
  /** In order of time. */
  samples(): Iterable<Sample>;
}

export interface CellFacts {
  stepMs: number;
  service?: string | undefined;
  sloLatencyS?: number | undefined;
  incidents?: readonly IncidentSpan[];
  watched?: CellSeries['watched'];
}

/** Values not renewed for this many steps are gone, as in serving. */
const heldSteps = 3;
/** More ticks than this in one cell mean a wrong clock or a wrong step. */
const mostTicks = 5_000_000;

/** Steps that telemetry is usually sent at; a measured one close to one of them is taken as that. */
const usualSteps = [50, 100, 200, 250, 500, 1000, 2000, 2500, 5000, 10_000, 15_000, 20_000, 30_000, 60_000, 300_000];

export function usualStepNear(gapMs: number): number {
  const near = usualSteps.find((step) => Math.abs(step - gapMs) <= 0.1 * step);
  return near ?? Math.max(1, Math.round(gapMs));
}

/** Series of one cell. Tick times are multiples of the step; a tick sees what was measured up to its time. */
export function seriesOf(log: SampleLog, facts: CellFacts): RecordedCell {
  const { stepMs } = facts;
  let firstMs = Infinity;
  let lastMs = -Infinity;
  for (const { atMs } of log.inTimeOrder()) {
    firstMs = Math.min(firstMs, atMs);
    lastMs = Math.max(lastMs, atMs);
  }
  const startMs = Math.ceil(firstMs / stepMs) * stepMs;
  const ticks = Math.ceil(lastMs / stepMs) - startMs / stepMs + 1;
  if (!(ticks <= mostTicks)) {
    throw new Error(
      `cell ${log.cell}: from ${isoOf(firstMs)} to ${isoOf(lastMs)} are ${ticks} steps of ${stepMs} ms. ` +
        'Expected at most 5,000,000: a timestamp is wrong, or --step is.',
    );
  }
  return {
    cell: log.cell,
    service: facts.service,
    stepMs,
    startMs,
    ticks,
    values: valuesOf(log, startMs, stepMs, ticks),
    sloLatencyS: facts.sloLatencyS ?? NaN,
    incidents: facts.incidents ?? [],
    watched: facts.watched,
    samples: () => log.samples(),
  };
}

const isoOf = (ms: number): string => (Number.isFinite(ms) ? new Date(ms).toISOString() : String(ms));

function valuesOf(log: SampleLog, startMs: number, stepMs: number, ticks: number): Map<MetricName, Float64Array> {
  const count = metricNames.length;
  const instances = log.instances.length;
  const newest = new Float64Array(instances * count);
  const newestMs = new Float64Array(instances * count).fill(-Infinity);
  const values = new Map<MetricName, Float64Array>();
  const sent = new Set<number>();
  const records = log.inTimeOrder();
  let next = records.next();
  for (let tick = 0; tick < ticks; tick++) {
    const tickMs = startMs + tick * stepMs;
    for (; !next.done && next.value.atMs <= tickMs; next = records.next()) {
      const { instance, atMs, from, to } = next.value;
      for (let i = from; i < to; i++) {
        const metric = log.metricOf[i] as number;
        newest[instance * count + metric] = log.valueOf[i] as number;
        newestMs[instance * count + metric] = atMs;
        sent.add(metric);
      }
    }
    const forgottenMs = tickMs - heldSteps * stepMs;
    for (const metric of sent) {
      const name = metricNames[metric] as MetricName;
      let row = values.get(name);
      if (!row) values.set(name, (row = new Float64Array(ticks).fill(NaN)));
      row[tick] = together(name, metric, count, newest, newestMs, forgottenMs);
    }
  }
  return values;
}

/** The instances' values by the metric's rule; NaN if none has one. */
function together(
  name: MetricName,
  metric: number,
  stride: number,
  newest: Float64Array,
  newestMs: Float64Array,
  forgottenMs: number,
): number {
  const rule = metrics[name].aggregate;
  let result = NaN;
  for (let at = metric; at < newest.length; at += stride) {
    if ((newestMs[at] as number) <= forgottenMs) continue;
    const value = newest[at] as number;
    if (result !== result) result = value;
    else if (rule === 'max') result = Math.max(result, value);
    else if (rule === 'min') result = Math.min(result, value);
    else result += value;
  }
  return result;
}
