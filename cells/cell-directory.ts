/**
 * What the process provider keeps on disk, and which steps on it are atomic:
 *
 *   <stateDir>/<cell>/spec.json                  what is to run; appears whole, once, and never changes
 *   <stateDir>/<cell>/held                       the run whose egress the packet filter holds; written before its first rule
 *   <stateDir>/<cell>/run-<id>/owner             who answers for the cell
 *   <stateDir>/<cell>/run-<id>/lease             until when the cell is kept though nobody renews; missing: for ever
 *   <stateDir>/<cell>/run-<id>/idle              the cell is to lie idle; written before it is frozen or stopped, removed
 *                                                once it is thawed, or before it is started
 *   <stateDir>/<cell>/run-<id>/<instance>.<n>.plan    the port of the n-th start; appears whole, before the start
 *   <stateDir>/<cell>/run-<id>/<instance>.<n>.claim   the one process of the n-th start; never removed, so never taken twice
 *   <stateDir>/<cell>/run-<id>/<instance>.<n>.stop    the process of the n-th start is ended on purpose; written before it is
 *   <stateDir>/<cell>/<instance>/{pid,start,log,exit} for people and tools
 *   <stateDir>/.gone.<cell>.<id>/                a cell being destroyed: one rename, after which nothing new can be claimed
 */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { BlueprintDocument } from '../blueprints/schema';
import { isLapsed, leaseEnd, type CellSpec } from './provider';
import type { ProcessIdentity } from './processes';

/** What spec.json holds. */
export interface RecordedSpec {
  cell: string;
  service: string;
  blueprint: BlueprintDocument;
  /** Names the run- folder. A cell made again after its destruction has another one. */
  run: string;
}

/** The newest start of an instance that is on record. */
export interface RecordedStart {
  n: number;
  port: number;
  /** Null until a process has claimed the start. */
  process: (ProcessIdentity & { claimedAt: Date }) | null;
  /** It was decided, while its process lived, to end it. */
  isToStop: boolean;
}

export class CellDirectory {
  readonly path: string;
  /** Folders of destructions of this cell that have begun. */
  private readonly gonePrefix: string;

  constructor(
    private readonly stateDir: string,
    readonly cell: string,
  ) {
    if (!/^[a-z0-9][a-z0-9-]{0,62}$/.test(cell)) throw new Error(`"${cell}" cannot be the name of a cell`);
    this.path = join(resolve(stateDir), cell);
    this.gonePrefix = `.gone.${cell}.`;
  }

  instanceDirectory(instance: string): string {
    return join(this.path, instance);
  }

  async readSpec(): Promise<RecordedSpec | undefined> {
    const text = await readIfThere(join(this.path, 'spec.json'));
    return text === undefined ? undefined : (JSON.parse(text) as RecordedSpec);
  }

  /** Records what is to run unless something is recorded already; answers what then is. */
  async recordSpec({ cell, service, blueprint, owner, leaseS }: CellSpec): Promise<RecordedSpec> {
    const spec: RecordedSpec = { cell, service, blueprint, run: randomBytes(6).toString('hex') };
    const run = this.runDirectory(spec);
    try {
      // The run folder first: a spec on record whose run folder is missing can only mean destruction.
      await fs.mkdir(run, { recursive: true });
      await writeWhole(join(run, 'owner'), owner);
      if (leaseS !== undefined) await writeWhole(join(run, 'lease'), leaseEnd(leaseS));
      const isRecorded = await linkWhole(join(this.path, 'spec.json'), JSON.stringify(spec, null, 2));
      if (isRecorded) return spec;
    } catch (error) {
      // A disk that is full must not also keep what it could not take.
      await fs.rm(run, { recursive: true, force: true }).catch(() => undefined);
      await fs.rmdir(this.path).catch(() => undefined);
      throw error;
    }
    await fs.rm(run, { recursive: true, force: true });
    const recorded = await this.readSpec();
    if (!recorded) throw new Error(`cell ${cell} was destroyed while it was being made: ensure it again`);
    return recorded;
  }

