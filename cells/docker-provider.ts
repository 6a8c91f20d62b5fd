/** Runs the instances of cells as containers of a Docker engine, or of Podman, which answers the same requests. */
import { setTimeout as sleep } from 'node:timers/promises';
import Docker from 'dockerode';
import { RefusedError } from '../blueprints/records';
import { containerOf } from './docker-container';
import { betweenLooksMs, DockerContainers, othersMayTakeMs, type EngineError } from './docker-containers';
import { DockerRecords, label, newRun, type CellLabels, type CellRecordOfEngine } from './docker-records';
import { lastWords } from './docker-logs';
import { refuseWhatCannotBe } from './docker-refusals';
import { giveTo, type IdentityFiles } from './identity/identity-files';
import { chooseFreePort, isFree } from './ports';
import {
  instanceNames,
  isLapsed,
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
import { unready, whyCellNotReady } from './readiness';
import { isSameBlueprint } from './same-blueprint';

export interface DockerProviderOptions {
  /** The engine's socket. Left out: what DOCKER_HOST names, or /var/run/docker.sock. */
  socketPath?: string | undefined;
  /** Tells the containers of this Understudy apart from another's on the same engine. */
  installation?: string;
  /** `host`, or a network of the engine: then the instances' ports are published at the blueprint's address. */
  network?: string;
  /** How long an instance has to end after SIGTERM, in seconds. Default 5. */
  graceS?: number;
  /** Needed for cells that have an identity. */
  ownTls?: OwnTls | undefined;
}

/** Somebody else changes the same cell again and again only if something is wrong. */
const attempts = 20;

export class DockerProvider implements CellProvider {
  readonly kind = 'docker';
  private readonly engine: Docker;
  private readonly network: string;
  private readonly containers: DockerContainers;
  private readonly records: DockerRecords;
  private readonly ownTls: OwnTls | undefined;

  constructor({
    socketPath,
    installation = 'default',
    network = 'host',
    graceS = 5,
    ownTls,
  }: DockerProviderOptions = {}) {
    this.ownTls = ownTls;
    this.engine = new Docker(socketPath === undefined ? undefined : { socketPath });
    this.network = network;
    this.containers = new DockerContainers(this.engine, installation, graceS);
    this.records = new DockerRecords(this.engine, installation);
  }

  async ensure(spec: CellSpec): Promise<ObservedCell> {
    await refuseWhatCannotBe(spec, this.engine, this.containers, this.network);
    const record = await this.recordWanted(spec);
    for (const instance of instanceNames(spec)) await this.ensureInstance(record, instance, spec.identity?.[instance]);
    // Only now: as long as it has not run again, it rests.
    if (record.stopped) await this.change(spec.cell, (now) => ({ ...now, stopped: [] }));
    return this.observe(spec.cell);
  }

  async observe(cell: string): Promise<ObservedCell> {
    const record = await this.known(cell);
    const observedAt = new Date().toISOString();
    if (!record) return { cell, service: '', owner: '', phase: 'absent', instances: [], observedAt };
    const { service, owner, expiresAt } = record;
    const seen = { cell, service, owner, observedAt, ...(expiresAt !== undefined && { expiresAt }) };
    if (record.isBeingDestroyed) return { ...seen, phase: 'deleting', instances: [] };
    const instances = await Promise.all(instanceNames(record).map((name) => this.observeInstance(record, name)));
    return { ...seen, phase: phaseOf(instances), instances };
  }

  /** Its containers are paused: they keep their memory, and take no time of a core. Or they are stopped, to be started again. */
  async idle(cell: string, how: IdleWay): Promise<ObservedCell> {
    const record = await this.known(cell);
    if (!record || record.isBeingDestroyed) throw new RefusedError(`there is no cell ${cell} that could lie idle`);
    if (how === 'stopped') await this.stop(record);
    else await this.pause(record);
    return this.observe(cell);
  }

  private async pause(record: CellRecordOfEngine): Promise<void> {
    for (const name of instanceNames(record)) {
      const container = await this.containers.ofInstance(name);
      if (container?.State.Running && !container.State.Paused) await this.containers.pause(container.Id);
    }
  }

  /** On record before a container hears of it, so that one that died by itself, before, is never taken for one that rests. */
  private async stop(record: CellRecordOfEngine): Promise<void> {
    const containers = await Promise.all(instanceNames(record).map((name) => this.containers.ofInstance(name)));
    const living = containers.filter((container) => container !== undefined).filter(isLiving);
    if (living.length === 0) return;
    const stopped = (now: CellLabels) => [...new Set([...(now.stopped ?? []), ...living.map(({ Id }) => Id)])];
    if (!(await this.change(record.cell, (now) => ({ ...now, stopped: stopped(now) })))) return;
    await Promise.all(living.map(({ Id, State }) => this.containers.stop(Id, State.Status)));
  }

  async renew(cell: string, leaseS: number): Promise<boolean> {
    const expiresAt = leaseEnd(leaseS);
    return this.change(cell, (record) => ({ ...record, expiresAt }));
  }

  async destroy(cell: string): Promise<void> {
    await this.change(cell, (record) => ({ ...record, isBeingDestroyed: true }));
    await this.finishDestruction(cell);
  }

  async removeLapsed(cell: string): Promise<boolean> {
    const record = await this.known(cell);
    if (!record) return false;
    if (!record.isBeingDestroyed) {
      if (!isLapsed(record)) return false;
      const { isOurs } = await this.records.follow(record, { ...record, isBeingDestroyed: true });
      // Renewed at the last moment, or somebody else destroys it.
      if (!isOurs) return false;
    }
    await this.finishDestruction(cell);
    return true;
  }

  async list(owner?: string): Promise<ObservedCell[]> {
    const containers = await this.containers.all();
    const cells = new Set([...(await this.records.cells()), ...containers.map(({ Labels }) => Labels[label('cell')]!)]);
    const observed = await Promise.all([...cells].sort().map((cell) => this.observe(cell)));
    return observed.filter(({ phase, owner: who }) => phase !== 'absent' && (owner === undefined || who === owner));
  }

  /** What is recorded of the cell; without a record (someone pruned the volumes) what its containers say. */
  private async known(cell: string): Promise<CellRecordOfEngine | undefined> {
    const record = await this.records.newest(cell);
    if (record) return record;
    const [container] = await this.containers.ofCell(cell);
    return container && { ...this.records.read(container.Labels), number: 0 };
  }

  /** The record under which the cell is to run from now on: the spec's owner and lease, and no destruction under way. */
  private async recordWanted(spec: CellSpec): Promise<CellRecordOfEngine> {
    const { cell, service, owner, blueprint, leaseS } = spec;
    for (let attempt = 0; attempt < attempts; attempt += 1) {
      const found = await this.known(cell);
      if (found?.isBeingDestroyed) {
        await this.finishDestruction(cell);
        continue;
      }
      if (found && (found.service !== service || !isSameBlueprint(found.blueprint, blueprint)))
        throw new RefusedError(
          `cell ${cell} runs from another blueprint or for another service: destroy it before it is made anew`,
        );
      if (found && found.number > 0 && found.owner === owner && leaseS === undefined) return found;
      const expiresAt = leaseS === undefined ? found?.expiresAt : leaseEnd(leaseS);
      const wanted: CellLabels = { cell, service, owner, blueprint, run: found?.run ?? newRun() };
      if (expiresAt !== undefined) wanted.expiresAt = expiresAt;
      if (found?.stopped) wanted.stopped = found.stopped;
      const { isOurs, newest } = await this.records.follow(found, wanted);
      if (isOurs && newest) return newest;
    }
    throw new Error(`cell ${cell} is being changed by somebody else again and again: ensure it again`);
  }

  /** Changes what is recorded. False if there is no such cell, or it is being destroyed. */
  private async change(cell: string, to: (record: CellRecordOfEngine) => CellLabels): Promise<boolean> {
    for (let attempt = 0; attempt < attempts; attempt += 1) {
      const record = await this.known(cell);
      if (!record || record.isBeingDestroyed) return false;
      if ((await this.records.follow(record, to(record))).isOurs) return true;
    }
    throw new Error(`cell ${cell} is being changed by somebody else again and again: try again`);
  }

  /** Ends what a destruction that has begun left behind, this caller's or another's. */
  private async finishDestruction(cell: string): Promise<void> {
    const record = await this.known(cell);
    if (!record?.isBeingDestroyed) return;
    const containers = await this.containers.ofCell(cell);
    const ofRun = containers.filter(({ Labels }) => Labels[label('run')] === record.run);
    await Promise.all(ofRun.map(({ Id, State }) => this.containers.end(Id, State)));
    await this.records.forget(cell, record.run);
  }

  /** Starts the instance unless a container runs it. */
  private async ensureInstance(
    record: CellRecordOfEngine,
    name: string,
    identity: IdentityFiles | undefined,
  ): Promise<void> {
    let found = await this.containers.ofInstance(name);
    if (found && found.Config.Labels[label('installation')] !== this.containers.installation)
      throw new RefusedError(`container ${this.containers.nameOf(name)} is not Understudy's: rename or remove it`);
    if (found?.State.Paused) await this.containers.unpause(found.Id);
    if (found && isLiving(found) && found.Config.Labels[label('run')] === record.run) return;
    let port = Number(found?.Config.Labels[label('port')] ?? 0);
    const { address } = record.blueprint.network;
    const isOfRun = found?.Config.Labels[label('run')] === record.run;
    const isNew = isOfRun && found?.State.Status === 'created';
    // Its own container is started again, unless somebody took its port while it rested.
    const isAtRest = isOfRun && rests(found, record) && (await isFree(address, port));
    if (found && !isNew && !isAtRest) {
      await this.containers.end(found.Id, found.State.Status);
      found = undefined;
    }
    if (!found) {
      // Callers keep their addresses over a restart, if nobody took the port meanwhile.
      if (port === 0 || !(await isFree(address, port)))
        port = await chooseFreePort(address, await this.containers.plannedPorts());
      found = await this.made(record, name, port, identity);
    }
    await this.startUnlessDestroyed(record, name, found.Id);
  }

  /** The instance's container, made by us or by another worker at the same moment. */
  private async made(
    record: CellRecordOfEngine,
    name: string,
    port: number,
    identity: IdentityFiles | undefined,
  ): Promise<Docker.ContainerInspectInfo> {
    const deadline = Date.now() + othersMayTakeMs;
    for (;;) {
      await this.create(record, name, port, identity);
      const found = await this.containers.ofInstance(name);
      // Docker takes the name before the container can be seen, and frees it only after one that is being removed has gone.
      if (found && found.State.Status !== 'removing') return found;
      if (!(await this.isStillWanted(record))) throw destroyedMeanwhile(record);
      if (Date.now() >= deadline)
        throw new Error(
          `the name ${this.containers.nameOf(name)} is taken by a container that cannot be seen: try again`,
        );
      await sleep(betweenLooksMs);
    }
  }

  private async isStillWanted(record: CellRecordOfEngine): Promise<boolean> {
    const now = await this.records.newest(record.cell);
    return now !== undefined && now.run === record.run && !now.isBeingDestroyed;
  }

  /** Whoever was slow must not bring to life what was destroyed meanwhile. */
  private async startUnlessDestroyed(record: CellRecordOfEngine, name: string, id: string): Promise<void> {
    if (await this.isStillWanted(record)) {
      try {
        await this.containers.start(id);
      } catch (error) {
        const { message } = error as EngineError;
        // Not a failure if another worker has just started it.
        const now = await this.containers.ofInstance(name);
        if (!now || !isLiving(now)) {
          await this.containers.end(id, 'created');
          const reason = `${name} cannot be started: ${message}`;
          throw isAboutItsProgram(message, record) ? new RefusedError(reason) : new Error(reason);
        }
      }
    }
    if (await this.isStillWanted(record)) return;
    await this.containers.end(id, 'running');
    throw destroyedMeanwhile(record);
  }

  private async create(
    record: CellRecordOfEngine,
    name: string,
    port: number,
    identity: IdentityFiles | undefined,
  ): Promise<void> {
    const { user = '0' } = record.blueprint.security;
    const [uid, gid = uid] = user.split(':').map(Number);
    if (identity) await giveTo(identity, uid!, gid!);
    const labels = { ...this.records.written(record), [label('instance')]: name, [label('port')]: String(port) };
    const isPodman = await this.containers.isPodman();
    const wanted = containerOf(record, { instance: name, port, network: this.network, identity, isPodman });
    await this.containers.create(name, labels, wanted).catch((error: EngineError) => {
      // As Docker does with more cores than it has, or too little memory.
      if (error.statusCode === 400)
        throw new RefusedError(
          `blueprint ${record.blueprint.name}: the engine makes no such container: ${error.message}`,
        );
      throw error as Error;
    });
  }

  private async observeInstance(record: CellRecordOfEngine, name: string): Promise<ObservedInstance> {
    const { network, readiness, resources } = record.blueprint;
    const container = await this.containers.ofInstance(name);
    const labels = container?.Config.Labels ?? {};
    const port = Number(labels[label('port')] ?? 0);
    const seen: ObservedInstance = { name, address: network.address, port, phase: 'provisioning' };
    if (!container || labels[label('run')] !== record.run) return { ...seen, reason: 'not made yet' };
    if (resources.enforce) seen.limits = limitsOf(container);
    const { State } = container;
    if (State.Paused) return { ...seen, phase: 'idle' };
    if (State.Status === 'created') return { ...seen, reason: 'not started yet' };
    if (rests(container, record)) return { ...seen, phase: 'idle' };
    if (!isLiving(container)) {
      const words = await lastWords(this.engine, container.Id);
      const how = State.OOMKilled ? 'was ended for want of memory' : `ended with exit code ${State.ExitCode}`;
      const reason = `container ${container.Name.replace('/', '')} ${how}${words ? `; its last words: ${words}` : ''}`;
      return { ...seen, phase: 'failed', reason };
    }
    if (record.stopped?.includes(container.Id)) return { ...seen, reason: 'is being laid idle, or woken' };
    const reason = await whyCellNotReady(seen, record.blueprint, this.ownTls);
    if (reason !== undefined) return { ...seen, ...unready(reason, new Date(State.StartedAt), readiness.timeoutS) };
    return { ...seen, pid: State.Pid, phase: 'ready' };
  }
}

function destroyedMeanwhile({ cell }: CellRecordOfEngine): Error {
  return new Error(`cell ${cell} was destroyed while it was being made: ensure it again`);
}

/** The image has no such program. What else the engine itself lacks, somebody may mend. */
function isAboutItsProgram(message: string, { blueprint }: CellRecordOfEngine): boolean {
  const [program = ''] = blueprint.image.command;
  return message.includes(program) && /no such file|not found|executable|permission denied/i.test(message);
}

function isLiving({ State }: Docker.ContainerInspectInfo): boolean {
  return State.Running || State.Paused || State.Restarting;
}

/** It has been ended so that the cell rests, and has not run again. */
function rests(container: Docker.ContainerInspectInfo | undefined, { stopped = [] }: CellRecordOfEngine): boolean {
  return container !== undefined && !isLiving(container) && stopped.includes(container.Id);
}

function limitsOf({ HostConfig }: Docker.ContainerInspectInfo): Limits {
  const { Memory, NanoCpus, PidsLimit } = HostConfig;
  const limits: Limits = { by: 'engine' };
  if (Memory) limits.memoryBytes = Memory;
  if (NanoCpus) limits.cpus = NanoCpus / 1e9;
  if (PidsLimit && PidsLimit > 0) limits.processes = PidsLimit;
  return limits;
}
