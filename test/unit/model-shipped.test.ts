import { expect } from 'chai';
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { largestGoldenDifference } from '../../models/golden';
import { readEpisodes, readSamples } from '../../lab/recording';
import { hashOfRecordings } from '../../models/training/row-files';
import { labelOf } from '../../models/training/labels';
import { readRecordedGroups } from '../../models/training/recorded';
import { packageRoot } from '../../package-root';
import { featureNames, featureSpecHash } from '../../prediction/feature-spec';

const models = join(packageRoot, 'models');
const recordings = readdirSync(join(models, 'recordings'))
  .sort()
  .map((name) => join(models, 'recordings', name));
const sha256 = (...files: string[]): string => {
  const hash = createHash('sha256');
  for (const file of files) hash.update(readFileSync(file));
  return hash.digest('hex');
};

describe('The shipped model', () => {
  const manifest = JSON.parse(readFileSync(join(models, 'manifest.json'), 'utf8')) as Record<string, string> & {
    featureNames: string[];
    horizonsSteps: number[];
  };

  it('predicts in ONNX Runtime what it predicted when it was trained', async () => {
    expect(await largestGoldenDifference(join(models, 'manifest.json'))).to.be.at.most(1e-6);
  });

  it('comes with the files its manifest names, unchanged', () => {
    for (const [file, hash] of [
      ['onnx', 'onnxSha256'],
      ['trees', 'treesSha256'],
      ['goldenVectors', 'goldenSha256'],
    ] as const) {
      expect(sha256(join(models, manifest[file] ?? '')), manifest[file]).to.equal(manifest[hash]);
    }
  });

  it('was trained on the committed recordings and on the features computed today', () => {
    expect(hashOfRecordings(recordings)).to.equal(manifest.dataSha256);
    expect(manifest.featureSpecSha256).to.equal(featureSpecHash);
    expect(manifest.featureNames).to.deep.equal([...featureNames]);
  });

  it('has golden vectors that reach from low to high risk and miss values', () => {
    const golden = JSON.parse(readFileSync(join(models, manifest.goldenVectors ?? ''), 'utf8')) as {
      features: (number | null)[][];
      hazard: number[][];
    };
    const highest = golden.hazard.map((row) => Math.max(...row));
    expect(Math.min(...highest)).to.be.below(0.1);
    expect(Math.max(...highest)).to.be.above(0.5);
    expect(golden.features.some((row) => row.includes(null))).to.equal(true);
  });
});

for (const recording of recordings) {
  describe(`The training recording ${basename(recording)}`, () => {
    it('holds telemetry of every episode it describes', async () => {
      const cells = new Set<string>();
      for await (const sample of readSamples(recording)) cells.add(sample.cell);
      expect([...cells].sort()).to.deep.equal(
        readEpisodes(recording)
          .map((e) => e.plan.cell)
          .sort(),
      );
    });

    it('labels no row before the fault as failing, and every row before its onset with the time that is left', async () => {
      let incidents = 0;
      for await (const { cells, stepMs } of readRecordedGroups(recording, basename(recording))) {
        for (const { incidents: spans, toMs } of cells) {
          for (const incident of spans.filter((i) => i.predictable)) {
            incidents += 1;
            const label = (atMs: number) => labelOf(atMs, [incident], toMs, stepMs);
            expect(label(incident.faultStartMs - stepMs).stepsToFailure).to.be.NaN;
            expect(label(incident.faultStartMs - stepMs).stepsWatched).to.equal(1);
            if (incident.onsetMs - stepMs >= incident.faultStartMs) {
              expect(label(incident.onsetMs - stepMs).stepsToFailure).to.equal(1);
            }
            expect(label(incident.onsetMs).stepsWatched).to.be.NaN;
          }
        }
      }
      expect(incidents).to.be.greaterThan(0);
    });
  });
}