  async readOwner(spec: RecordedSpec): Promise<string> {
    return (await readIfThere(join(this.runDirectory(spec), 'owner'))) ?? '';
  }

  async writeOwner(spec: RecordedSpec, owner: string): Promise<void> {
    await writeWhole(join(this.runDirectory(spec), 'owner'), owner);
  }

  /** Until when the cell is kept though nobody renews, ISO 8601. */
  async readLease(spec: RecordedSpec): Promise<string | undefined> {
    return readIfThere(join(this.runDirectory(spec), 'lease'));
  }

  async writeLease(spec: RecordedSpec, expiresAt: string): Promise<void> {
    await writeWhole(join(this.runDirectory(spec), 'lease'), expiresAt);
  }

  async isToBeIdle(spec: RecordedSpec): Promise<boolean> {
    return (await readIfThere(join(this.runDirectory(spec), 'idle'))) !== undefined;
  }

  async markIdle(spec: RecordedSpec, isIdle: boolean): Promise<void> {
    const mark = join(this.runDirectory(spec), 'idle');
    if (isIdle) await writeWhole(mark, '');
    else await fs.rm(mark, { force: true });
  }

  /** Whoever sees the process of this start dead from now on knows that it did not die by itself. */
  async markStop(spec: RecordedSpec, instance: string, n: number): Promise<void> {
    await writeWhole(this.stopFile(spec, instance, n), '');
  }

  /** From here on the destruction of the cell has to take rules out of the packet filter. */
  async markHeld(spec: RecordedSpec): Promise<void> {
    await writeWhole(join(this.path, 'held'), spec.run);
  }

  /** The run of a destroyed cell that the packet filter still holds. */
  async heldRun(gone: string): Promise<string | undefined> {
    return readIfThere(join(gone, 'held'));
  }

  claimFile(spec: RecordedSpec, instance: string, n: number): string {
    return join(this.runDirectory(spec), `${instance}.${n}.claim`);
  }

  /** Records the port of the n-th start unless one is recorded; answers the one that counts. */
  async planStart(spec: RecordedSpec, instance: string, n: number, port: number): Promise<number> {
    const plan = join(this.runDirectory(spec), `${instance}.${n}.plan`);
    if (await linkWhole(plan, String(port))) return port;
    return Number(await fs.readFile(plan, 'utf8'));
  }

  /** The newest start of each instance, by instance. */
  async readStarts(spec: RecordedSpec): Promise<Map<string, RecordedStart>> {
    const run = this.runDirectory(spec);
    const newest = new Map<string, number>();
    for (const entry of await listIfThere(run)) {
      const [, instance, n] = /^(.+)\.(\d+)\.plan$/.exec(entry) ?? [];
      if (instance !== undefined && n !== undefined)
        newest.set(instance, Math.max(Number(n), newest.get(instance) ?? 0));
    }
    const starts = new Map<string, RecordedStart>();
    for (const [instance, n] of newest) {
      const port = Number(await readIfThere(join(run, `${instance}.${n}.plan`)));
      const isToStop = (await readIfThere(this.stopFile(spec, instance, n))) !== undefined;
      starts.set(instance, { n, port, process: await readClaim(this.claimFile(spec, instance, n)), isToStop });
    }
    return starts;
  }

  /** Every process that ever claimed something under a folder of this cell. */
  async claimedProcesses(directory: string): Promise<ProcessIdentity[]> {
    const claimed: ProcessIdentity[] = [];
    for (const run of await listIfThere(directory)) {
      if (!run.startsWith('run-')) continue;
      for (const entry of await listIfThere(join(directory, run))) {
        const claim = entry.endsWith('.claim') ? await readClaim(join(directory, run, entry)) : null;
        if (claim) claimed.push(claim);
      }
    }
    return claimed;
  }

