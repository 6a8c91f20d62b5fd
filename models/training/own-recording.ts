/** A user's own telemetry and incidents as groups for training: blocks of time, each with all cells of that time. */
import type { Sample } from '../../prediction/contracts';
import { historySteps } from '../../prediction/feature-spec';
import { readIncidentSpans } from '../evaluation/incidents';
import { incidentsWithoutTelemetry, readTelemetry } from '../evaluation/telemetry-file';
import type { RecordedCell as RecordedSeries } from '../evaluation/series';
import type { RecordedCell, RecordedGroup } from './recorded';

export interface OwnRecording {
  telemetry: string;
  incidents: string;
  decoder?: string | undefined;
  stepMs?: number | undefined;
  sloLatencyMs?: number | undefined;
}

/** Some twenty blocks, neither so short that every failure is cut off nor longer than a cell-day. */
const blocks = 20;
const shortestBlockSteps = 500;
const longestBlockSteps = 8640;
/** Fewer incidents than this teach nothing that could be checked. */
const fewestIncidents = 5;

export async function* readOwnGroups(recording: OwnRecording): AsyncGenerator<RecordedGroup> {
  const incidents = await readIncidentSpans(recording.incidents);
  const { cells } = await readTelemetry(recording.telemetry, { ...recording, incidents });
  const strangers = incidentsWithoutTelemetry(incidents, cells).length;
  const usable = incidents.length - strangers;
  if (usable < fewestIncidents) {
    throw new Error(
      `${recording.incidents} has ${usable} incidents of cells with telemetry (${strangers} are of others); at least ` +
        `${fewestIncidents} are needed, and some dozens before a model can be trusted.`,
    );
  }
  const steps = new Set(cells.map((cell) => cell.stepMs));
  for (const stepMs of steps) {
    const ofStep = cells.filter((cell) => cell.stepMs === stepMs);
    yield* blocksOf(ofStep, stepMs, recording.telemetry);
  }
}

const endMs = (cell: RecordedSeries): number => cell.startMs + (cell.ticks - 1) * cell.stepMs;

function* blocksOf(cells: readonly RecordedSeries[], stepMs: number, source: string): Generator<RecordedGroup> {
  const firstMs = cells.reduce((first, cell) => Math.min(first, cell.startMs), Infinity);
  const lastMs = cells.reduce((last, cell) => Math.max(last, endMs(cell)), -Infinity);
  const wanted = Math.ceil((lastMs - firstMs) / stepMs / blocks);
  const blockMs = stepMs * Math.min(longestBlockSteps, Math.max(shortestBlockSteps, wanted));
  let number = 0;
  for (let fromMs = firstMs; fromMs <= lastMs; fromMs += blockMs) {
    const toMs = Math.min(lastMs, fromMs + blockMs - stepMs);
    const present = cells.filter((cell) => cell.startMs <= toMs && endMs(cell) >= fromMs);
    if (present.length === 0) continue;
    const inBlock = present.map((cell) => cut(cell, fromMs, toMs));
    yield {
      source,
      number: number++,
      service: present[0]?.service ?? 'own',
      stepMs,
      faults: [...new Set(inBlock.flatMap((cell) => cell.incidents.map((i) => i.fault)))],
      cells: inBlock,
    };
  }
}

/** The block's part of a cell, with as much before it as its windows need. */
function cut(cell: RecordedSeries, fromMs: number, toMs: number): RecordedCell {
  const samples: Sample[] = [];
  const earliestMs = fromMs - historySteps * cell.stepMs;
  for (const sample of cell.samples()) {
    if (sample.atMs > toMs) break;
    if (sample.atMs > earliestMs) samples.push(sample);
  }
  return {
    cell: cell.cell,
    facts: {
      sloLatencyMs: Number.isNaN(cell.sloLatencyS) ? undefined : cell.sloLatencyS * 1000,
      cohort: cell.service,
    },
    samples,
    // A failure after the block is for its own block to tell.
    incidents: cell.incidents.filter((i) => i.onsetMs <= toMs && i.recoveredMs > fromMs - historySteps * cell.stepMs),
    fromMs: Math.max(fromMs, cell.startMs),
    toMs: Math.min(toMs, endMs(cell)),
  };
}
