/** Where the fetched servers lie. `local/parts.lock.json` says which, `npm run setup` fetches them. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../package-root';

export type PartName = 'envoy' | 'temporal' | 'kafka' | 'temporal-test-server';

interface LockedPart {
  version: string;
  title: string;
  binary?: string;
}

/** The folder of a part. Throws with what to do if it is not there. */
export function partDir(name: PartName): string {
  const part = lockedPart(name);
  const dir = join(packageRoot, '.parts', `${name}-${part.version}`);
  if (!existsSync(join(dir, 'part.json'))) {
    throw new Error(`${part.title} ${part.version} is not in ${dir}: run \`npm run setup\` first.`);
  }
  return dir;
}

/** The program of a part: Envoy, the Temporal CLI, or the time-skipping test server. */
export function partBinary(name: Exclude<PartName, 'kafka'>): string {
  return join(partDir(name), lockedPart(name).binary ?? '');
}

export function partVersion(name: PartName): string {
  return lockedPart(name).version;
}

function lockedPart(name: PartName): LockedPart {
  const lock = JSON.parse(readFileSync(join(packageRoot, 'local', 'parts.lock.json'), 'utf8')) as Record<
    PartName,
    LockedPart
  >;
  return lock[name];
}
