/**
 * Tries the shipped model on a recording it has not seen: extractor, ONNX Runtime and horizons as in serving. Run as
 * `node dist/models/training/evaluate.js --recording DIR [--json FILE]`.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { readFlags } from '../../lab/arguments';
import { readEpisodes, readIncidents, readSamples, type EpisodeDescription, type Incident } from '../../lab/recording';
import { packageRoot } from '../../package-root';
import type { Sample } from '../../prediction/contracts';
import { featureRows } from '../../prediction/feature-rows';
import { Model } from '../../prediction/model';

interface Scored {
  /** Seconds into the episode. */
  atS: number;
  /** P(failure within the longest horizon). */
  probability: number;
}

interface EpisodeResult {
  number: number;
  kind: string;
  highest: number;
  /** From the start of the leak to the onset; null without a failure by the leak. */
  incubationS: number | null;
  /** How long before the onset an alarm began that lasted until then; null without a failure by the leak. */
  leadS: number | null;
  /** Seconds of alarm before the fault began; all of them in a healthy episode. */
  falseAlarmS: number;
  /** How long after the leak stopped the last alarm was; null unless it stopped. */
  alarmAfterStopS: number | null;
}

const alarmAt = 0.5;

async function score(model: Model, episode: EpisodeDescription, samples: readonly Sample[]): Promise<Scored[]> {
  const startedMs = Date.parse(episode.load_started);
  const facts = { sloLatencyMs: { [episode.plan.cell]: episode.slo_ms } };
  const scored: Scored[] = [];
  for (const { atMs, features } of featureRows(samples, model.manifest.trainedStepMs, facts)) {
    if (atMs < startedMs) continue;
    model.rows(1).set(features);
    const survival = (await model.run(1)).reduce((product, hazard) => product * (1 - hazard), 1);
    scored.push({ atS: (atMs - startedMs) / 1000, probability: 1 - survival });
  }
  return scored;
}

function judge(
  { plan, load_started }: EpisodeDescription,
  scored: readonly Scored[],
  incidents: Incident[],
): EpisodeResult {
  const secondsOf = (iso: string): number => (Date.parse(iso) - Date.parse(load_started)) / 1000;
  const failure = incidents.find((i) => i.predictable);
  const onsetS = failure ? secondsOf(failure.onset) : Infinity;
  const leakS = plan.leakOrders.find((o) => o.bytesPerSecond > 0)?.atS ?? Infinity;
  const stopS = plan.kind === 'leak-that-stops' ? (plan.leakOrders.at(-1)?.atS ?? 0) : Infinity;
  const alarms = scored.filter((s) => s.atS < onsetS && s.probability >= alarmAt);
  const lastQuietS = scored.filter((s) => s.atS < onsetS && s.probability < alarmAt).at(-1)?.atS ?? 0;
  return {
    number: plan.number,
    kind: plan.kind,
    highest: Math.max(...scored.filter((s) => s.atS < onsetS).map((s) => s.probability)),
    incubationS: failure ? onsetS - leakS : null,
    leadS: failure ? Math.max(0, onsetS - lastQuietS - 1) : null,
    falseAlarmS: alarms.filter((s) => s.atS < leakS).length,
    alarmAfterStopS: stopS === Infinity ? null : Math.max(0, ...alarms.map((s) => s.atS - stopS)),
  };
}

async function main(): Promise<void> {
  const flags = readFlags({ recording: 'string', json: 'string', manifest: 'string' });
  if (!flags.recording) throw new Error('--recording DIR is needed: a folder that `understudy lab record` made.');
  const model = await Model.load(flags.manifest ?? join(packageRoot, 'models', 'manifest.json'));
  const incidents = readIncidents(flags.recording);
  const byCell = new Map<string, Sample[]>();
  for await (const sample of readSamples(flags.recording)) {
    const known = byCell.get(sample.cell);
    if (known) known.push(sample);
    else byCell.set(sample.cell, [sample]);
  }
  const results: EpisodeResult[] = [];
  for (const episode of readEpisodes(flags.recording)) {
    const { cell } = episode.plan;
    const scored = await score(model, episode, byCell.get(cell) ?? []);
    results.push(
      judge(
        episode,
        scored,
        incidents.filter((i) => i.cell === cell),
      ),
    );
  }
  await model.release();
  const rounded = (value: number | null): string => (value === null ? '-' : value.toFixed(1));
  process.stdout.write('episode  kind             highest  incubation s  lead s  false alarm s  alarm after stop s\n');
  for (const r of results) {
    const figures = [r.incubationS, r.leadS, r.falseAlarmS, r.alarmAfterStopS].map((v) => rounded(v).padStart(12));
    process.stdout.write(
      `${String(r.number).padStart(7)}  ${r.kind.padEnd(15)}  ${r.highest.toFixed(2)} ${figures.join(' ')}\n`,
    );
  }
  if (flags.json) writeFileSync(flags.json, `${JSON.stringify({ model: model.id, results }, null, 1)}\n`);
}

main().catch((error: unknown) => {
  process.stderr.write(`${(error as Error).message}\n`);
  process.exit(1);
});
