/** A real Envoy that gets its configuration from the control plane. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { get } from 'node:http';
import { join } from 'node:path';
import { partBinary } from './parts';
import type { ProcessSpec } from './process';

/** `bootstrap` is the configuration as an object; it is written beside the log. */
export function prepareEnvoy(name: string, dir: string, bootstrap: object, adminPort: number): ProcessSpec {
  mkdirSync(dir, { recursive: true });
  const config = join(dir, `${name}.json`);
  writeFileSync(config, JSON.stringify(bootstrap, null, 2));
  return {
    name,
    command: partBinary('envoy'),
    // Hot restart takes shared memory under a number that two proxies of one machine would fight for.
    args: ['-c', config, '--concurrency', '2', '--disable-hot-restart', '--log-level', 'warning'],
    logFile: join(dir, `${name}.log`),
    ready: () => isLive(adminPort),
    startAttempts: 2,
  };
}

/** LIVE once it has its first configuration, or has given up waiting for it. */
function isLive(adminPort: number): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const request = get({ host: '127.0.0.1', port: adminPort, path: '/ready', timeout: 1_000 }, (response) => {
      response.resume();
      response.on('end', () => resolve(response.statusCode === 200));
    });
    request.on('timeout', () => request.destroy(new Error('no answer within 1 s')));
    request.on('error', reject);
  });
}
