/** What is kept of an episode: its description with what was measured, and its telemetry; and which incidents follow. */
import type { MetricName } from '../../prediction/metrics';
import type { MeasuredStep } from './cell-load';
import { failuresOf, heldTooLongMs } from './failure';

/** The project's own telemetry format, one object per instance and step. */
export interface TelemetryRecord {
  schema: 'understudy.telemetry/v1';
  cell: string;
  instance: string;
  ts: string;
  interval_s: number;
  metrics: Partial<Record<MetricName, number>>;
  attrs: { service: string };
}

/** The project's incident format. */
export interface IncidentRecord {
  cell: string;
  fault: string;
  fault_start: string;
  onset: string;
  recovered: string | null;
  predictable: boolean;
}

export interface FaultDescription {
  name: string;
  start_s: number;
  shape: string;
  mechanism: string;
  /** Highest level ordered. */
  level: number;
  /** Seconds in which a failure was expected when it was planned. */
  expected_s: number;
  predictable: boolean;
  /** The metric that shows it first. */
  shown_by: MetricName;
}

export interface LookAlikeDescription {
  name: string;
  start_s: number;
  /** null: it goes on to the end. */
  end_s: number | null;
}

export interface CellDescription {
  cell: string;
  /** Mean requests per second that were planned. */
  load: number;
  /** When its process ended unasked. */
  died: string | null;
  faults: FaultDescription[];
  look_alikes: LookAlikeDescription[];
  outages: { from_s: number; to_s: number }[];
}

/** One line of `episodes.ndjson`. Seconds count from `load_started`. */
export interface EpisodeDescription {
  episode: number;
  seed: number;
  service: string;
  variant: string;
  deployment: string;
  step_ms: number;
  slo_ms: number;
  load_shape: string;
  load_started: string;
  /** Telemetry and measurements are from here to `ended`. */
  from: string;
  ended: string;
  cells: CellDescription[];
  /** Share of the time in which some process waited for a CPU of the machine. */
  cpu_pressure: number;
}

/** What callers measured in one cell, by columns; index 0 is the step that starts at `from_ms`. */
export interface MeasuredColumns {
  cell: string;
  from_ms: number;
  step_ms: number;
  requests: number[];
  /** Pairs of index and value, where it is not 0. */
  failed: [number, number][];
  slow: [number, number][];
  /** Steps in which the load itself was late, with by how many milliseconds. */
  held: [number, number][];
  /** Milliseconds; -1 for a step without requests. */
  p99_ms: number[];
}

export interface EpisodePart {
  description: EpisodeDescription;
  measured: MeasuredColumns[];
  telemetry: TelemetryRecord[];
}

/** A shorter delay of the load's is usual and changes nothing. */
const heldWorthSayingMs = 50;

export function toColumns(cell: string, stepMs: number, steps: readonly MeasuredStep[]): MeasuredColumns {
  const sparse = (value: (step: MeasuredStep) => number): [number, number][] =>
    steps.flatMap((step, index): [number, number][] => (value(step) > 0 ? [[index, value(step)]] : []));
  return {
    cell,
    from_ms: steps[0]?.atMs ?? 0,
    step_ms: stepMs,
    requests: steps.map((s) => s.requests),
    failed: sparse((s) => s.failed),
    slow: sparse((s) => s.slow),
    held: sparse((s) => (s.heldMs >= heldWorthSayingMs ? s.heldMs : 0)),
    p99_ms: steps.map((s) => (s.p99Ms === null ? -1 : Math.round(s.p99Ms))),
  };
}