  /** Moves the cell out of everyone's reach in one step. Answers where it now is; undefined if there is nothing to move. */
  async moveAway(): Promise<string | undefined> {
    const gone = join(resolve(this.stateDir), this.gonePrefix + randomBytes(6).toString('hex'));
    return fs.rename(this.path, gone).then(
      () => gone,
      (error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOENT') return undefined;
        throw error;
      },
    );
  }

  /** As moveAway, unless the lease holds: one that was renewed at the last moment brings the cell back. */
  async moveAwayIfLapsed(): Promise<string | undefined> {
    const isLapsedAt = async (path: string) => {
      const text = await readIfThere(join(path, 'spec.json'));
      if (text === undefined) return false;
      const { run } = JSON.parse(text) as RecordedSpec;
      const expiresAt = await readIfThere(join(path, `run-${run}`, 'lease'));
      return expiresAt !== undefined && isLapsed({ expiresAt });
    };
    if (!(await isLapsedAt(this.path))) return undefined;
    const gone = await this.moveAway();
    if (gone === undefined || (await isLapsedAt(gone))) return gone;
    await fs.rename(gone, this.path);
    return undefined;
  }

  /** Destructions that have begun and not ended. */
  async goneDirectories(): Promise<string[]> {
    const entries = await listIfThere(resolve(this.stateDir));
    return entries
      .filter((entry) => entry.startsWith(this.gonePrefix))
      .map((entry) => join(resolve(this.stateDir), entry));
  }

  async readLogTail(instance: string, lines = 3, maxBytes = 4096): Promise<string> {
    const file = await fs.open(join(this.instanceDirectory(instance), 'log'), 'r').catch(() => undefined);
    if (!file) return '';
    try {
      const { size } = await file.stat();
      const { buffer, bytesRead } = await file.read(Buffer.alloc(maxBytes), 0, maxBytes, Math.max(0, size - maxBytes));
      return buffer.toString('utf8', 0, bytesRead).trim().split('\n').slice(-lines).join(' | ').slice(-400);
    } finally {
      await file.close();
    }
  }

  private stopFile(spec: RecordedSpec, instance: string, n: number): string {
    return join(this.runDirectory(spec), `${instance}.${n}.stop`);
  }

  private runDirectory(spec: RecordedSpec): string {
    return join(this.path, `run-${spec.run}`);
  }
}

/** Every cell that has anything on disk, those being destroyed too. */
export async function cellsOnDisk(stateDir: string): Promise<string[]> {
  const cells = new Set<string>();
  for (const entry of await listIfThere(resolve(stateDir))) {
    const cell = entry.startsWith('.gone.') ? entry.split('.')[2] : entry;
    if (cell !== undefined && /^[a-z0-9][a-z0-9-]{0,62}$/.test(cell)) cells.add(cell);
  }
  return [...cells].sort();
}

async function readClaim(file: string): Promise<RecordedStart['process']> {
  const text = await readIfThere(file);
  if (text === undefined) return null;
  const [pid, ...start] = text.trim().split(' ');
  const stat = await fs.stat(file).catch(() => undefined);
  return { pid: Number(pid), start: start.join(' '), claimedAt: stat?.mtime ?? new Date() };
}

/** Writes the file so that it is there whole or not at all. False if it was there already. */
async function linkWhole(file: string, text: string): Promise<boolean> {
  const draft = `${file}.${process.pid}.${randomBytes(4).toString('hex')}`;
  try {
    await fs.writeFile(draft, text);
    await fs.link(draft, file);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  } finally {
    await fs.rm(draft, { force: true });
  }
}

async function writeWhole(file: string, text: string): Promise<void> {
  const draft = `${file}.${process.pid}.${randomBytes(4).toString('hex')}`;
  try {
    await fs.writeFile(draft, text);
    await fs.rename(draft, file);
  } catch (error) {
    await fs.rm(draft, { force: true });
    throw error;
  }
}

async function readIfThere(file: string): Promise<string | undefined> {
  return fs.readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return undefined;
    throw error;
  });
}

async function listIfThere(directory: string): Promise<string[]> {
  return fs.readdir(directory).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return [];
    throw error;
  });
}
