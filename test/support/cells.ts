/** Specs of real cells for tests, and a look at what really runs. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { BlueprintDocument } from '../../blueprints/schema';
import type { CellProvider, CellSpec, InstancePhase, ObservedCell } from '../../cells/provider';
import { packageRoot } from '../../package-root';
import { blueprintDocument } from './documents';

/** A blueprint that runs the test's cell server; `marker` finds its processes again. */
export function serverBlueprint(
  marker: string,
  args: string[] = [],
  change: Record<string, unknown> = {},
  program = join(packageRoot, 'dist/test/support/cell-server.js'),
): BlueprintDocument {
  return blueprintDocument({
    image: {
      command: [process.execPath, program, '--port', '{port}', '--marker', `${marker}/{instance}`, ...args],
    },
    resources: { instances: 2, memoryLimitMib: 64 },
    readiness: { timeoutS: 60 },
    ...change,
  });
}

export function cellSpec(cell: string, blueprint: BlueprintDocument, owner = 'tester'): CellSpec {
  return { cell, service: 'shop', owner, blueprint };
}

/** Marked processes that live now, as `<marker>/<instance>` by pid. Launchers that have not become the command count too. */
export function runningProcesses(marker: string): Map<number, string> {
  const found = new Map<number, string>();
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    try {
      const mark = readFileSync(`/proc/${entry}/cmdline`, 'utf8')
        .split('\0')
        .find((arg) => arg.startsWith(`${marker}/`));
      if (mark !== undefined) found.set(Number(entry), mark);
    } catch {
      // It ended while we looked.
    }
  }
  return found;
}

/** Marked processes that no destruction found. A launcher that lost its claim takes a moment to notice and end. */
export async function processesThatStay(marker: string): Promise<number[]> {
  const read = () => [...runningProcesses(marker).keys()];
  return until(read, (pids) => pids.length === 0, 10_000).catch(read);
}

/** Waits until the cell is in the phase. Fails with what was last seen. */
export async function untilPhase(provider: CellProvider, cell: string, phase: InstancePhase): Promise<ObservedCell> {
  return until(
    () => provider.observe(cell),
    (observed) => observed.phase === phase,
  );
}

export async function until<T>(
  read: () => T | Promise<T>,
  holds: (value: T) => boolean,
  withinMs = 60_000,
): Promise<T> {
  for (const deadline = Date.now() + withinMs; ; await sleep(20)) {
    const value = await read();
    if (holds(value)) return value;
    if (Date.now() > deadline) throw new Error(`not so within ${withinMs} ms; last seen: ${JSON.stringify(value)}`);
  }
}
