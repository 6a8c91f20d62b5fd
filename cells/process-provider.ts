/** Runs the instances of cells as processes of this machine. They outlive whoever started them. */
import { execFile } from 'node:child_process';
import fs from 'node:fs/promises';
import { isDeepStrictEqual, promisify } from 'node:util';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { RefusedError } from '../blueprints/records';
import { blueprintSchema, type BlueprintDocument } from '../blueprints/schema';
import { packageRoot } from '../package-root';
import { CellDirectory, cellsOnDisk, type RecordedSpec, type RecordedStart } from './cell-directory';
import { request } from './http';
import { launch } from './launcher';
import { chooseFreePort, isFree } from './ports';
import { isAlive, isGroupAlive, listensOn, signalGroup, type ProcessIdentity } from './processes';
import type { CellProvider, CellSpec, InstancePhase, ObservedCell, ObservedInstance } from './provider';

export interface ProcessProviderOptions {
  /** Where the provider keeps what it runs. All workers of one machine share it. */
  stateDir: string;
  /** How long an instance has to end after SIGTERM, in milliseconds. Default 5,000. */
  graceMs?: number;
}

const readinessTimeoutMs = 1_000;
const couldNotBind = /EADDRINUSE|address already in use/i;

export class ProcessProvider implements CellProvider {
  readonly kind = 'process';
  private readonly stateDir: string;
  private readonly graceMs: number;

  constructor(options: ProcessProviderOptions) {
    this.stateDir = options.stateDir;
    this.graceMs = options.graceMs ?? 5_000;
  }

