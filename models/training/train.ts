/**
 * `npm run train`: features from the committed recordings, boosters in Python, and a check that ONNX Runtime here says what
 * Python said. The Python environment is made on first use under .parts/.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { readFlags } from '../../lab/arguments';
import { packageRoot } from '../../package-root';
import { largestGoldenDifference } from '../golden';

const inTraining = (file: string): string => join(packageRoot, 'models', 'training', file);

function run(command: string, args: readonly string[]): void {
  const { status, error } = spawnSync(command, args, { stdio: 'inherit' });
  if (error) throw new Error(`${command} cannot be run: ${error.message}`);
  if (status !== 0) throw new Error(`${command} ${args[0] ?? ''} ended with ${status}.`);
}

/** The environment's interpreter; installed again only when the requirements have changed. */
function pythonWithRequirements(): string {
  const dir = join(packageRoot, '.parts', 'training-venv');
  const python = join(dir, 'bin', 'python');
  const installed = join(dir, 'installed-requirements.txt');
  const wanted = readFileSync(inTraining('requirements.txt'), 'utf8');
  if (existsSync(installed) && readFileSync(installed, 'utf8') === wanted) return python;
  if (!existsSync(python)) run('python3', ['-m', 'venv', dir]);
  run(python, ['-m', 'pip', 'install', '--quiet', '--requirement', inTraining('requirements.txt')]);
  writeFileSync(installed, wanted);
  return python;
}

function committedRecordings(): string[] {
  const dir = join(packageRoot, 'models', 'recordings');
  return readdirSync(dir)
    .sort()
    .map((name) => join(dir, name));
}

async function main(): Promise<void> {
  const flags = readFlags({ recordings: 'string', rows: 'string', out: 'string' });
  const recordings = flags.recordings ?? committedRecordings().join(',');
  const rows = flags.rows ?? join(packageRoot, '.parts', 'training-rows');
  const out = flags.out ?? join(packageRoot, 'models');
  run(process.execPath, [
    join(packageRoot, 'dist', 'models', 'training', 'export-rows.js'),
    ...['--recordings', recordings, '--out', rows],
  ]);
  run(pythonWithRequirements(), [inTraining('train.py'), rows, out]);
  const difference = await largestGoldenDifference(join(out, 'manifest.json'));
  if (!(difference <= 1e-6)) throw new Error(`ONNX Runtime differs from Python by ${difference}, more than 1e-6.`);
  process.stdout.write(`ONNX Runtime agrees with Python within ${difference.toExponential(1)}.\n`);
}

main().catch((error: unknown) => {
  process.stderr.write(`${(error as Error).message}\n`);
  process.exit(1);
});
