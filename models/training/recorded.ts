/** Recordings as a trainer sees them: groups that stand or fall together, their cells, samples and incidents. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { readEpisodes, readIncidents, readSamples, type Incident } from '../../lab/recording';
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
          incidents: incidents.filter((i) => i.cell === cell),
          fromMs: Date.parse(load_started),
          toMs: Date.parse(ended),
        },
      ],
    };
  }
}

/** The chaos lab's recordings: every cell of an episode's deployment, the healthy ones too. */
export async function* readLabRecording(dir: string, source: string): AsyncGenerator<RecordedGroup> {
  for await (const { description, incidents, telemetry } of readRecording(dir)) {
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
        incidents: incidents.filter((i) => i.cell === cell).map(spanOf),
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