  async ensure(spec: CellSpec): Promise<ObservedCell> {
    await refuseWhatCannotBe(spec.blueprint);
    const directory = new CellDirectory(this.stateDir, spec.cell);
    await this.finishDestruction(directory);
    const recorded = (await directory.readSpec()) ?? (await directory.recordSpec(spec));
    if (recorded.service !== spec.service || !isSame(recorded.blueprint, spec.blueprint))
      throw new RefusedError(
        `cell ${spec.cell} runs from another blueprint or for another service: destroy it before it is made anew`,
      );
    if ((await directory.readOwner(recorded)) !== spec.owner) await directory.writeOwner(recorded, spec.owner);
    const starts = await directory.readStarts(recorded);
    for (const instance of instanceNames(recorded)) {
      await this.ensureInstance(directory, recorded, instance, starts.get(instance));
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
    const instances = await Promise.all(
      instanceNames(spec).map((instance) => this.observeInstance(directory, spec, instance, starts.get(instance))),
    );
    const owner = await directory.readOwner(spec);
    return { cell, service: spec.service, owner, phase: phaseOf(instances), instances, observedAt };
  }

  async destroy(cell: string): Promise<void> {
    const directory = new CellDirectory(this.stateDir, cell);
    await directory.moveAway();
    await this.finishDestruction(directory);
  }

  async list(owner?: string): Promise<ObservedCell[]> {
    const cells = await cellsOnDisk(this.stateDir);
    const observed = await Promise.all(cells.map((cell) => this.observe(cell)));
    return observed.filter((cell) => cell.phase !== 'absent' && (owner === undefined || cell.owner === owner));
  }

  /** Starts the instance unless a process has it, or is about to. */
  private async ensureInstance(
    directory: CellDirectory,
    spec: RecordedSpec,
    instance: string,
    last: RecordedStart | undefined,
  ): Promise<void> {
    if (last?.process && isAlive(last.process)) return;
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
      await this.choosePort(directory, instance, address, last),
    );
    const home = directory.instanceDirectory(instance);
    await fs.mkdir(home, { recursive: true });
    const values = placeholders(spec, instance, home, port);
    const { image, security } = spec.blueprint;
    const command = image.command.map((argument) => fill(argument, values));
    const child = await launch({
      claim: directory.claimFile(spec, instance, n),
      directory: home,
      logFile: join(home, 'log'),
      command: [...(await commandAsUser(security.user, home)), ...command],
      workingDirectory: image.workingDirectory ?? packageRoot,
      environment: {
        PATH: process.env['PATH'] ?? '/usr/local/bin:/usr/bin:/bin',
        HOME: process.env['HOME'] ?? '/',
        ...Object.fromEntries(Object.entries(image.environment).map(([key, value]) => [key, fill(value, values)])),
      },
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
    address: string,
    last: RecordedStart | undefined,
  ): Promise<number> {
    if (last) {
      const failedToBind = couldNotBind.test(await directory.readLogTail(instance, 40));
      if (!failedToBind && (await isFree(address, last.port))) return last.port;
    }
    return chooseFreePort(address, await this.plannedPorts());
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
  ): Promise<ObservedInstance> {
    const { network, readiness } = spec.blueprint;
    const seen = { name, address: network.address, port: start?.port ?? 0 };
    if (!start?.process) return { ...seen, phase: 'provisioning', reason: 'not started yet' };
    const { pid, claimedAt } = start.process;
    if (!isAlive(start.process)) {
      const words = await directory.readLogTail(name);
      const reason = `process ${pid} ${await howItEnded(directory, name, pid)}${words ? `; its last words: ${words}` : ''}`;
      return { ...seen, phase: 'failed', reason };
    }
    const reason = await whyNotReady(seen, readiness.path, pid);
    if (reason === undefined) return { ...seen, pid, phase: 'ready' };
    const ageS = (Date.now() - claimedAt.getTime()) / 1000;
    const isLate = ageS > readiness.timeoutS;
    const since = isLate ? ` ${Math.round(ageS)} s after its start, more than the ${readiness.timeoutS} s allowed` : '';
    return { ...seen, pid, phase: isLate ? 'failed' : 'provisioning', reason: `not ready${since}: ${reason}` };
  }

  /** Ends what destructions that have begun left behind, this caller's or another's. */
  private async finishDestruction(directory: CellDirectory): Promise<void> {
    for (const gone of await directory.goneDirectories()) {
      await this.stopGroups(await directory.claimedProcesses(gone));
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

function instanceNames({ cell, blueprint }: RecordedSpec): string[] {
  return Array.from({ length: blueprint.resources.instances }, (_, i) => `${cell}-${i + 1}`);
}

/** `ready` only if every instance is; `failed` if any has failed. */
function phaseOf(instances: ObservedInstance[]): InstancePhase {
  if (instances.some(({ phase }) => phase === 'failed')) return 'failed';
  return instances.every(({ phase }) => phase === 'ready') ? 'ready' : 'provisioning';
}

async function whyNotReady(target: ObservedInstance | { address: string; port: number }, path: string, pid: number) {
  try {
    const { status } = await request(target, path, { timeoutMs: readinessTimeoutMs });
    if (status < 200 || status > 299) return `${path} answered ${status}`;
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException;
    return `${path} on ${target.address}:${target.port}: ${message || code}`;
  }
  if (listensOn(pid, target.port) === false)
    return `another process listens on ${target.address}:${target.port}, not process ${pid}`;
  return undefined;
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

function placeholders({ cell, service, blueprint }: RecordedSpec, instance: string, dir: string, port: number) {
  return {
    port: String(port),
    address: blueprint.network.address,
    instance,
    cell,
    service,
    memoryLimitMib: String(blueprint.resources.memoryLimitMib),
    dir,
  };
}

function fill(text: string, values: Record<string, string>): string {
  return text.replace(/\{([A-Za-z]+)\}/g, (whole, key: string) => values[key] ?? whole);
}

/** Compares through the schema, so that a setting with a default that a later version added makes no difference. */
function isSame(recorded: BlueprintDocument, wanted: BlueprintDocument): boolean {
  return isDeepStrictEqual(blueprintSchema.parse(recorded), blueprintSchema.parse(wanted));
}

async function refuseWhatCannotBe({ name, image, security, network }: BlueprintDocument): Promise<void> {
  const at = `blueprint ${name}`;
  if (image.workingDirectory !== undefined) {
    const stat = await fs.stat(image.workingDirectory).catch(() => undefined);
    if (!stat?.isDirectory())
      throw new RefusedError(`${at}: image.workingDirectory: there is no folder ${image.workingDirectory}`);
  }
  if (!(await isFree(network.address, 0)))
    throw new RefusedError(`${at}: network.address: nothing can listen on ${network.address}`);
  const { uid, username } = userInfo();
  if (security.user !== undefined && security.user !== username && uid !== 0)
    throw new RefusedError(
      `${at}: security.user: only root can start a cell as ${security.user}, and this process runs as ${username}`,
    );
}

/** What stands before the command so that it runs as the user its source runs as. Gives the user the instance's folder. */
async function commandAsUser(user: string | undefined, home: string): Promise<string[]> {
  if (user === undefined || user === userInfo().username) return [];
  const idOf = async (flag: string) => Number((await promisify(execFile)('id', [flag, user])).stdout);
  try {
    const [uid, gid] = [await idOf('-u'), await idOf('-g')];
    await fs.chown(home, uid, gid);
    return ['setpriv', `--reuid=${uid}`, `--regid=${gid}`, '--init-groups', '--'];
  } catch (error) {
    throw new RefusedError(`security.user: ${user} is not a user of this machine: ${(error as Error).message}`);
  }
}
