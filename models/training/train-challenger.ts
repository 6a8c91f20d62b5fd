/**
 * `npm run train:challenger`, after `npm run train`: fits a sequence model to the recordings of the shipped model, with
 * what was kept out of its training kept out here too, and writes the comparison to models/challenger.json.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../package-root';
import { readFlags } from '../../lab/arguments';
import { inTraining, pythonWithRequirements, run } from './python';
import { trainingData } from './train';

const compiled = (...parts: string[]): string => join(packageRoot, 'dist', 'models', ...parts);
const models = join(packageRoot, 'models');

function main(): void {
  const {
    recordings = trainingData().join(','),
    champion = join(packageRoot, '.parts', 'training-rows'),
    rows = join(packageRoot, '.parts', 'challenger-rows'),
    manifest = join(models, 'manifest.json'),
    out = join(models, 'challenger.json'),
  } = readFlags({ recordings: 'string', champion: 'string', rows: 'string', manifest: 'string', out: 'string' });
  const scores = join(champion, 'scores.f32');
  if (!existsSync(scores)) {
    throw new Error(`${scores} is missing: the champion's scores come from npm run train, which has to run first.`);
  }
  const exported = ['--recordings', recordings, '--manifest', manifest, '--out', rows];
  run(process.execPath, [compiled('training', 'export-sequences.js'), ...exported]);
  // Rows, labels and calibration are train.py's, so that what it needs is needed here too.
  const python = pythonWithRequirements('challenger-venv', ['requirements.txt', 'requirements-challenger.txt']);
  run(python, [inTraining('challenger.py'), rows]);
  const compared = ['--champion', champion, '--challenger', rows, '--manifest', manifest, '--out', out];
  run(process.execPath, [compiled('evaluation', 'challenger.js'), ...compared]);
}

try {
  main();
} catch (error) {
  process.stderr.write(`${(error as Error).message}\n`);
  process.exit(1);
}
