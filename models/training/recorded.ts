/** Recordings as a trainer sees them: groups that stand or fall together, their cells, samples and incidents. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { readEpisodes, readIncidents, readSamples, type EpisodeDescription, type Incident } from '../../lab/recording';
import type { EpisodeDescription as LabEpisode, MeasuredColumns } from '../../lab/chaos/episode-file';
import { isChaosRecording, readRecording } from '../../lab/chaos/recording-folder';
import type { Sample } from '../../prediction/contracts';
import { isMetricName } from '../../prediction/metrics';
import type { CellFacts } from '../../prediction/features';
import type { IncidentSpan } from '../evaluation/contracts';
import { readSmd8 } from '../evaluation/smd8';

export interface RecordedCell {
  cell: string;
  facts: CellFacts;
  samples: readonly Sample[];
  incidents: readonly IncidentSpan[];
  /** Rows count from here: what lies before only fills the windows. */
  fromMs: number;
  /** End of the watch. */
  toMs: number;
}

/** An episode of the lab, or a block of somebody's own telemetry: the unit that is kept on one side of every split. */
export interface RecordedGroup {
  source: string;
  number: number;
  service: string;
  stepMs: number;
  /** What was injected into any of its cells, whether it led to a failure or not. */
  faults: readonly string[];
  cells: readonly RecordedCell[];
}

export function spanOf(incident: Incident): IncidentSpan {
  return {
    cell: incident.cell,
    fault: incident.fault,
    faultStartMs: Date.parse(incident.fault_start),
    onsetMs: Date.parse(incident.onset),
    recoveredMs: incident.recovered === null ? Infinity : Date.parse(incident.recovered),
    predictable: incident.predictable,
  };
}

async function samplesByCell(dir: string): Promise<Map<string, Sample[]>> {
  const byCell = new Map<string, Sample[]>();
  for await (const sample of readSamples(dir)) {
    const known = byCell.get(sample.cell);
    if (known) known.push(sample);
    else byCell.set(sample.cell, [sample]);
  }
  return byCell;
}

/** An incident of which nobody can say whether an alarm over it is right: neither for nor against a detector. */
const uncertain = (cell: string, faultStartMs: number, onsetMs: number, recoveredMs = Infinity): IncidentSpan => ({
  cell,
  fault: 'uncertain',
  faultStartMs,
  onsetMs,
  recoveredMs,
  predictable: false,
});

/** A leak that the recorder ended at up to 85 % of the limit was a fault that somebody mitigated. */
function stoppedInTime({ plan, load_started, ended }: Pick<EpisodeDescription, 'plan' | 'load_started' | 'ended'>) {
  const first = plan.leakOrders.find((o) => o.bytesPerSecond > 0);
  const stop = plan.leakOrders.at(-1);
  if (plan.kind !== 'leak-that-stops' || !first || !stop) return [];
  const msOf = (atS: number): number => Date.parse(load_started) + 1000 * atS;
  return [uncertain(plan.cell, msOf(first.atS), Math.min(msOf(stop.atS), Date.parse(ended)))];
}

/** The recordings of the catalogue service: one cell of two instances per episode, heap leaks only. */
export async function* readCatalogueRecording(dir: string, source: string): AsyncGenerator<RecordedGroup> {
  const byCell = await samplesByCell(dir);
  const incidents = readIncidents(dir).map(spanOf);
  for (const { plan, slo_ms, load_started, ended } of readEpisodes(dir)) {
    const { cell } = plan;
    yield {
      source,
      number: plan.number,
      service: 'catalogue',
      stepMs: 1000,
      faults: plan.kind === 'leak-to-death' ? ['memory-leak'] : [],
      cells: [
        {
          cell,
          facts: { sloLatencyMs: slo_ms, cohort: undefined },
          samples: byCell.get(cell) ?? [],
          incidents: [...incidents.filter((i) => i.cell === cell), ...stoppedInTime({ plan, load_started, ended })],
          fromMs: Date.parse(load_started),
          toMs: Date.parse(ended),
        },
      ],
    };
  }
}

/**
 * A fault that was still at work when the episode ended, without a failure so far: an alarm over it is neither right nor
 * false. As an incident of uncertain outcome, from the fault's start to the end of the watch.
 */
function stillAtWork(
  { cells, load_started, ended }: LabEpisode,
  cell: string,
  incidents: readonly Incident[],
): IncidentSpan[] {
  const faults = cells.find((c) => c.cell === cell)?.faults ?? [];
  const failedMs = incidents.filter((i) => i.cell === cell).map((i) => Date.parse(i.onset));
  return faults.flatMap(({ start_s }) => {
    const faultStartMs = Date.parse(load_started) + 1000 * start_s;
    const onsetMs = Date.parse(ended);
    if (faultStartMs >= onsetMs || failedMs.some((ms) => ms >= faultStartMs)) return [];
    return [uncertain(cell, faultStartMs, onsetMs)];
  });
}

