/**
 * Turns recordings into what the sequence model reads: per cell and tick where each metric stands, without any trend, in
 * the files and with the labels of export-rows.js. Run as `node dist/models/training/export-sequences.js --recordings
 * DIR[,DIR...] --manifest FILE --out DIR`; the manifest says what is kept out of training.
 */
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { readFlags } from '../../lab/arguments';
import { featureSpec, featuresOf, type FeatureSpec } from '../../prediction/feature-spec';
import { FeatureExtractor } from '../../prediction/features';
import { metrics } from '../../prediction/metrics';
import { isHeldOut, type Split } from '../evaluation/split';
import { labelledRows } from './labelled-rows';
import { readRecordedGroups, type RecordedGroup } from './recorded';
import { hashOfRecordings, RowFiles } from './row-files';

/**
 * What serving's extractor is asked for: of each metric its share of the limit, where it has one, and the logarithm of its
 * short mean over the cell's own baseline; latency and errors also as shares of what is agreed. Missing stays NaN, which
 * is the mask. No slope and no forecast: to find those in the sequence is the sequence model's part.
 */
export const sequenceSpec: FeatureSpec = {
  ...featureSpec,
  tracked: featureSpec.tracked.map((tracked) => ({
    ...tracked,
    features: metrics[tracked.metric].limit === undefined ? ['log-ratio'] : ['share', 'log-ratio'],
  })),
  cross: featureSpec.cross.filter(({ feature }) =>
    ['p99-per-slo', 'p50-per-slo', 'error-per-limit', 'log-change-age', 'log-certificate-left'].includes(feature),
  ),
};

export const channelNames: readonly string[] = featuresOf(sequenceSpec).map(({ name }) => name);

/** The rows of a group: those of export-rows' plain variant, in the same order with the same labels. */
export const sequenceRows = (group: RecordedGroup) =>
  labelledRows(group, { extractor: new FeatureExtractor(sequenceSpec, group.stepMs) });

async function main(): Promise<void> {
  const {
    recordings,
    manifest: manifestFile,
    out,
  } = readFlags({
    recordings: 'string',
    manifest: 'string',
    out: 'string',
  });
  if (!recordings || !manifestFile || !out)
    throw new Error('--recordings DIR[,DIR...], --manifest FILE and --out DIR are needed.');
  const dirs = recordings.split(',');
  const { split, horizonsSteps } = JSON.parse(readFileSync(manifestFile, 'utf8')) as {
    split: Split;
    horizonsSteps: number[];
  };
  const files = new RowFiles(out);
  for (const dir of dirs) {
    for await (const group of readRecordedGroups(dir, basename(dir))) {
      const { index, firstCell } = files.begin(group, { heldOut: isHeldOut(split, group) });
      for (const { place, step, features, stepsToFailure, stepsWatched } of sequenceRows(group)) {
        await files.append(features, [index, firstCell + place, 0, step, stepsToFailure, stepsWatched]);
      }
    }
  }
  await files.close({
    featureNames: channelNames,
    metricOfFeature: featuresOf(sequenceSpec).map(({ metric, name }) => metric ?? name),
    roles: Object.fromEntries(featureSpec.tracked.map(({ metric, role }) => [metric, role])),
    horizonsSteps,
    dataSha256: hashOfRecordings(dirs),
  });
  process.stdout.write(`${files.rows} steps of ${channelNames.length} channels from ${files.groups.length} groups.\n`);
}

if (require.main === module) {
  main().catch((error: unknown) => {
    process.stderr.write(`${(error as Error).message}\n`);
    process.exit(1);
  });
}
