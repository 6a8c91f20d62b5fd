/** A program that starts a stack with a cell beside it, says in one JSON line what runs, and waits to be killed. */
import { spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { identify } from '../../local/process-identity';
import { startStack } from '../../local/stack';

export interface OwnedStack {
  dir: string;
  pids: number[];
}

async function main(): Promise<void> {
  const stack = await startStack({ parts: ['kafka', 'temporal', 'postgres'] });
  const cell = startCell(stack.settings.processProvider.stateDir);
  const pids = stack.processes.map(({ pid }) => pid!);
  const owned: OwnedStack = { dir: stack.dir, pids: [...pids, cell] };
  process.stdout.write(`${JSON.stringify(owned)}\n`);
}

/** As the process provider leaves it: detached, with its pid and start time on record. */
function startCell(stateDir: string): number {
  const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'], { detached: true, stdio: 'ignore' });
  child.unref();
  const dir = join(stateDir, 'shop-a', 'shop-a-1');
  mkdirSync(dir, { recursive: true });
  writeFileSync(join(dir, 'pid'), String(child.pid));
  writeFileSync(join(dir, 'start'), identify(child.pid!).startedAt ?? '');
  return child.pid!;
}

void main();
