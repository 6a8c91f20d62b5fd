/**
 * Turns recordings into what a trainer reads: a float32 matrix of features, computed by the extractor that also serves,
 * and beside it labels, groups and incidents. Run as `node dist/models/training/export-rows.js --recordings DIR[,DIR...]
 * --out DIR`, or with `--telemetry FILE --incidents FILE` instead of the recordings.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { numberFlag, readFlags } from '../../lab/arguments';
import { seededRandom } from '../../lab/random';
import type { Sample } from '../../prediction/contracts';
import type { ReplayFacts } from '../../prediction/feature-rows';
import { featureNames, featureSpec, featureSpecHash } from '../../prediction/feature-spec';
import { labelledRows } from './labelled-rows';
import { readOwnGroups } from './own-recording';
import { readRecordedGroups, type RecordedCell, type RecordedGroup } from './recorded';
import { hashOfRecordings, RowFiles } from './row-files';

/**
 * How a group is replayed. `plain` is as recorded, every row of it. The others are for fitting only, and hold every row of
 * a cell that has an incident and one in four of the others. `shifted` moves the ticks by half a step; `sparse` lacks whole
 * metrics, as other people's telemetry does; `bare` lacks more of them, the objective and the peers.
 */
const variants = ['plain', 'shifted', 'sparse', 'bare'] as const;
type Variant = (typeof variants)[number];
const healthyEvery = 4;

function replayed(group: RecordedGroup, variant: Variant): { samples: Sample[]; facts: ReplayFacts } {
  const random = seededRandom(group.number * 31 + variants.indexOf(variant));
  const facts: Record<string, RecordedCell['facts']> = {};
  for (const { cell, facts: known } of group.cells) {
    facts[cell] =
      variant === 'plain' || variant === 'shifted'
        ? known
        : {
            sloLatencyMs: random() < 0.5 && variant === 'sparse' ? known.sloLatencyMs : undefined,
            cohort: variant === 'sparse' ? known.cohort : undefined,
          };
  }
  const all = group.cells.flatMap((c) => c.samples);
  if (variant === 'plain') return { samples: all, facts };
  if (variant === 'shifted') return { samples: all.map((s) => ({ ...s, atMs: s.atMs + group.stepMs / 2 })), facts };
  // Up to 40 % in one, up to 60 % in the other: the share itself varies from group to group.
  const share = (variant === 'sparse' ? 0.4 : 0.6) * random();
  const dropped = new Set<string>(featureSpec.tracked.flatMap(({ metric }) => (random() < share ? [metric] : [])));
  for (const limit of ['heap.limit_bytes', 'memory.limit_bytes', 'fd.limit', 'pool.limit', 'disk.limit_bytes']) {
    if (random() < share) dropped.add(limit);
  }
  return { samples: all.filter((s) => !dropped.has(s.metric)), facts };
}

async function exportGroup(group: RecordedGroup, files: RowFiles): Promise<void> {
  const { index, firstCell } = files.begin(group);
  for (const [v, variant] of variants.entries()) {
    const { samples, facts } = replayed(group, variant);
    const shiftMs = variant === 'shifted' ? group.stepMs / 2 : 0;
    for (const row of labelledRows(group, { samples, facts, shiftMs })) {
      const { place, about, step, stepsToFailure, stepsWatched } = row;
      if (variant !== 'plain' && about.incidents.length === 0 && step % healthyEvery !== 0) continue;
      if (variant !== 'plain' && !(stepsWatched > 0)) continue;
      await files.append(row.features, [index, firstCell + place, v, step, stepsToFailure, stepsWatched]);
    }
  }
}

const knownFlags = {
  recordings: 'string',
  telemetry: 'string',
  incidents: 'string',
  decoder: 'string',
  step: 'string',
  'slo-latency-ms': 'string',
  out: 'string',
} as const;

type Flags = ReturnType<typeof readFlags<typeof knownFlags>>;

async function* groupsOf(flags: Flags): AsyncGenerator<RecordedGroup> {
  if (flags.telemetry !== undefined && flags.incidents !== undefined) {
    const optional = (name: 'step' | 'slo-latency-ms', scale: number): number | undefined =>
      flags[name] === undefined ? undefined : scale * numberFlag(name, flags[name], NaN);
    const { telemetry, incidents, decoder } = flags;
    const [stepMs, sloLatencyMs] = [optional('step', 1000), optional('slo-latency-ms', 1)];
    yield* readOwnGroups({ telemetry, incidents, decoder, stepMs, sloLatencyMs });
    return;
  }
  for (const dir of recordingsOf(flags)) yield* readRecordedGroups(dir, basename(dir));
}

const recordingsOf = (flags: Flags): string[] => flags.recordings?.split(',') ?? [];

function dataHashOf(flags: Flags): string {
  const own = [flags.telemetry, flags.incidents].filter((file) => file !== undefined);
  if (own.length === 0) return hashOfRecordings(recordingsOf(flags));
  const hash = createHash('sha256');
  for (const file of own) hash.update(readFileSync(file));
  return hash.digest('hex');
}

async function main(): Promise<void> {
  const flags = readFlags(knownFlags);
  if (!flags.out || (!flags.recordings && (!flags.telemetry || !flags.incidents))) {
    throw new Error('--out DIR and --recordings DIR[,DIR...] (or --telemetry FILE and --incidents FILE) are needed.');
  }
  const files = new RowFiles(flags.out);
  let said = Date.now();
  for await (const group of groupsOf(flags)) {
    await exportGroup(group, files);
    if (Date.now() - said > 5000) {
      said = Date.now();
      process.stdout.write(`${files.groups.length} groups, ${files.rows} rows\n`);
    }
  }
  await files.close({
    featureNames,
    roles: Object.fromEntries(featureSpec.tracked.map(({ metric, role }) => [metric, role])),
    featureSpecSha256: featureSpecHash,
    variants,
    dataSha256: dataHashOf(flags),
  });
  process.stdout.write(`${files.rows} rows of ${featureNames.length} features from ${files.groups.length} groups.\n`);
}

if (require.main === module) {
  main().catch((error: unknown) => {
    process.stderr.write(`${(error as Error).message}\n`);
    process.exit(1);
  });
}
