/**
 * The image in which tests and benchmarks run cells as containers: put together from this machine's Node.js and the programs
 * they name, since no registry can be counted on.
 */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import fs from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

export const image = 'localhost/understudy-cell:1';

/**
 * Packs Node.js with the libraries it is linked to, and the programs (files or folders), each at the place where it is on
 * this machine. Answers the archive, which lies in `dir`.
 */
export async function archiveOf(programs: readonly string[], dir: string): Promise<string> {
  const rootfs = join(dir, 'rootfs');
  const node = process.execPath;
  const { stdout } = await run('ldd', [node]);
  const libraries = [...stdout.matchAll(/(\/\S+)/g)].map(([, path]) => path!).filter((path) => existsSync(path));
  for (const file of [node, ...libraries, ...programs]) {
    await fs.mkdir(join(rootfs, dirname(file)), { recursive: true });
    // Contents, not links: what a link points to is not in the image.
    await fs.cp(file, join(rootfs, file), { recursive: true, dereference: true });
  }
  await fs.mkdir(join(rootfs, 'tmp'), { recursive: true });
  const archive = join(dir, 'rootfs.tar');
  await run('tar', ['-C', rootfs, '-cf', archive, '.']);
  await fs.rm(rootfs, { recursive: true, force: true });
  return archive;
}
