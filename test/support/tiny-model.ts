/** A model for tests: hazards follow the heap's share of its limit. Written anew, so that it fits the present features. */
import { createHash } from 'node:crypto';
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../package-root';
import { featureNames, featureSpecHash } from '../../prediction/feature-spec';

/** Writes manifest and model into the folder; answers the manifest's path. */
export function writeTinyModel(dir: string, changes: Record<string, unknown> = {}): string {
  const onnx = join(packageRoot, 'test', 'golden', 'model', 'tiny.onnx');
  copyFileSync(onnx, join(dir, 'tiny.onnx'));
  const manifest = {
    model: 'tiny',
    version: '1',
    onnx: 'tiny.onnx',
    onnxSha256: createHash('sha256').update(readFileSync(onnx)).digest('hex'),
    featureSpecSha256: featureSpecHash,
    featureNames,
    horizonsSteps: [5, 15, 30, 60],
    trainedStepMs: 1000,
    ...changes,
  };
  const file = join(dir, 'manifest.json');
  writeFileSync(file, JSON.stringify(manifest));
  return file;
}
