/** Runs the trainers' programs: Python environments are made on first use under .parts/ and kept. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../package-root';

export const inTraining = (file: string): string => join(packageRoot, 'models', 'training', file);

/** Runs a program to its end; an error says which one failed. */
export function run(command: string, args: readonly string[]): void {
  const { status, error } = spawnSync(command, args, { stdio: 'inherit' });
  if (error) throw new Error(`${command} cannot be run: ${error.message}`);
  if (status !== 0) throw new Error(`${command} ${args[0] ?? ''} ended with ${status}.`);
}

/** The environment's interpreter; installed again only when the requirements (files beside this one) have changed. */
export function pythonWithRequirements(environment: string, requirements: readonly string[]): string {
  const dir = join(packageRoot, '.parts', environment);
  const python = join(dir, 'bin', 'python');
  const installed = join(dir, 'installed-requirements.txt');
  const wanted = requirements.map((file) => readFileSync(inTraining(file), 'utf8')).join('');
  if (existsSync(installed) && readFileSync(installed, 'utf8') === wanted) return python;
  if (!existsSync(python)) run('python3', ['-m', 'venv', dir]);
  const files = requirements.flatMap((file) => ['--requirement', inTraining(file)]);
  run(python, ['-m', 'pip', 'install', '--quiet', ...files]);
  writeFileSync(installed, wanted);
  return python;
}
