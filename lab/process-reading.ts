/** One look at a process from outside, by Linux's /proc. */
import { readdirSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';

export interface ProcessReading {
  /** Milliseconds since the epoch. */
  atMs: number;
  /** Tells a restarted process from the old one, also if the pid is the same. */
  startedAtMs: number;
  residentBytes: number;
  /** CPU seconds used so far divided by the machine's cores, so that its rate is a share of the machine, 0 to 1. */
  cpuSecondsPerCore: number;
  openFiles: number;
  /** Soft limit; undefined if there is none. */
  openFilesLimit: number | undefined;
}

/** Clock ticks per second of /proc/<pid>/stat: fixed at 100 in the kernel's user interface. */
const ticksPerSecond = 100;
const pageBytes = 4096;
let bootTimeMs: number | undefined;

/** The process's reading, or undefined if there is no such process, or it has ended and only waits to be reaped. */
export function readProcess(pid: number): ProcessReading | undefined {
  try {
    bootTimeMs ??= 1000 * Number(/^btime (\d+)$/m.exec(readFileSync('/proc/stat', 'utf8'))?.[1]);
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The command's name may hold spaces and parentheses: fields are counted from behind its last one.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    if (fields[0] === 'Z' || fields[0] === 'X') return undefined;
    const field = (number: number): number => Number(fields[number - 3]);
    const limit = /^Max open files\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/limits`, 'utf8'))?.[1];
    return {
      atMs: Date.now(),
      startedAtMs: bootTimeMs + (1000 * field(22)) / ticksPerSecond,
      residentBytes: field(24) * pageBytes,
      cpuSecondsPerCore: (field(14) + field(15)) / ticksPerSecond / availableParallelism(),
      openFiles: readdirSync(`/proc/${pid}/fd`).length,
      openFilesLimit: limit === undefined ? undefined : Number(limit),
    };
  } catch {
    return undefined;
  }
}
