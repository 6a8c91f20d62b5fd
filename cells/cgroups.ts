/**
 * Control groups of process instances: limits that the kernel enforces and reads back, and freezing. One group per start:
 *
 *   <hierarchy>/understudy/<scope>/<cell>.<run>.<instance>.<n>
 *
 * Works with version 2, with version 1, and with both side by side; where none can be written, says so.
 */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import fs from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Limits } from './provider';

export interface WantedLimits {
  memoryBytes: number;
  cpus?: number;
  processes: number;
}

/** Where a limit is written, and how the kernel says it. */
interface Knob {
  file: string;
  value: (wanted: WantedLimits) => string | undefined;
  read: (text: string) => Partial<Limits>;
}

interface Hierarchy {
  root: string;
  version: 1 | 2;
  knobs: Knob[];
}

const cpuPeriodUs = 100_000;
const quota = (wanted: WantedLimits) =>
  wanted.cpus === undefined ? undefined : String(Math.max(1000, Math.round(wanted.cpus * cpuPeriodUs)));

const version1: Record<string, Knob[]> = {
  memory: [
    {
      file: 'memory.limit_in_bytes',
      value: ({ memoryBytes }) => String(memoryBytes),
      // Without a limit it says the largest number there is.
      read: (text) => (Number(text) < 2 ** 60 ? { memoryBytes: Number(text) } : {}),
    },
  ],
  cpu: [
    {
      file: 'cpu.cfs_quota_us',
      value: quota,
      read: (text) => (Number(text) > 0 ? { cpus: Number(text) / cpuPeriodUs } : {}),
    },
  ],
  pids: [
    {
      file: 'pids.max',
      value: ({ processes }) => String(processes),
      read: (text) => (text === 'max' ? {} : { processes: Number(text) }),
    },
  ],
  freezer: [],
};

const version2: Knob[] = [
  {
    file: 'memory.max',
    value: ({ memoryBytes }) => String(memoryBytes),
    read: (text) => (text === 'max' ? {} : { memoryBytes: Number(text) }),
  },
  {
    file: 'cpu.max',
    value: (wanted) => quota(wanted) && `${quota(wanted)} ${cpuPeriodUs}`,
    read: (text) => {
      const [max, period] = text.split(' ');
      return max === 'max' ? {} : { cpus: Number(max) / Number(period) };
    },
  },
  { ...version1['pids']![0]! },
];

export class Cgroups {
  private readonly scope: string;

  /** `stateDir` tells the groups of one provider apart from another's on the same machine. */
  constructor(stateDir: string) {
    this.scope = createHash('sha256').update(resolve(stateDir)).digest('hex').slice(0, 12);
  }

  /** The folders of a new group with these limits. Undefined where memory and processes cannot be limited by groups. */
  async create(name: string, wanted: WantedLimits): Promise<string[] | undefined> {
    const made: string[] = [];
    const written = new Set<string>();
    for (const hierarchy of hierarchies()) {
      const directory = join(hierarchy.root, 'understudy', this.scope, name);
      try {
        await fs.mkdir(directory, { recursive: true });
        made.push(directory);
        if (hierarchy.version === 2) await this.enableControllers(hierarchy.root);
        for (const { file, value } of hierarchy.knobs) {
          const text = value(wanted);
          if (text === undefined || !existsSync(join(directory, file))) continue;
          await fs.writeFile(join(directory, file), text);
          written.add(file.split('.')[0]!);
        }
      } catch {
        // Read-only, or not ours to write: what is missing is seen below.
      }
    }
    if (written.has('memory') && written.has('pids')) return made;
    for (const directory of made) await fs.rmdir(directory).catch(() => undefined);
    return undefined;
  }

  /** The limits that hold for a group, as the kernel says them. Undefined if there is no such group. */
  async read(name: string): Promise<Limits | undefined> {
    const limits: Limits = { by: '' };
    for (const { root, version, knobs } of hierarchies()) {
      const directory = join(root, 'understudy', this.scope, name);
      for (const { file, read } of knobs) {
        const text = await readIfThere(join(directory, file));
        if (text === undefined) continue;
        Object.assign(limits, read(text));
        limits.by = `cgroup v${version}`;
      }
    }
    return limits.by === '' ? undefined : limits;
  }

  /** Whether the kernel has ended a process of the group because its memory limit was reached. */
  async ranOutOfMemory(name: string): Promise<boolean> {
    for (const { root } of hierarchies())
      for (const file of ['memory.events', 'memory.oom_control']) {
        const text = await readIfThere(join(root, 'understudy', this.scope, name, file));
        if (text !== undefined && /^oom_kill [1-9]/m.test(text)) return true;
      }
    return false;
  }

