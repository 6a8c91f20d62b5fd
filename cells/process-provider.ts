/** Runs the instances of cells as processes of this machine. They outlive whoever started them. */
import fs from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { RefusedError } from '../blueprints/records';
import type { BlueprintDocument } from '../blueprints/schema';
import { packageRoot } from '../package-root';
import { CellDirectory, cellsOnDisk, type RecordedSpec, type RecordedStart } from './cell-directory';
import { Cgroups, type WantedLimits } from './cgroups';
import { filledCommand } from './command-words';
import { EgressRules, whyNotHeld } from './egress-rules';
import { whyNotBounded, withinFileBounds } from './file-bounds';
import type { IdentityFiles } from './identity/identity-files';
import { launch } from './launcher';
import { chooseFreePort, isFree } from './ports';
import { dataLimitOf, isAlive, isGroupAlive, isStopped, signalGroup, type ProcessIdentity } from './processes';
import {
  instanceNames,
  leaseEnd,
  phaseOf,
  type CellProvider,
  type CellSpec,
  type IdleWay,
  type Limits,
  type ObservedCell,
  type ObservedInstance,
  type OwnTls,
} from './provider';
import { noIdentitySettings, unready, whyCellNotReady } from './readiness';
import { isSameBlueprint } from './same-blueprint';
import { commandAsUser, firstAllocatedUid, narrowed, whyNotUser } from './run-as';
import { listensOn } from './sockets';

export interface ProcessProviderOptions {
  /** Where the provider keeps what it runs. All workers of one machine share it. */
  stateDir: string;
  /** How long an instance has to end after SIGTERM, in milliseconds. Default 5,000. */
  graceMs?: number;
  /** For cells whose blueprint names no user: an account of this machine, or `allocate` for a number of each instance's own. */
  user?: string | undefined;
  /** `enforce`: the packet filter keeps each instance to the egress of its blueprint. Default `record`: nothing does. */
  egress?: 'record' | 'enforce';
  /** Needed for cells that have an identity. */
  ownTls?: OwnTls | undefined;
}

/** Of an instance whose limits are enforced, children and threads together. */
const processLimit = 512;
const couldNotBind = /EADDRINUSE|address already in use/i;

/** There is no room for what the provider has to write down: nothing runs that is not written down. */
export class DiskFullError extends Error {
  override readonly name = 'DiskFullError';
}

export class ProcessProvider implements CellProvider {
  readonly kind = 'process';
  private readonly stateDir: string;
  private readonly graceMs: number;
  private readonly user: string | undefined;
  private readonly ownTls: OwnTls | undefined;
  private readonly cgroups: Cgroups;
  private readonly egressRules: EgressRules;
  private readonly isEgressEnforced: boolean;

  constructor(options: ProcessProviderOptions) {
    this.stateDir = options.stateDir;
    this.graceMs = options.graceMs ?? 5_000;
    this.user = options.user;
    this.ownTls = options.ownTls;
    this.cgroups = new Cgroups(options.stateDir);
    this.egressRules = new EgressRules(options.stateDir);
    this.isEgressEnforced = options.egress === 'enforce';
  }