/** A step in which the load came this late shows the recording machine at its limits. */
const heldMs = 150;
/** Bad steps so near to such a one are put down to the machine. */
const nearSteps = 4;

/**
 * Stretches in which callers suffered while the recording machine could not even send its load in time: whether the cell
 * or the machine was ill cannot be told. At least two such steps; those within 20 steps of each other are one stretch.
 */
function starved(columns: MeasuredColumns, sloMs: number, known: readonly IncidentSpan[]): IncidentSpan[] {
  const { cell, from_ms, step_ms, p99_ms } = columns;
  const held = columns.held.filter(([, ms]) => ms >= heldMs).map(([index]) => index);
  const failed = new Map(columns.failed);
  const bad = p99_ms.flatMap((p99, index) => {
    const suffers = p99 >= sloMs || (failed.get(index) ?? 0) > 0;
    return suffers && held.some((h) => Math.abs(h - index) <= nearSteps) ? [index] : [];
  });
  const stretches: [number, number][] = [];
  for (const index of bad) {
    const last = stretches.at(-1);
    if (last && index - last[1] <= 20) last[1] = index;
    else stretches.push([index, index]);
  }
  const msOf = (index: number): number => from_ms + index * step_ms;
  return stretches
    .filter(([first, last]) => last > first)
    .map(([first, last]) => uncertain(cell, msOf(first - 2 * nearSteps), msOf(first), msOf(last + nearSteps)))
    .filter(({ onsetMs, recoveredMs }) => !known.some((k) => k.onsetMs <= recoveredMs && k.recoveredMs >= onsetMs));
}

/** The chaos lab's recordings: every cell of an episode's deployment, the healthy ones too. */
export async function* readLabRecording(dir: string, source: string): AsyncGenerator<RecordedGroup> {
  for await (const { description, incidents, measured, telemetry } of readRecording(dir)) {
    const byCell = new Map<string, Sample[]>();
    for (const { cell, instance, ts, metrics } of telemetry) {
      const samples = byCell.get(cell) ?? [];
      byCell.set(cell, samples);
      const atMs = Date.parse(ts);
      for (const [metric, value] of Object.entries(metrics)) {
        if (isMetricName(metric)) samples.push({ cell, instance, atMs, metric, value });
      }
    }
    const stepMs = description.step_ms;
    const incidentsOf = (cell: string): IncidentSpan[] => {
      const known = incidents.filter((i) => i.cell === cell).map(spanOf);
      const columns = measured.find((m) => m.cell === cell);
      return [
        ...known,
        ...stillAtWork(description, cell, incidents),
        ...(columns ? starved(columns, description.slo_ms, known) : []),
      ];
    };
    yield {
      source,
      number: description.episode,
      service: description.service,
      stepMs,
      faults: [...new Set(description.cells.flatMap((c) => c.faults.map((f) => f.name)))],
      cells: description.cells.map(({ cell }) => ({
        cell,
        facts: { sloLatencyMs: description.slo_ms, cohort: description.deployment },
        samples: byCell.get(cell) ?? [],
        incidents: incidentsOf(cell),
        fromMs: Math.ceil(Date.parse(description.from) / stepMs) * stepMs,
        toMs: Date.parse(description.ended),
      })),
    };
  }
}

/** Healthy machines, each a group of its own: nothing in them fails, and they are restless in ways that no lab is. */
export async function* readMachines(dir: string, source: string): AsyncGenerator<RecordedGroup> {
  for (const [number, cell] of (await readSmd8(dir, 'unlabelled')).entries()) {
    const { fromMs, toMs } = cell.watched ?? { fromMs: cell.startMs, toMs: Infinity };
    yield {
      source,
      number,
      service: 'machine',
      stepMs: cell.stepMs,
      faults: [],
      cells: [
        {
          cell: cell.cell,
          facts: { sloLatencyMs: undefined, cohort: undefined },
          samples: [...cell.samples()],
          incidents: [],
          fromMs,
          toMs: Math.min(toMs, cell.startMs + (cell.ticks - 1) * cell.stepMs),
        },
      ],
    };
  }
}

/** The groups of a recording folder, whatever made it. */
export async function* readRecordedGroups(dir: string, source: string): AsyncGenerator<RecordedGroup> {
  if (isChaosRecording(dir)) yield* readLabRecording(dir, source);
  else if (existsSync(join(dir, 'episodes.ndjson'))) yield* readCatalogueRecording(dir, source);
  else yield* readMachines(dir, source);
}
