/** How busy the machine is, with this bench and with whatever else: latency says nothing without it. */
import { readFileSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Machine } from './result';

interface Reading {
  atMs: number;
  idle: number;
  all: number;
  waitedUs: number | null;
}

function read(): Reading {
  const line = readFileSync('/proc/stat', 'utf8').split('\n')[0] ?? '';
  const ticks = line.trim().split(/\s+/).slice(1, 9).map(Number);
  return {
    atMs: performance.now(),
    idle: (ticks[3] ?? 0) + (ticks[4] ?? 0),
    all: ticks.reduce((sum, n) => sum + n, 0),
    waitedUs: pressureUs(),
  };
}

/** Microseconds in which some process waited for a CPU, since the start of the machine. */
function pressureUs(): number | null {
  try {
    return Number(/^some .*total=(\d+)/m.exec(readFileSync('/proc/pressure/cpu', 'utf8'))?.[1] ?? 0);
  } catch {
    return null;
  }
}

const round = (share: number): number => Math.round(100 * share) / 100;

/** Begins to look; what it answers tells of the time since then. */
export function watchMachine(): () => Machine {
  const before = read();
  return () => {
    const after = read();
    const waitedUs = before.waitedUs === null || after.waitedUs === null ? null : after.waitedUs - before.waitedUs;
    return {
      cpus: cpus().length,
      busy: round(1 - (after.idle - before.idle) / Math.max(1, after.all - before.all)),
      pressure: waitedUs === null ? null : round(waitedUs / 1000 / Math.max(1, after.atMs - before.atMs)),
      loadAverage: loadavg().map(round),
    };
  };
}

const lookForMs = 5000;

/** Waits until others leave the machine at least this idle, or have not for too long. Answers how busy it was at last. */
export async function untilQuiet(busiest: number, atMostS: number, signal: AbortSignal): Promise<number> {
  const deadline = Date.now() + atMostS * 1000;
  for (;;) {
    const seen = watchMachine();
    await sleep(lookForMs, undefined, { signal });
    const { busy } = seen();
    if (busy <= busiest || Date.now() > deadline) return busy;
  }
}
