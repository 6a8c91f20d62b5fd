/** A provider outside the tree keeps the promises of the port, reached by the exec provider. */
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { packageRoot } from '../../package-root';
import { conformance } from './conformance';

async function open() {
  const state = mkdtempSync(join(tmpdir(), 'understudy-conformance-'));
  return {
    provider: {
      kind: 'exec' as const,
      options: {
        name: 'example',
        command: ['python3', join(packageRoot, 'examples', 'processes', 'provider.py')],
        environment: { EXAMPLE_STATE: state },
        timeoutS: 60,
      },
    },
    blueprint: { provider: 'exec:example' },
    remains: () => readdirSync(state).filter((entry) => entry !== '.lock'),
    stranger: async () => {
      const child = spawn('/bin/sh', ['-c', 'exec sleep 600', 'shop-x-1'], { detached: true, stdio: 'ignore' });
      return {
        stands: async () => child.exitCode === null && child.signalCode === null,
        remove: async () => void child.kill(),
      };
    },
    close: async () => rmSync(state, { recursive: true, force: true }),
  };
}

conformance('exec (the example in examples/processes)', open, async () => undefined);
