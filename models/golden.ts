/** The golden vectors that came with a model: rows and what the trainer predicted for them. */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import * as ort from 'onnxruntime-node';

interface Golden {
  /** null is a missing value. */
  features: (number | null)[][];
  hazard: number[][];
}

/** Runs the model on its golden vectors; the largest difference from the trainer's prediction. */
export async function largestGoldenDifference(manifestFile: string): Promise<number> {
  const manifest = JSON.parse(readFileSync(manifestFile, 'utf8')) as { onnx: string; goldenVectors: string };
  const beside = (file: string): string => join(dirname(manifestFile), file);
  const golden = JSON.parse(readFileSync(beside(manifest.goldenVectors), 'utf8')) as Golden;
  const rows = golden.features.length;
  const columns = golden.features[0]?.length ?? 0;
  const input = Float32Array.from(golden.features.flat(), (value) => value ?? NaN);
  const session = await ort.InferenceSession.create(beside(manifest.onnx), { intraOpNumThreads: 1 });
  try {
    const { hazard } = await session.run({ features: new ort.Tensor('float32', input, [rows, columns]) });
    const found = hazard?.data as Float32Array;
    const expected = golden.hazard.flat();
    if (found.length !== expected.length || rows === 0) return Infinity;
    return Math.max(...expected.map((value, i) => Math.abs(value - (found[i] ?? NaN))));
  } finally {
    await session.release();
  }
}
