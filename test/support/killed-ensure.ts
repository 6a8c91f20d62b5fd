/**
 * Ensures a cell and dies by SIGKILL just before or just after its k-th side effect. Run as a process of its own:
 * node killed-ensure.js STATE_DIR SPEC_JSON K before|after
 */
import childProcess from 'node:child_process';
import fs from 'node:fs/promises';

const [stateDir, spec, k, when] = process.argv.slice(2);
let effects = 0;

/** Counts the call as an effect and dies at the k-th. */
function lethal<A extends unknown[], R>(effect: (...args: A) => R): (...args: A) => R {
  return (...args) => {
    effects += 1;
    const isLast = effects === Number(k);
    if (isLast && when === 'before') process.kill(process.pid, 'SIGKILL');
    const result = effect(...args);
    if (!isLast) return result;
    if (result instanceof Promise) return result.finally(() => process.kill(process.pid, 'SIGKILL')) as R;
    process.kill(process.pid, 'SIGKILL');
    return result;
  };
}

for (const name of ['mkdir', 'writeFile', 'link', 'rename', 'rm'] as const) {
  // One wrapper for functions of many shapes: their types do not matter here.
  const table = fs as unknown as Record<string, (...args: unknown[]) => unknown>;
  table[name] = lethal(table[name]!.bind(fs));
}
childProcess.spawn = lethal(childProcess.spawn) as typeof childProcess.spawn;

async function main(): Promise<void> {
  const { ProcessProvider } = await import('../../cells/process-provider.js');
  const provider = new ProcessProvider({ stateDir: stateDir! });
  await provider.ensure(JSON.parse(spec!) as Parameters<typeof provider.ensure>[0]);
}

void main();