export function fromColumns(columns: MeasuredColumns): MeasuredStep[] {
  const { from_ms, step_ms, requests, p99_ms } = columns;
  const [failed, slow, held] = [columns.failed, columns.slow, columns.held].map((pairs) => new Map(pairs));
  return requests.map((count, index) => ({
    atMs: from_ms + index * step_ms,
    requests: count,
    failed: failed?.get(index) ?? 0,
    slow: slow?.get(index) ?? 0,
    p50Ms: null,
    p99Ms: p99_ms[index] === undefined || p99_ms[index] < 0 ? null : p99_ms[index],
    retries: 0,
    heldMs: held?.get(index) ?? 0,
  }));
}

const iso = (ms: number): string => new Date(ms).toISOString();

/** How far a fault has come towards what it was planned to do; a sudden one is there at once. */
const progress = (fault: FaultDescription, atS: number): number =>
  fault.expected_s > 0 ? (atS - fault.start_s) / fault.expected_s : Infinity;

/**
 * The failures that were measured, each with the fault it belongs to: the one at work in that cell, of two the one that had
 * come farther. Without one it is put down to a planned load peak (`load`), or to nothing that is known (`unexplained`).
 */
export function incidentsOf({
  description,
  measured,
}: Pick<EpisodePart, 'description' | 'measured'>): IncidentRecord[] {
  const loadStartedMs = Date.parse(description.load_started);
  return description.cells.flatMap((cell) => {
    const columns = measured.find((m) => m.cell === cell.cell);
    if (!columns) return [];
    const diedMs = cell.died === null ? undefined : Date.parse(cell.died);
    return failuresOf(fromColumns(columns), description.step_ms, diedMs).map(({ onsetMs, recoveredMs }) => {
      const stepEndS = (onsetMs + description.step_ms - loadStartedMs) / 1000;
      const [fault] = cell.faults
        .filter((f) => f.start_s < stepEndS)
        .sort((a, b) => progress(b, stepEndS) - progress(a, stepEndS));
      const inLoadPeak = cell.look_alikes.some(
        (l) => l.name === 'load-peak' && l.start_s < stepEndS && (l.end_s ?? Infinity) + 5 > stepEndS,
      );
      // A step is bad as a whole: within the one in which the fault began, the failure begins with the fault.
      const faultStartMs = fault ? loadStartedMs + Math.round(1000 * fault.start_s) : onsetMs;
      return {
        cell: cell.cell,
        fault: fault?.name ?? (inLoadPeak ? 'load' : 'unexplained'),
        fault_start: iso(faultStartMs),
        onset: iso(Math.max(onsetMs, faultStartMs)),
        recovered: recoveredMs === undefined ? null : iso(recoveredMs),
        predictable: fault?.predictable ?? false,
      };
    });
  });
}

const mostHeldShare = 0.1;
const mostUnexplainedShare = 0.25;

/** Why an episode says nothing about its service: the machine was starved by other work. Undefined for a sound one. */
export function spoiltBy(
  { description, measured }: Pick<EpisodePart, 'description' | 'measured'>,
  incidents: readonly IncidentRecord[],
): string | undefined {
  const steps = measured.reduce((sum, m) => sum + m.requests.length, 0);
  const held = measured.reduce((sum, m) => sum + m.held.filter(([, ms]) => ms >= heldTooLongMs).length, 0);
  if (steps === 0) return 'nothing was measured';
  if (held / steps > mostHeldShare) return `its load was held up in ${Math.round((100 * held) / steps)} % of the steps`;
  const endedMs = Date.parse(description.ended);
  const lastedMs = endedMs - Date.parse(description.from);
  for (const { cell } of description.cells) {
    let unexplainedMs = 0;
    for (const { cell: of, fault, onset, recovered } of incidents) {
      if (of !== cell || (fault !== 'load' && fault !== 'unexplained')) continue;
      unexplainedMs += (recovered === null ? endedMs : Date.parse(recovered)) - Date.parse(onset);
    }
    if (unexplainedMs / lastedMs > mostUnexplainedShare) {
      return `${cell} failed for ${Math.round((100 * unexplainedMs) / lastedMs)} % of the time without a fault at work`;
    }
  }
  return undefined;
}
