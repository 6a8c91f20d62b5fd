/** What the processes of a cell cost this machine: time of its cores and memory, read from the kernel. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

export interface CellCost {
  /** Seconds of CPU time used so far. */
  cpuS: number;
  /** Resident, and of pages that several processes share the process's part only. Bytes. */
  pssBytes: number;
  /** Resident, and only what nobody else has: what would come free if it ended. Bytes. */
  ownBytes: number;
  /** Resident, shared pages in full. Bytes. */
  rssBytes: number;
  processes: number;
}

const ticksPerSecond = 100;

/** Of every process whose command line names one of the instances: what keeps a container alive counts with it. */
export function costOf(instances: readonly string[]): CellCost {
  const cost: CellCost = { cpuS: 0, pssBytes: 0, ownBytes: 0, rssBytes: 0, processes: 0 };
  for (const pid of readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))) {
    const words = read(`/proc/${pid}/cmdline`)?.split('\0') ?? [];
    if (!instances.some((name) => words.some((word) => word === name || word.endsWith(`-${name}`)))) continue;
    const rollup = read(`/proc/${pid}/smaps_rollup`);
    // It ended while we looked.
    if (rollup === undefined) continue;
    const bytes = (field: string) => 1024 * Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(rollup)?.[1] ?? 0);
    cost.processes += 1;
    cost.pssBytes += bytes('Pss');
    cost.ownBytes += bytes('Private_Clean') + bytes('Private_Dirty');
    cost.rssBytes += bytes('Rss');
    cost.cpuS += cpuOf(pid);
  }
  return cost;
}

/** The most that any of the kernel's accounts says: of the process in ticks, of its threads to the nanosecond, of its control group. */
function cpuOf(pid: string): number {
  const stat = read(`/proc/${pid}/stat`) ?? '';
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const ticks = Number(fields[11] ?? 0) + Number(fields[12] ?? 0);
  const threads = list(`/proc/${pid}/task`).map((thread) => read(`/proc/${pid}/task/${thread}/schedstat`));
  const ns = threads.reduce((sum, text) => sum + Number(text?.split(' ')[0] ?? 0), 0);
  return Math.max(ticks / ticksPerSecond, ns / 1e9, groupCpuOf(pid));
}

/** Of its control group of version 2, if that is its instance's own and not one it shares with others. */
function groupCpuOf(pid: string): number {
  const path = /^0::(\/understudy\/.+)$/m.exec(read(`/proc/${pid}/cgroup`) ?? '')?.[1];
  const root = /^\S+ (\S+) cgroup2 /m.exec(read('/proc/mounts') ?? '')?.[1];
  if (path === undefined || root === undefined) return 0;
  return Number(/^usage_usec (\d+)$/m.exec(read(join(root, path, 'cpu.stat')) ?? '')?.[1] ?? 0) / 1e6;
}

/** Bytes of swap that this machine has: without any, memory that no file backs cannot be taken from a frozen process. */
export function swapBytes(): number {
  return 1024 * Number(/^SwapTotal:\s+(\d+) kB/m.exec(read('/proc/meminfo') ?? '')?.[1] ?? 0);
}

function read(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}

function list(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}
