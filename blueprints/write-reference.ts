/** Writes what is published of the schemas into the package: `npm run docs:configuration`. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { packageRoot } from '../package-root';
import { publishedFiles } from './reference';

for (const [path, content] of Object.entries(publishedFiles())) {
  const file = join(packageRoot, path);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, content);
}
