import { expect } from 'chai';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { largestGoldenDifference } from '../../models/golden';
import { hashOfRecordings } from '../../models/training/row-files';
import { labelOf } from '../../models/training/labels';
import { readRecordedGroups } from '../../models/training/recorded';
import { trainingData } from '../../models/training/train';
import { packageRoot } from '../../package-root';
import { featureNames, featureSpecHash } from '../../prediction/feature-spec';

const models = join(packageRoot, 'models');
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
    expect(hashOfRecordings(trainingData())).to.equal(manifest.dataSha256);
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

describe('The telemetry that the shipped model was trained on', () => {
  for (const recording of trainingData()) {
    it(`is there for every cell of ${basename(recording)}, with labels that follow from its incidents`, async function () {
      this.timeout(120_000);
      let cellCount = 0;
      let incidentCount = 0;
      for await (const { cells, stepMs } of readRecordedGroups(recording, basename(recording))) {
        for (const { cell, samples, incidents, toMs } of cells) {
          cellCount += 1;
          expect(samples.length, cell).to.be.greaterThan(0);
          for (const incident of incidents) {
            incidentCount += 1;
            const { faultStartMs, onsetMs, predictable } = incident;
            const label = (atMs: number) => labelOf(atMs, [incident], toMs, stepMs);
            // Before the fault nothing of it is at work: the watch ends there, and nothing has failed.
            expect(label(faultStartMs - stepMs)).to.deep.equal({ stepsToFailure: NaN, stepsWatched: 1 });
            if (onsetMs - stepMs >= faultStartMs && onsetMs <= toMs) {
              expect(label(onsetMs - stepMs).stepsToFailure, cell).to.deep.equal(predictable ? 1 : NaN);
            }
            expect(label(onsetMs).stepsWatched).to.be.NaN;
          }
        }
      }
      expect(cellCount).to.be.greaterThan(0);
      expect(incidentCount).to.be.at.least(recording.includes('recordings') ? 1 : 0);
    });
  }
});
