/**
 * Limits that are real: control groups (version 1 or 2, whichever the machine has) for CPU and memory, and small file
 * systems in memory. Everything lies under one parent, so that what a killed recording left behind is found and removed.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

const root = '/sys/fs/cgroup';
const parent = 'understudy-lab';
/** Short, so that an instance at its quota stalls for tens of milliseconds and not for a tenth of a second. */
const periodUs = 50_000;
/** Relative to a cell. */
const neighbourWeight = 16;
/** The lab's dozens of instances together, against any one process outside of the lab. */
const labWeight = 16;

/** Where each run keeps its file systems; a run is named `<pid of the recorder>-<episode>`. */
export const labRunsDir = join(tmpdir(), parent);

export interface LabMeans {
  cpu: boolean;
  memory: boolean;
  mounts: boolean;
}

interface Hierarchy {
  version: 1 | 2;
  cpu: string;
  memory: string;
}

function hierarchyOf(): Hierarchy | undefined {
  if (existsSync(join(root, 'cgroup.controllers'))) return { version: 2, cpu: root, memory: root };
  if (existsSync(join(root, 'cpu', 'cpu.cfs_quota_us'))) {
    return { version: 1, cpu: join(root, 'cpu'), memory: join(root, 'memory') };
  }
  return undefined;
}

const hierarchy = hierarchyOf();

const put = (file: string, value: string | number): void => writeFileSync(file, String(value));

/** In version 2 a group hands its controllers down only when told to. */
function makeGroup(base: string, path: string): string {
  let dir = base;
  for (const name of path.split('/')) {
    if (hierarchy?.version === 2) {
      for (const controller of ['cpu', 'memory']) {
        try {
          put(join(dir, 'cgroup.subtree_control'), `+${controller}`);
        } catch {
          // Not handed down to here: the check of the means says so.
        }
      }
    }
    dir = join(dir, name);
    mkdirSync(dir, { recursive: true });
    if (name === parent) setWeight(dir, labWeight);
  }
  return dir;
}

let found: LabMeans | undefined;

/** What this machine can really enforce, found by trying. */
export function labMeans(): LabMeans {
  if (found) return found;
  const name = `${parent}/check-${process.pid}`;
  const tried = (attempt: () => void): boolean => {
    try {
      attempt();
      return true;
    } catch {
      return false;
    }
  };
  found = {
    cpu:
      hierarchy !== undefined &&
      tried(() => {
        const dir = makeGroup(hierarchy.cpu, name);
        setQuota(dir, 0.5);
        rmdirSync(dir);
      }),
    memory:
      hierarchy !== undefined &&
      tried(() => {
        const dir = makeGroup(hierarchy.memory, name);
        setMemory(dir, 256 * 1024 * 1024);
        rmdirSync(dir);
      }),
    mounts: tried(() => {
      const dir = join(labRunsDir, `check-${process.pid}`);
      mountSmall(dir, 1024 * 1024);
      unmount(dir);
      rmSync(dir, { recursive: true, force: true });
    }),
  };
  return found;
}

/** Relative to a process or group that nobody has given a weight. Does nothing to a group without a CPU controller. */
function setWeight(dir: string, weight: number): void {
  const [file, unit] = hierarchy?.version === 2 ? ['cpu.weight', 100] : ['cpu.shares', 1024];
  if (existsSync(join(dir, file))) put(join(dir, file), unit * weight);
}

function setQuota(dir: string, cores: number): void {
  const quotaUs = Math.max(1000, Math.round(cores * periodUs));
  if (hierarchy?.version === 2) put(join(dir, 'cpu.max'), `${quotaUs} ${periodUs}`);
  else {
    put(join(dir, 'cpu.cfs_period_us'), periodUs);
    put(join(dir, 'cpu.cfs_quota_us'), quotaUs);
  }
}

/**
 * A line of shell by which a process puts itself under a CPU quota, in the groups that `CellGroups` of the same path knows:
 * for those that others start, who cannot be put there from outside before they run. Quote-free paths only.
 */
export function quotaCommand(path: string, cores: number): string {
  if (!hierarchy) throw new Error('This machine allows no control groups.');
  makeGroup(hierarchy.cpu, join(parent, dirname(path)));
  const host = join(hierarchy.cpu, parent, path);
  const quotaUs = Math.max(1000, Math.round(cores * periodUs));
  const limit =
    hierarchy.version === 2
      ? `echo +cpu > "${join(host, '..', 'cgroup.subtree_control')}" && echo +cpu > "${host}/cgroup.subtree_control" && echo "${quotaUs} ${periodUs}" > "${host}/cpu.max"`
      : `echo ${periodUs} > "${host}/cpu.cfs_period_us" && echo ${quotaUs} > "${host}/cpu.cfs_quota_us"`;
  return `mkdir -p "${host}/cell" && ${limit} && echo $$ > "${host}/cell/cgroup.procs"`;
}

function setMemory(dir: string, bytes: number): void {
  if (hierarchy?.version === 2) {
    put(join(dir, 'memory.max'), bytes);
    if (existsSync(join(dir, 'memory.swap.max'))) put(join(dir, 'memory.swap.max'), 0);
  } else put(join(dir, 'memory.limit_in_bytes'), bytes);
}

