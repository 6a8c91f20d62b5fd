/** How Understudy's own processes are started: each is one program over one settings file. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../package-root';
import type { ProcessSpec } from './process';

const programs = {
  'control-plane': 'dist/envoy/control-plane.js',
  'scoring-worker': 'dist/workers/scoring-worker.js',
  'failover-worker': 'dist/workers/failover-worker.js',
} as const;

export type OwnProcess = keyof typeof programs;

export function ownProcess(name: OwnProcess, logDir: string, settingsFile: string): ProcessSpec {
  const program = join(packageRoot, programs[name]);
  if (!existsSync(program)) throw new Error(`${name}: ${program} is missing: build first, by \`npm run build\`.`);
  return {
    name,
    command: process.execPath,
    args: ['--enable-source-maps', program, '--settings', settingsFile],
    env: { KAFKAJS_NO_PARTITIONER_WARNING: '1' },
    logFile: join(logDir, `${name}.log`),
    // They say so themselves, in one line, when they serve.
    ready: (managed) => /"msg":"ready"/.test(managed.output()),
    // They hold no state: like a service manager would, start them again.
    restartBackoffMs: { first: 200, last: 10_000 },
  };
}
