/** Reads a telemetry file of any size into cells: contract NDJSON, or any format that the scoring worker decodes. */
import { createDecoders, type DecoderName } from '../../prediction/decode/detect';
import type { CellSeries, IncidentSpan } from './contracts';
import { readLinesOf } from './lines';
import { SampleLog } from './sample-log';
import { seriesOf, usualStepNear, type RecordedCell } from './series';

export interface TelemetryOptions {
  /** Name of a decoder of the scoring worker. Default: told from each line. */
  decoder?: string | undefined;
  /** In ms. Default: per cell, as its records declare it (`interval_s`), else the median gap between them. */
  stepMs?: number | undefined;
  /** Latency objective in ms, of the named cells or of all. */
  sloLatencyMs?: number | ReadonlyMap<string, number> | undefined;
  incidents?: readonly IncidentSpan[];
  /** Told now and then how far the reading is. */
  onProgress?: (records: number, cells: number) => void;
}

export interface ReadTelemetry {
  cells: RecordedCell[];
  records: number;
  samples: number;
  /** Lines that could not be understood, the first of them with file, line and reason. */
  refusedLines: number;
  refusals: string[];
}

/** Above this the machine's memory is at stake: some 600 MB. */
const mostSamples = 60_000_000;
/** A file with more unreadable lines than this share is no telemetry file. */
const mostRefused = 0.01;
const refusalsKept = 5;
const progressEvery = 50_000;

/** What a cell's own records say of it. */
interface Declared {
  service: string | undefined;
  intervalMs: number | undefined;
}

export async function readTelemetry(file: string, options: TelemetryOptions = {}): Promise<ReadTelemetry> {
  const decoders = createDecoders();
  const name = options.decoder ?? 'detect';
  if (!Object.hasOwn(decoders, name)) {
    throw new Error(`--decoder is "${name}", expected one of ${Object.keys(decoders).join(', ')}`);
  }
  const decode = decoders[name as DecoderName];
  const logs = new Map<string, SampleLog>();
  const declared = new Map<string, Declared>();
  const result: ReadTelemetry = { cells: [], records: 0, samples: 0, refusedLines: 0, refusals: [] };
  for await (const { number, bytes } of readLinesOf(file)) {
    const { samples, problems } = decode(bytes);
    result.records += 1;
    if (problems.length > 0) {
      if (samples.length === 0) result.refusedLines += 1;
      if (result.refusals.length < refusalsKept) {
        result.refusals.push(`${file}:${number}: ${problems[0]?.reason}: ${problems[0]?.detail}`);
      }
    }
    for (const sample of samples) {
      let log = logs.get(sample.cell);
      if (!log) {
        logs.set(sample.cell, (log = new SampleLog(sample.cell)));
        declared.set(sample.cell, declaredBy(bytes));
      }
      log.add(sample);
    }
    result.samples += samples.length;
    if (result.samples > mostSamples) {
      throw new Error(`${file}:${number}: more than 60,000,000 samples. Split the file by cell or by time.`);
    }
    if (result.records % progressEvery === 0) options.onProgress?.(result.records, logs.size);
  }
  refuseIfUnreadable(file, result);
  const incidentsOf = groupByCell(options.incidents ?? []);
  for (const [cell, log] of logs) {
    const { service, intervalMs } = declared.get(cell) as Declared;
    const gapMs = intervalMs ?? log.medianGapMs();
    const stepMs = options.stepMs ?? (Number.isFinite(gapMs) ? usualStepNear(gapMs) : NaN);
    if (!(stepMs > 0)) {
      throw new Error(`${file}: cell ${cell} has too few records to tell its interval; give it with --step.`);
    }
    result.cells.push(
      seriesOf(log, { stepMs, service, sloLatencyS: sloOf(cell, options), incidents: incidentsOf.get(cell) ?? [] }),
    );
  }
  return result;
}

function sloOf(cell: string, { sloLatencyMs }: TelemetryOptions): number {
  const ms = typeof sloLatencyMs === 'number' ? sloLatencyMs : sloLatencyMs?.get(cell);
  return ms === undefined ? NaN : ms / 1000;
}

function groupByCell(incidents: readonly IncidentSpan[]): Map<string, IncidentSpan[]> {
  const groups = new Map<string, IncidentSpan[]>();
  for (const incident of incidents) {
    const group = groups.get(incident.cell);
    if (group) group.push(incident);
    else groups.set(incident.cell, [incident]);
  }
  return groups;
}

function refuseIfUnreadable(file: string, { records, samples, refusedLines, refusals }: ReadTelemetry): void {
  const first = refusals.length > 0 ? `\n  ${refusals.join('\n  ')}` : '';
  if (records === 0) throw new Error(`${file}: empty; expected telemetry, one record per line.`);
  if (refusedLines > mostRefused * records) {
    throw new Error(`${file}: ${refusedLines} of ${records} lines could not be understood:${first}`);
  }
  if (samples === 0)
    throw new Error(`${file}: no value of a metric that Understudy knows in ${records} lines.${first}`);
}

/** Interval and service as a record declares them: contract JSON, or resource attributes of OTLP JSON. */
function declaredBy(bytes: Buffer): Declared {
  let record: Record<string, unknown>;
  try {
    record = JSON.parse(bytes.toString('utf8')) as Record<string, unknown>;
  } catch {
    return { service: undefined, intervalMs: undefined };
  }
  const attrs = (record.attrs ?? {}) as Record<string, unknown>;
  const service = attrs.service ?? attrs['service.name'] ?? otlpService(record);
  const seconds = record.interval_s;
  return {
    service: typeof service === 'string' && service !== '' ? service : undefined,
    intervalMs: typeof seconds === 'number' && seconds > 0 ? seconds * 1000 : undefined,
  };
}

function otlpService(record: Record<string, unknown>): unknown {
  type Attribute = { key?: string; value?: { stringValue?: string } };
  const resources = record.resourceMetrics as { resource?: { attributes?: Attribute[] } }[] | undefined;
  if (!Array.isArray(resources)) return undefined;
  const attributes = resources[0]?.resource?.attributes;
  return Array.isArray(attributes) ? attributes.find((a) => a.key === 'service.name')?.value?.stringValue : undefined;
}

/** Incidents of cells that sent nothing: they would be missed by every detector, or the names do not agree. */
export function incidentsWithoutTelemetry(
  incidents: readonly IncidentSpan[],
  cells: readonly CellSeries[],
): IncidentSpan[] {
  const known = new Set(cells.map(({ cell }) => cell));
  return incidents.filter(({ cell }) => !known.has(cell));
}
