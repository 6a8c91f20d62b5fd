/**
 * Cleans up behind a stack whose owner died: reads lines from standard input and, when that ends, stops every process that
 * is still registered. `+PID START` and `-PID` register and forget a process group, `dir PATH` names the process provider's
 * state folder, `environment NAME=VALUE` marks what else belongs to the run, `remove PATH` a folder to delete at the
 * end, which `keep PATH` takes back.
 */
import { rmSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { recordedCellProcesses, stopGroups } from './cell-processes';
import { groupsWithEnvironment, identify, type ProcessIdentity } from './process-identity';

const watched = new Map<number, ProcessIdentity>();
const cellFolders = new Set<string>();
const removals = new Set<string>();
let marker: string | undefined;

function hear(line: string): void {
  const added = /^\+(\d+) (\S+)$/.exec(line);
  const forgotten = /^-(\d+)$/.exec(line);
  const named = /^(dir|remove|keep|environment) (.+)$/.exec(line);
  if (added) watched.set(Number(added[1]), { pid: Number(added[1]), startedAt: added[2] === '-' ? null : added[2]! });
  else if (forgotten) watched.delete(Number(forgotten[1]));
  else if (named?.[1] === 'dir') cellFolders.add(named[2]!);
  else if (named?.[1] === 'remove') removals.add(named[2]!);
  else if (named?.[1] === 'keep') removals.delete(named[2]!);
  else if (named?.[1] === 'environment') marker = named[2]!;
}

function remaining(): ProcessIdentity[] {
  const marked = marker === undefined ? [] : groupsWithEnvironment(marker).map(identify);
  return [...watched.values(), ...[...cellFolders].flatMap(recordedCellProcesses), ...marked];
}

async function cleanUp(): Promise<void> {
  // The second round is for what the failover worker started while it was being stopped.
  for (let round = 0; round < 2; round++) await stopGroups(remaining());
  for (const dir of removals) rmSync(dir, { recursive: true, force: true });
}

// It must live through what ends its owner: a terminal that closes, a group that is told to end.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => undefined);
const lines = createInterface({ input: process.stdin });
lines.on('line', hear);
lines.on('close', () => void cleanUp());
