/** Stops process groups for good, among them those that the process provider has recorded for its cells. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { isAlive, isGroupAlive, type ProcessIdentity, signalGroup } from './process-identity';
import { waitUntil } from './wait';

/** What runs now of the provider's records, `<stateDir>/<cell>/<instance>/pid` with the start time beside it in `start`. */
export function recordedCellProcesses(stateDir: string): ProcessIdentity[] {
  const found: ProcessIdentity[] = [];
  for (const cell of foldersIn(stateDir)) {
    for (const instance of foldersIn(join(stateDir, cell))) {
      const dir = join(stateDir, cell, instance);
      const pid = Number(read(join(dir, 'pid')));
      const startedAt = read(join(dir, 'start'));
      if (Number.isInteger(pid) && pid > 1 && isAlive(pid, startedAt)) found.push({ pid, startedAt });
    }
  }
  return found;
}

/** SIGTERM to all, SIGKILL to those that are still there after `withinMs`. */
export async function stopGroups(groups: readonly ProcessIdentity[], withinMs = 5_000): Promise<void> {
  const isAnyAlive = () => groups.some(isGroupAlive);
  for (const group of groups) signalGroup(group, 'SIGTERM');
  // A stopped process (SIGSTOP) hears SIGTERM only when it runs again.
  for (const group of groups) signalGroup(group, 'SIGCONT');
  const gone = { everyMs: 20, what: 'the processes are gone' };
  await waitUntil(() => !isAnyAlive(), { ...gone, withinMs }).catch(async () => {
    for (const group of groups) signalGroup(group, 'SIGKILL');
    await waitUntil(() => !isAnyAlive(), { ...gone, withinMs: 5_000 });
  });
}

function foldersIn(dir: string): string[] {
  try {
    return readdirSync(dir, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name);
  } catch {
    return [];
  }
}

function read(file: string): string | null {
  try {
    return readFileSync(file, 'utf8').trim() || null;
  } catch {
    return null;
  }
}