  async ensure(spec: CellSpec): Promise<ObservedCell> {
    return this.begin(spec).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOSPC') throw error;
      throw new DiskFullError(`cell ${spec.cell}: no space is left for ${this.stateDir} (${error.message})`, {
        cause: error,
      });
    });
  }

  private async begin(spec: CellSpec): Promise<ObservedCell> {
    await this.refuseWhatCannotBe(spec);
    const directory = new CellDirectory(this.stateDir, spec.cell);
    await this.finishDestruction(directory);
    const recorded = (await directory.readSpec()) ?? (await directory.recordSpec(spec));
    if (recorded.service !== spec.service || !isSameBlueprint(recorded.blueprint, spec.blueprint))
      throw new RefusedError(
        `cell ${spec.cell} runs from another blueprint or for another service: destroy it before it is made anew`,
      );
    if ((await directory.readOwner(recorded)) !== spec.owner) await directory.writeOwner(recorded, spec.owner);
    if (spec.leaseS !== undefined) await directory.writeLease(recorded, leaseEnd(spec.leaseS));
    const starts = await directory.readStarts(recorded);
    if (await directory.isToBeIdle(recorded)) {
      await this.freeze(recorded, starts, false);
      await directory.markIdle(recorded, false);
    }
    for (const instance of instanceNames(recorded)) {
      await this.ensureInstance(directory, recorded, instance, starts.get(instance), spec.identity?.[instance]);
    }
    return this.observe(spec.cell);
  }

  async observe(cell: string): Promise<ObservedCell> {
    const directory = new CellDirectory(this.stateDir, cell);
    const spec = await directory.readSpec();
    const observedAt = new Date().toISOString();
    if (!spec) {
      const phase = (await directory.goneDirectories()).length > 0 ? 'deleting' : 'absent';
      return { cell, service: '', owner: '', phase, instances: [], observedAt };
    }
    const starts = await directory.readStarts(spec);
    const isIdle = await directory.isToBeIdle(spec);
    const instances = await Promise.all(
      instanceNames(spec).map((name) => this.observeInstance(directory, spec, name, starts.get(name), isIdle)),
    );
    const owner = await directory.readOwner(spec);
    const expiresAt = await directory.readLease(spec);
    const seen = { cell, service: spec.service, owner, phase: phaseOf(instances), instances, observedAt };
    return expiresAt === undefined ? seen : { ...seen, expiresAt };
  }

  /** Its processes are frozen where they stand, and the kernel may have of their memory what it can take; or they are ended. */
  async idle(cell: string, how: IdleWay): Promise<ObservedCell> {
    const directory = new CellDirectory(this.stateDir, cell);
    const spec = await directory.readSpec();
    if (!spec) throw new RefusedError(`there is no cell ${cell} that could lie idle`);
    await directory.markIdle(spec, true);
    const starts = await directory.readStarts(spec);
    if (how === 'stopped') await this.stop(directory, spec, starts);
    else await this.freeze(spec, starts, true);
    return this.observe(cell);
  }

  async renew(cell: string, leaseS: number): Promise<boolean> {
    const directory = new CellDirectory(this.stateDir, cell);
    const spec = await directory.readSpec();
    if (!spec) return false;
    return directory.writeLease(spec, leaseEnd(leaseS)).then(
      () => true,
      (error: NodeJS.ErrnoException) => {
        // It was destroyed meanwhile.
        if (error.code === 'ENOENT') return false;
        throw error;
      },
    );
  }

  async destroy(cell: string): Promise<void> {
    const directory = new CellDirectory(this.stateDir, cell);
    await directory.moveAway();
    await this.finishDestruction(directory);
  }

  async removeLapsed(cell: string): Promise<boolean> {
    const directory = new CellDirectory(this.stateDir, cell);
    await directory.moveAwayIfLapsed();
    const isBegun = (await directory.goneDirectories()).length > 0;
    if (isBegun) await this.finishDestruction(directory);
    return isBegun;
  }

  async list(owner?: string): Promise<ObservedCell[]> {
    const cells = await cellsOnDisk(this.stateDir);
    const observed = await Promise.all(cells.map((cell) => this.observe(cell)));
    return observed.filter((cell) => cell.phase !== 'absent' && (owner === undefined || cell.owner === owner));
  }

  private async refuseWhatCannotBe({ blueprint, identity }: CellSpec): Promise<void> {
    const { name, image, security, network } = blueprint;
    const at = `blueprint ${name}`;
    if (security.identity && !identity) throw new RefusedError(noIdentitySettings(name));
    if (image.workingDirectory !== undefined) {
      const stat = await fs.stat(image.workingDirectory).catch(() => undefined);
      if (!stat?.isDirectory())
        throw new RefusedError(`${at}: image.workingDirectory: there is no folder ${image.workingDirectory}`);
    }
    if (!(await isFree(network.address, 0)))
      throw new RefusedError(`${at}: network.address: nothing can listen on ${network.address}`);
    const user = security.user ?? this.user;
    const refuse = (field: string, reason: string | undefined) => {
      if (reason !== undefined) throw new RefusedError(`${at}: ${field}: ${reason}`);
    };
    refuse('security.user', whyNotUser(user));
    refuse('security.files', whyNotBounded(blueprint, user));
    if (this.isEgressEnforced) refuse('network.egress', await whyNotHeld(network.egress, user));
  }

  /** Starts the instance unless a process has it, or is about to. */
  private async ensureInstance(
    directory: CellDirectory,
    spec: RecordedSpec,
    instance: string,
    last: RecordedStart | undefined,
    identity: IdentityFiles | undefined,
  ): Promise<void> {
    if (last?.process && isAlive(last.process) && !last.isToStop) return;
    // Children of a dead instance may still hold its port and its memory.
    if (last?.process) await this.stopGroups([last.process]);
    // A start that nobody has claimed is tried again under its number: if the first launcher is only slow, one of the
    // two loses the claim. A claimed one is over for good, so the next has the next number.
    const n = last?.process ? last.n + 1 : (last?.n ?? 1);
    const { address } = spec.blueprint.network;
    const port = await directory.planStart(
      spec,
      instance,
      n,
      await this.choosePort(directory, instance, spec.blueprint, last),
    );
    const home = directory.instanceDirectory(instance);
    await fs.mkdir(home, { recursive: true });
    const { image, security, resources } = spec.blueprint;
    const { cell, service } = spec;
    const { command, environment } = filledCommand(spec.blueprint, {
      cell,
      service,
      instance,
      address,
      port,
      dir: home,
      identity,
    });
    const user = security.user ?? this.user;
    const groups = resources.enforce ? await this.cgroups.create(groupName(spec, instance, n), wantedLimits(spec)) : [];
    const bounds = await withinFileBounds(spec.blueprint, home);
    if (this.isEgressEnforced) {
      await directory.markHeld(spec);
      await this.egressRules.hold(spec, firstAllocatedUid + port, spec.blueprint.network.egress);
    }
    const child = await launch({
      claim: directory.claimFile(spec, instance, n),
      directory: home,
      logFile: join(home, 'log'),
      command: [
        ...bounds,
        ...narrowed(spec.blueprint),
        ...(await commandAsUser({ user, port, home, identity })),
        ...command,
      ],
      workingDirectory: image.workingDirectory ?? packageRoot,
      environment: {
        PATH: process.env['PATH'] ?? '/usr/local/bin:/usr/bin:/bin',
        HOME: this.user === undefined ? (process.env['HOME'] ?? '/') : home,
        ...environment,
      },
      // Where no group can limit it, each of its processes is at least kept to that much private memory.
      ...(groups ? { groups } : { dataLimitKib: resources.memoryLimitMib * 1024 }),
    });
    // Only a parent learns how a process ended. Worth keeping while we live; nothing depends on it.
    child.once('exit', (code, signal) => {
      const end = { pid: child.pid, how: signal ? `ended by ${signal}` : `ended with exit code ${code}` };
      void fs.writeFile(join(home, 'exit'), JSON.stringify(end)).catch(() => undefined);
    });
  }

  /** The port of the last start, unless that could not be bound; callers keep their addresses over a restart. */
  private async choosePort(
    directory: CellDirectory,
    instance: string,
    { network: { address, ports } }: BlueprintDocument,
    last: RecordedStart | undefined,
  ): Promise<number> {
    if (last) {
      const failedToBind = couldNotBind.test(await directory.readLogTail(instance, 40));
      if (!failedToBind && (await isFree(address, last.port))) return last.port;
    }
    return chooseFreePort(address, await this.plannedPorts(), ports);
  }

  private async plannedPorts(): Promise<Set<number>> {
    const ports = new Set<number>();
    for (const cell of await cellsOnDisk(this.stateDir)) {
      const directory = new CellDirectory(this.stateDir, cell);
      const spec = await directory.readSpec();
      if (spec) for (const { port } of (await directory.readStarts(spec)).values()) ports.add(port);
    }
    return ports;
  }

  private async observeInstance(
    directory: CellDirectory,
    spec: RecordedSpec,
    name: string,
    start: RecordedStart | undefined,
    isToBeIdle: boolean,
  ): Promise<ObservedInstance> {
    const { network, readiness } = spec.blueprint;
    const seen: ObservedInstance = { name, address: network.address, port: start?.port ?? 0, phase: 'provisioning' };
    if (!start?.process) return { ...seen, reason: 'not started yet' };
    const { pid, claimedAt } = start.process;
    if (!isAlive(start.process)) {
      if (start.isToStop) return isToBeIdle ? { ...seen, phase: 'idle' } : { ...seen, reason: 'not started again yet' };
      const words = await directory.readLogTail(name);
      const { memoryLimitMib } = spec.blueprint.resources;
      const isStarved = await this.cgroups.ranOutOfMemory(groupName(spec, name, start.n));
      const starved = isStarved ? `; it ran out of memory: its limit is ${memoryLimitMib} MiB` : '';
      const end = `${await howItEnded(directory, name, pid)}${starved}`;
      const reason = `process ${pid} ${end}${words ? `; its last words: ${words}` : ''}`;
      return { ...seen, phase: 'failed', reason };
    }
    if (spec.blueprint.resources.enforce) seen.limits = await this.limitsOf(groupName(spec, name, start.n), pid);
    if (isToBeIdle || start.isToStop) {
      const isFrozen = (await this.cgroups.isFrozen(groupName(spec, name, start.n))) ?? isStopped(start.process);
      return isFrozen ? { ...seen, pid, phase: 'idle' } : { ...seen, pid, reason: 'is being laid idle, or woken' };
    }
    const reason = (await whyCellNotReady(seen, spec.blueprint, this.ownTls)) ?? (await notItsPort(seen, pid));
    if (reason === undefined) return { ...seen, pid, phase: 'ready' };
    return { ...seen, pid, ...unready(reason, claimedAt, readiness.timeoutS) };
  }

  private async limitsOf(group: string, pid: number): Promise<Limits> {
    const limits = await this.cgroups.read(group);
    if (limits) return limits;
    const memoryBytes = dataLimitOf(pid);
    return memoryBytes === undefined ? { by: 'prlimit' } : { by: 'prlimit', memoryBytes };
  }

  /** Freezes the processes of all instances, or lets them run again; as a group where they have one, else by signals. */
  private async freeze(spec: RecordedSpec, starts: Map<string, RecordedStart>, isFrozen: boolean): Promise<void> {
    for (const [instance, { n, process: leader }] of starts) {
      if (!leader) continue;
      const group = groupName(spec, instance, n);
      if (!(await this.cgroups.freeze(group, isFrozen))) signalGroup(leader, isFrozen ? 'SIGSTOP' : 'SIGCONT');
      if (isFrozen) await this.cgroups.handBackMemory(group);
    }
  }

  /**
   * Ends the processes of all instances. Its ports and all that is on disk are kept. The decision is on record before a
   * process hears of it, so that one that died by itself, before, is never taken for one that rests.
   */
  private async stop(directory: CellDirectory, spec: RecordedSpec, starts: Map<string, RecordedStart>): Promise<void> {
    const leaders: ProcessIdentity[] = [];
    for (const [instance, { n, process: leader, isToStop }] of starts) {
      if (!leader) continue;
      if (!isToStop && isAlive(leader)) await directory.markStop(spec, instance, n);
      leaders.push(leader);
    }
    // It may have been frozen before, and is to hear of its end.
    await this.cgroups.thaw(spec.cell);
    await this.stopGroups(leaders);
    // With whatever left the process group of its leader.
    await this.cgroups.remove(spec.cell);
  }

  /** Ends what destructions that have begun left behind, this caller's or another's. */
  private async finishDestruction(directory: CellDirectory): Promise<void> {
    for (const gone of await directory.goneDirectories()) {
      await this.cgroups.thaw(directory.cell);
      await this.stopGroups(await directory.claimedProcesses(gone));
      await this.cgroups.remove(directory.cell);
      const run = await directory.heldRun(gone);
      if (run !== undefined) await this.egressRules.remove({ cell: directory.cell, run });
      await fs.rm(gone, { recursive: true, force: true, maxRetries: 5, retryDelay: 20 });
    }
  }

  private async stopGroups(processes: ProcessIdentity[]): Promise<void> {
    const groups = processes.filter(isGroupAlive);
    for (const group of groups) {
      signalGroup(group, 'SIGTERM');
      // A stopped process hears SIGTERM only when it runs again.
      signalGroup(group, 'SIGCONT');
    }
    if (await allEnd(groups, this.graceMs)) return;
    for (const group of groups) signalGroup(group, 'SIGKILL');
    if (await allEnd(groups, 5_000)) return;
    const left = groups.filter(isGroupAlive).map(({ pid }) => pid);
    throw new Error(`Processes ${left.join(', ')} are still there after SIGKILL: they may hang in the kernel.`);
  }
}

