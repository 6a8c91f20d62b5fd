/** Where the package lies, whether this code runs from the sources' place or from `dist/`. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';

function findPackageRoot(from: string): string {
  for (let dir = from; dir !== dirname(dir); dir = dirname(dir)) {
    if (existsSync(join(dir, 'package.json'))) return dir;
  }
  throw new Error(`No package.json above ${from}: the installation of Understudy is incomplete.`);
}

/** The folder that holds package.json; protos, models and migrations are found from here. */
export const packageRoot = findPackageRoot(__dirname);
