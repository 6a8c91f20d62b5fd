/**
 * Turns a recording into what a trainer reads: a float32 matrix of features, computed by the extractor that also serves,
 * and beside it labels and episodes. Run as `node dist/models/training/export-rows.js --recording DIR[,DIR...] --out DIR`.
 */
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { numberFlag, readFlags } from '../../lab/arguments';
import { seededRandom } from '../../lab/random';
import { readEpisodes, readIncidents, readSamples } from '../../lab/recording';
import type { Sample } from '../../prediction/contracts';
import { featureRows } from '../../prediction/feature-rows';
import { featureNames, featureSpec, featureSpecHash } from '../../prediction/feature-spec';
import { labelOf } from './labels';

/**
 * How the same episode is replayed. `plain` is as recorded; the others are for fitting only. `shifted` moves the ticks by
 * half a step; `sparse` lacks whole metrics, as other people's telemetry does.
 */
const variants = ['plain', 'shifted', 'sparse'] as const;
type Variant = (typeof variants)[number];
const droppedShare = 0.2;

/** Episodes are numbered within their recording; over all of them by this many apart. A multiple of four keeps the split. */
const episodesPerRecording = 10_000;

function replayed(samples: readonly Sample[], variant: Variant, stepMs: number, seed: number): Sample[] {
  if (variant === 'plain') return [...samples];
  if (variant === 'shifted') return samples.map((s) => ({ ...s, atMs: s.atMs + stepMs / 2 }));
  const random = seededRandom(seed);
  const dropped = new Set(featureSpec.tracked.flatMap(({ metric }) => (random() < droppedShare ? [metric] : [])));
  return samples.filter((s) => !(dropped as Set<string>).has(s.metric));
}

interface ExportedRows {
  features: Float32Array[];
  /** Per row: episode number, variant number, seconds into the episode, stepsToFailure (NaN: none), stepsWatched. */
  labels: number[];
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

async function main(): Promise<void> {
  const flags = readFlags({ recording: 'string', out: 'string', 'step-ms': 'string' });
  if (!flags.recording || !flags.out) throw new Error('--recording DIR[,DIR...] and --out DIR are needed.');
  const stepMs = numberFlag('step-ms', flags['step-ms'], 1000);
  const recordings = flags.recording.split(',');
  const episodes = recordings.flatMap((dir, index) =>
    readEpisodes(dir).map((episode) => ({ ...episode, number: index * episodesPerRecording + episode.plan.number })),
  );
  const incidents = recordings.flatMap(readIncidents);
  const byCell = new Map<string, Sample[]>();
  for (const dir of recordings) for (const [cell, samples] of await samplesByCell(dir)) byCell.set(cell, samples);
  const rows: ExportedRows = { features: [], labels: [] };
  for (const episode of episodes) {
    const { number } = episode;
    const { cell, seed } = episode.plan;
    const own = incidents.filter((i) => i.cell === cell);
    const startedMs = Date.parse(episode.load_started);
    for (const [index, variant] of variants.entries()) {
      const samples = replayed(byCell.get(cell) ?? [], variant, stepMs, seed);
      const shiftMs = variant === 'shifted' ? stepMs / 2 : 0;
      for (const row of featureRows(samples, stepMs, { sloLatencyMs: { [cell]: episode.slo_ms } })) {
        const atMs = row.atMs - shiftMs;
        const label = labelOf(atMs, episode, own, stepMs);
        if (!label || atMs < startedMs) continue;
        rows.features.push(row.features);
        rows.labels.push(number, index, (atMs - startedMs) / 1000, label.stepsToFailure, label.stepsWatched);
      }
    }
  }
  mkdirSync(flags.out, { recursive: true });
  const matrix = new Float32Array(rows.features.length * featureNames.length);
  rows.features.forEach((row, i) => matrix.set(row, i * featureNames.length));
  writeFileSync(join(flags.out, 'features.f32'), matrix);
  writeFileSync(join(flags.out, 'labels.f64'), Float64Array.from(rows.labels));
  const data = createHash('sha256');
  for (const dir of recordings) {
    for (const file of ['telemetry.ndjson.gz', 'incidents.ndjson', 'episodes.ndjson']) {
      data.update(readFileSync(join(dir, file)));
    }
  }
  const description = {
    rows: rows.features.length,
    featureNames,
    featureSpecSha256: featureSpecHash,
    stepMs,
    variants,
    dataSha256: data.digest('hex'),
    episodes: episodes.map((e) => ({
      number: e.number,
      kind: e.plan.kind,
      cell: e.plan.cell,
      started: e.load_started,
      /** Seconds into the episode at which every leak stopped for good; null if one ran to the end or there was none. */
      leakStartS: e.plan.leakOrders.find((o) => o.bytesPerSecond > 0)?.atS ?? null,
      leakStopS: e.plan.kind === 'leak-that-stops' ? (e.plan.leakOrders.at(-1)?.atS ?? null) : null,
      incidents: incidents
        .filter((i) => i.cell === e.plan.cell)
        .map((i) => ({ ...i, onsetS: (Date.parse(i.onset) - Date.parse(e.load_started)) / 1000 })),
    })),
  };
  writeFileSync(join(flags.out, 'rows.json'), JSON.stringify(description, null, 1));
  process.stdout.write(
    `${rows.features.length} rows of ${featureNames.length} features from ${episodes.length} episodes.\n`,
  );
}

main().catch((error: unknown) => {
  process.stderr.write(`${(error as Error).message}\n`);
  process.exit(1);
});