async function allEnd(groups: ProcessIdentity[], withinMs: number): Promise<boolean> {
  for (const deadline = Date.now() + withinMs; ; await sleep(20)) {
    if (!groups.some(isGroupAlive)) return true;
    if (Date.now() > deadline) return false;
  }
}

/** Another server that listens there would answer in the instance's name. */
async function notItsPort({ address, port }: ObservedInstance, pid: number): Promise<string | undefined> {
  if ((await listensOn(pid, port)) !== false) return undefined;
  return `another process listens on ${address}:${port}, not process ${pid}`;
}

function groupName({ cell, run }: RecordedSpec, instance: string, n: number): string {
  return `${cell}.${run}.${instance}.${n}`;
}

function wantedLimits({ blueprint: { resources } }: RecordedSpec): WantedLimits {
  const { memoryLimitMib, cpu } = resources;
  return {
    memoryBytes: memoryLimitMib * 1024 * 1024,
    processes: resources.processes ?? processLimit,
    ...(cpu !== undefined && { cpus: cpu }),
  };
}

async function howItEnded(directory: CellDirectory, instance: string, pid: number): Promise<string> {
  try {
    const text = await fs.readFile(join(directory.instanceDirectory(instance), 'exit'), 'utf8');
    const end = JSON.parse(text) as { pid: number; how: string };
    if (end.pid === pid) return end.how;
  } catch {
    // Its parent did not live to see the end.
  }
  return 'has ended';
}