  /** Stops every process of the group where it stands, or lets them run again. False if there is nothing that can. */
  async freeze(name: string, isFrozen: boolean): Promise<boolean> {
    for (const { root } of hierarchies()) {
      const directory = join(root, 'understudy', this.scope, name);
      if (await writeIfThere(join(directory, 'cgroup.freeze'), isFrozen ? '1' : '0')) return true;
      if (await writeIfThere(join(directory, 'freezer.state'), isFrozen ? 'FROZEN' : 'THAWED')) return true;
    }
    return false;
  }

  /** Whether the group is frozen. Undefined if there is no such group. */
  async isFrozen(name: string): Promise<boolean | undefined> {
    for (const { root } of hierarchies()) {
      const directory = join(root, 'understudy', this.scope, name);
      const events = await readIfThere(join(directory, 'cgroup.events'));
      if (events !== undefined) return /^frozen 1$/m.test(events);
      const state = await readIfThere(join(directory, 'freezer.state'));
      if (state !== undefined) return state === 'FROZEN';
    }
    return undefined;
  }

  /** Lets everything of the cell run again, so that it can hear that it is to end. */
  async thaw(cell: string): Promise<void> {
    const names = new Set<string>();
    for (const { root } of hierarchies())
      for (const name of await fs.readdir(join(root, 'understudy', this.scope)).catch(() => [] as string[]))
        if (name.startsWith(`${cell}.`)) names.add(name);
    for (const name of names) await this.freeze(name, false);
  }

  /** Asks the kernel to take back the memory of a frozen group as far as it can: what files hold, and the rest to swap. */
  async handBackMemory(name: string): Promise<void> {
    for (const { root } of hierarchies()) {
      const directory = join(root, 'understudy', this.scope, name);
      const used = await readIfThere(join(directory, 'memory.current'));
      // The kernel answers EAGAIN when it got less back than it was asked for.
      if (used !== undefined) await writeIfThere(join(directory, 'memory.reclaim'), used).catch(() => undefined);
      else await writeIfThere(join(directory, 'memory.force_empty'), '0').catch(() => undefined);
    }
  }

  /** Removes every group of the cell with whatever still runs in it. */
  async remove(cell: string): Promise<void> {
    for (const { root } of hierarchies()) {
      const scope = join(root, 'understudy', this.scope);
      for (const name of await fs.readdir(scope).catch(() => [] as string[])) {
        if (name.startsWith(`${cell}.`)) await this.removeGroup(join(scope, name), name);
      }
      await fs.rmdir(scope).catch(() => undefined);
      await fs.rmdir(join(root, 'understudy')).catch(() => undefined);
    }
  }

  private async removeGroup(directory: string, name: string): Promise<void> {
    for (const deadline = Date.now() + 5_000; ; await sleep(20)) {
      const done = await fs.rmdir(directory).then(
        () => true,
        (error: NodeJS.ErrnoException) => error.code === 'ENOENT' || error.code === 'EROFS',
      );
      if (done) return;
      // Processes that left the instance's own process group are still in here.
      const pids = ((await readIfThere(join(directory, 'cgroup.procs'))) ?? '').split('\n').filter(Boolean);
      for (const pid of pids) signal(Number(pid));
      await this.freeze(name, false);
      if (Date.now() > deadline) throw new Error(`The control group ${directory} cannot be removed.`);
    }
  }

  private async enableControllers(root: string): Promise<void> {
    for (const directory of [root, join(root, 'understudy'), join(root, 'understudy', this.scope)])
      for (const controller of ['memory', 'cpu', 'pids'])
        await fs.writeFile(join(directory, 'cgroup.subtree_control'), `+${controller}`).catch(() => undefined);
  }
}

function signal(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended.
  }
}

/** What is mounted. Version 2 comes first: its freezer stops processes without harm to those that trace them. */
function hierarchies(): Hierarchy[] {
  const found: Hierarchy[] = [];
  for (const line of (existsSync('/proc/mounts') ? readFileSync('/proc/mounts', 'utf8') : '').split('\n')) {
    const [, root, type, options] = line.split(' ');
    if (!root) continue;
    if (type === 'cgroup2') found.unshift({ root, version: 2, knobs: version2 });
    else if (type === 'cgroup') {
      const controllers = options!.split(',').filter((option) => version1[option]);
      if (controllers.length > 0)
        found.push({ root, version: 1, knobs: controllers.flatMap((controller) => version1[controller]!) });
    }
  }
  return found;
}

async function readIfThere(file: string): Promise<string | undefined> {
  return fs.readFile(file, 'utf8').then(
    (text) => text.trim(),
    () => undefined,
  );
}

async function writeIfThere(file: string, text: string): Promise<boolean> {
  if (!existsSync(file)) return false;
  await fs.writeFile(file, text);
  return true;
}