/** A file system in memory of that size. */
export function mountSmall(dir: string, bytes: number): void {
  mkdirSync(dir, { recursive: true });
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${Math.round(bytes)},mode=0755`, 'understudy-lab', dir], {
    stdio: 'pipe',
  });
}

export function unmount(dir: string): void {
  execFileSync('umount', ['-l', dir], { stdio: 'pipe' });
}

export interface Throttling {
  periods: number;
  throttled: number;
}

/**
 * The groups of one cell: a host with the CPU quota, and in it the cell beside a place for its neighbours. Both take from
 * the host's quota, as containers on one machine do.
 */
export class CellGroups {
  private readonly host: string | undefined;
  private readonly cell: string | undefined;
  private readonly neighbours: string | undefined;
  private readonly memory: string | undefined;

  /** @param path of the cell below the lab's parent group: `<run>/<cell>` */
  constructor(path: string, limits: { memoryLimitBytes?: number | undefined }) {
    if (!hierarchy) return;
    const host = `${parent}/${path}`;
    if (labMeans().cpu) {
      this.host = makeGroup(hierarchy.cpu, host);
      this.cell = makeGroup(hierarchy.cpu, `${host}/cell`);
      this.neighbours = makeGroup(hierarchy.cpu, `${host}/neighbours`);
    }
    if (labMeans().memory && limits.memoryLimitBytes !== undefined) {
      this.memory = hierarchy.version === 2 ? this.cell : makeGroup(hierarchy.memory, host);
      if (this.memory) setMemory(this.memory, limits.memoryLimitBytes);
    }
  }

  /** Takes a process in; its children follow. */
  add(pid: number): void {
    if (this.cell) put(join(this.cell, 'cgroup.procs'), pid);
    if (this.memory && this.memory !== this.cell) put(join(this.memory, 'cgroup.procs'), pid);
  }

  /** Neighbours are many small tenants in one: together they weigh far more than the cell. */
  addNeighbour(pid: number): void {
    if (!this.neighbours) return;
    setWeight(this.neighbours, neighbourWeight);
    put(join(this.neighbours, 'cgroup.procs'), pid);
  }

  /** Set once the instance has started: a quota for serving would make the start take a minute. */
  limitCpu(cores: number): void {
    if (this.host) setQuota(this.host, cores);
  }

  throttling(): Throttling | undefined {
    if (!this.host) return undefined;
    const text = readFileSync(join(this.host, 'cpu.stat'), 'utf8');
    const figure = (name: string): number => Number(new RegExp(`^${name} (\\d+)`, 'm').exec(text)?.[1] ?? 0);
    return { periods: figure('nr_periods'), throttled: figure('nr_throttled') };
  }

  /** What counts against the memory limit; undefined without one. */
  memoryUsedBytes(): number | undefined {
    if (!this.memory) return undefined;
    const file = hierarchy?.version === 2 ? 'memory.current' : 'memory.usage_in_bytes';
    return Number(readFileSync(join(this.memory, file), 'utf8'));
  }
}

function groupsBelow(dir: string): string[] {
  return readdirSync(dir, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .flatMap((entry) => [...groupsBelow(join(dir, entry.name)), join(dir, entry.name)]);
}

/** Kills what is left in the group and below, and removes the groups. Those that are not empty yet are left to the next sweep. */
function removeGroups(dir: string): void {
  if (!existsSync(dir)) return;
  for (const group of [...groupsBelow(dir), dir]) {
    for (const pid of readFileSync(join(group, 'cgroup.procs'), 'utf8').split('\n').filter(Boolean)) {
      try {
        process.kill(Number(pid), 'SIGKILL');
      } catch {
        // Gone already.
      }
    }
  }
  const until = Date.now() + 1000;
  for (const group of [...groupsBelow(dir), dir]) {
    for (;;) {
      try {
        rmdirSync(group);
        break;
      } catch {
        if (Date.now() > until) return;
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
      }
    }
  }
}

/** Removes everything of one run: processes in its groups, groups, file systems, folders. Safe to repeat. */
export function removeRun(run: string): void {
  if (hierarchy) {
    removeGroups(join(hierarchy.cpu, parent, run));
    if (hierarchy.version === 1) removeGroups(join(hierarchy.memory, parent, run));
  }
  const dir = join(labRunsDir, run);
  const mounts = readFileSync('/proc/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[1] ?? '')
    .filter((mount) => mount.startsWith(`${dir}/`));
  for (const mount of mounts) unmount(mount);
  rmSync(dir, { recursive: true, force: true });
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** Removes the runs of recorders that are no more. Returns their names. */
export function sweepOldRuns(): string[] {
  const names = new Set<string>();
  const folders = [labRunsDir, ...(hierarchy ? [join(hierarchy.cpu, parent), join(hierarchy.memory, parent)] : [])];
  for (const folder of folders) {
    if (!existsSync(folder)) continue;
    for (const entry of readdirSync(folder, { withFileTypes: true })) if (entry.isDirectory()) names.add(entry.name);
  }
  const old = [...names].filter((name) => !isAlive(Number(/(\d+)/.exec(name)?.[1] ?? 0)));
  for (const name of old) removeRun(name);
  return old;
}

/** Removes the lab's parent groups if no other recording uses them. */
export function removeParents(): void {
  for (const dir of hierarchy
    ? new Set([join(hierarchy.cpu, parent), join(hierarchy.memory, parent), labRunsDir])
    : []) {
    try {
      rmdirSync(dir);
    } catch {
      // In use by another recording, or never made.
    }
  }
}
