/** The manifest that ties a model file to the features it was trained on; a model that does not fit is refused, never tried. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { z } from 'zod';
import { driftReferenceSchema } from './drift';
import { featureNames, featureSpecHash } from './feature-spec';

const sha256 = z.string().regex(/^[0-9a-f]{64}$/, 'must be a SHA-256 in lower-case hex');

/** Fields that only training and documentation read may stand beside these. */
export const manifestSchema = z.looseObject({
  model: z.string().min(1),
  version: z.union([z.string(), z.number()]).transform(String),
  onnx: z.string().describe('File beside the manifest: input `features` [N, F] float32, output `hazard` [N, bins].'),
  onnxSha256: sha256,
  featureSpecSha256: sha256,
  featureNames: z.array(z.string()),
  horizonsSteps: z
    .array(z.number().int().positive())
    .min(1)
    .refine((h) => h.every((s, i) => i === 0 || s > (h[i - 1] ?? 0)), 'must ascend')
    .describe('Ends of the hazard bins, in steps.'),
  trainedStepMs: z.number().int().positive(),
  goldenVectors: z.string().optional(),
  goldenSha256: sha256.optional(),
  trees: z.string().optional().describe('Tree dump beside the manifest, for the attribution of scores.'),
  treesSha256: sha256.optional(),
  drift: z.array(driftReferenceSchema).optional().describe('How the features were spread in training.'),
});

export type Manifest = z.infer<typeof manifestSchema>;

/** The model on disk does not fit this program. Waiting does not help; the message says what to do. */
export class ModelRefusedError extends Error {
  override readonly name = 'ModelRefusedError';
}

export interface ModelFiles {
  manifest: Manifest;
  onnx: Buffer;
  /** Undefined if the model came without its trees: scores are then not explained. */
  trees: Buffer | undefined;
}

/** Reads the manifest and the files it names, and checks every hash. Throws ModelRefusedError. */
export function readModelFiles(manifestFile: string): ModelFiles {
  const parsed = manifestSchema.safeParse(readJson(manifestFile));
  if (!parsed.success) {
    const reasons = parsed.error.issues.map((i) => `${manifestFile}: ${i.path.join('.') || '(top)'}: ${i.message}`);
    throw new ModelRefusedError(reasons.join('\n'));
  }
  const manifest = parsed.data;
  if (manifest.featureSpecSha256 !== featureSpecHash || !sameNames(manifest.featureNames)) {
    throw new ModelRefusedError(
      `${manifestFile}: the model was trained on feature specification ${short(manifest.featureSpecSha256)} ` +
        `(${manifest.featureNames.length} features), this program computes ${short(featureSpecHash)} ` +
        `(${featureNames.length} features)${firstDifference(manifest.featureNames)}. Train the model again, or install ` +
        'the version of Understudy it was made for.',
    );
  }
  const beside = (file: string) => resolve(dirname(manifestFile), file);
  const onnx = readChecked(beside(manifest.onnx), manifest.onnxSha256, manifestFile);
  const trees =
    manifest.trees === undefined ? undefined : readChecked(beside(manifest.trees), manifest.treesSha256, manifestFile);
  return { manifest, onnx, trees };
}

function readJson(file: string): unknown {
  try {
    return JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new ModelRefusedError(`${file}: the model manifest cannot be read: ${reason}`, { cause: error });
  }
}

function readChecked(file: string, expected: string | undefined, manifestFile: string): Buffer {
  let content: Buffer;
  try {
    content = readFileSync(file);
  } catch (error) {
    throw new ModelRefusedError(`${file}: named by ${manifestFile}, but cannot be read.`, { cause: error });
  }
  const actual = createHash('sha256').update(content).digest('hex');
  if (actual !== expected) {
    throw new ModelRefusedError(
      `${file}: its SHA-256 is ${short(actual)}, ${manifestFile} expects ${short(expected ?? 'none given')}: ` +
        'the files do not belong together. Restore both from one version.',
    );
  }
  return content;
}

const short = (hash: string) => (hash.length > 12 ? `${hash.slice(0, 12)}…` : hash);

const sameNames = (names: readonly string[]) =>
  names.length === featureNames.length && names.every((name, i) => name === featureNames[i]);

function firstDifference(names: readonly string[]): string {
  const index = featureNames.findIndex((name, i) => name !== names[i]);
  if (index < 0) return '';
  return `; first difference at ${index}: model ${names[index] ?? '(nothing)'}, program ${featureNames[index]}`;
}
