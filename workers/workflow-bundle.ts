/**
 * The workflows as one bundle for Temporal's sandbox. Making it takes seconds of a worker's start, which after a kill are
 * seconds without a failover: it is kept beside the build, under a name that follows from all that goes into it.
 */
import { createHash, randomUUID } from 'node:crypto';
import { mkdirSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { bundleWorkflowCode, DefaultLogger, type WorkflowBundleWithSourceMap } from '@temporalio/worker';
import { packageRoot } from '../package-root';

export interface BundleFolders {
  /** Of the compiled workflows, with their `index.js`. */
  compiled: string;
  kept: string;
}

const ours: BundleFolders = {
  compiled: join(packageRoot, 'dist', 'workflows'),
  kept: join(packageRoot, 'dist', 'workflow-bundle'),
};

/** From the last start with the same workflows, else made now. A folder that cannot be written costs only the time. */
export async function workflowBundle({ compiled, kept } = ours): Promise<WorkflowBundleWithSourceMap> {
  const name = nameByContent(compiled);
  const found = name && read(join(kept, name));
  if (found) return { code: found, sourceMap: '' };
  const bundle = await bundleWorkflowCode({
    workflowsPath: join(compiled, 'index.js'),
    logger: new DefaultLogger('WARN'),
  });
  if (name) keep(kept, name, bundle.code);
  return bundle;
}

/**
 * Workflows take only types from the rest of the project: their own folder and the packages are all there is in a bundle.
 * Null where nothing says which packages these are.
 */
function nameByContent(compiled: string): string | null {
  const packages = read(join(packageRoot, 'package-lock.json'));
  if (packages === null) return null;
  const hash = createHash('sha256').update(packages);
  for (const file of readdirSync(compiled).sort()) {
    if (file.endsWith('.js')) hash.update(`${file}\n`).update(readFileSync(join(compiled, file)));
  }
  return `${hash.digest('hex')}.bundle`;
}

function read(file: string): string | null {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return null;
  }
}

/** Whole or not at all, since others may read it meanwhile; those of earlier builds go. */
function keep(kept: string, name: string, code: string): void {
  const unfinished = join(kept, `${name}.${randomUUID()}`);
  try {
    mkdirSync(kept, { recursive: true });
    writeFileSync(unfinished, code);
    renameSync(unfinished, join(kept, name));
    for (const other of readdirSync(kept)) if (other !== name) rmSync(join(kept, other), { force: true });
  } catch {
    // What is half written goes with the next that can be kept.
  }
}

if (require.main === module) void workflowBundle();
