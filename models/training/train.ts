/**
 * `npm run train`: features from recordings, boosters in Python, the alert's threshold from rows they had not seen, and a
 * check that ONNX Runtime here says what Python said.
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../package-root';
import { largestGoldenDifference } from '../golden';
import { inTraining, pythonWithRequirements, run } from './python';

const compiled = (...parts: string[]): string => join(packageRoot, 'dist', 'models', ...parts);

/** Services that no training row comes from: what the model makes of them it makes of any service it does not know. */
export const heldOutServices = ['orders', 'reports'] as const;
/** Of the other services, one in so many episodes is kept out as well. */
export const heldOutEvery = 7;

/** Every recording that comes with the project, and the healthy machines that are for training. */
export function trainingData(): string[] {
  const dir = join(packageRoot, 'models', 'recordings');
  const recordings = readdirSync(dir)
    .sort()
    .map((name) => join(dir, name));
  return [...recordings, join(packageRoot, 'models', 'data', 'smd8-training')];
}

export interface TrainingTask {
  /** What `export-rows.js` is to read: `--recordings DIR,DIR` or `--telemetry FILE --incidents FILE`. */
  source: readonly string[];
  /** Folder for the rows, which are large. */
  rows: string;
  /** Folder for the model. */
  out: string;
  name: string;
  heldOutServices: readonly string[];
  heldOutEvery: number;
  /** Also fit without each fault and each service; takes some ten times as long. */
  leaveOut: boolean;
}

export async function train(task: TrainingTask): Promise<void> {
  run(process.execPath, [compiled('training', 'export-rows.js'), ...task.source, '--out', task.rows]);
  run(pythonWithRequirements('training-venv', ['requirements.txt']), [
    inTraining('train.py'),
    task.rows,
    task.out,
    ...['--name', task.name, '--held-out-every', String(task.heldOutEvery)],
    ...['--held-out-services', task.heldOutServices.join(',')],
    ...(task.leaveOut ? ['--leave-out'] : []),
  ]);
  const manifest = join(task.out, 'manifest.json');
  run(process.execPath, [
    compiled('evaluation', 'cross-validation.js'),
    ...['--rows', task.rows, '--manifest', manifest, '--out', join(task.out, 'cross-validation.json')],
  ]);
  const difference = await largestGoldenDifference(manifest);
  if (!(difference <= 1e-6)) throw new Error(`ONNX Runtime differs from Python by ${difference}, more than 1e-6.`);
  process.stdout.write(`ONNX Runtime agrees with Python within ${difference.toExponential(1)}.\n`);
}

if (require.main === module) {
  train({
    source: ['--recordings', trainingData().join(',')],
    rows: join(packageRoot, '.parts', 'training-rows'),
    out: join(packageRoot, 'models'),
    name: 'understudy-hazard',
    heldOutServices,
    heldOutEvery,
    leaveOut: !process.argv.includes('--quick'),
  }).catch((error: unknown) => {
    process.stderr.write(`${(error as Error).message}\n`);
    process.exit(1);
  });
}
