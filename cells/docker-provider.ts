/** Runs the instances of cells as containers of a Docker engine, or of Podman, which answers the same requests. */
import { dirname } from 'node:path';
import Docker from 'dockerode';
import { RefusedError } from '../blueprints/records';
import { filledCommand } from './command-words';
import { DockerRecords, label, newRun, type CellLabels, type CellRecordOfEngine } from './docker-records';
import { lastWords } from './docker-logs';
import { giveTo, identityFilesIn, type IdentityFiles } from './identity/identity-files';
import { chooseFreePort, isFree } from './ports';
import {
  instanceNames,
  isLapsed,
  leaseEnd,
  phaseOf,
  type CellProvider,
  type CellSpec,
  type Limits,
  type ObservedCell,
  type ObservedInstance,
  type OwnTls,
} from './provider';
import { noIdentitySettings, unready, whyCellNotReady } from './readiness';
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

/** Where an instance finds the files of its identity, which it can only read. */
const identityFolder = '/run/understudy-identity';
/** A folder of the instance alone, in memory. */
const ownFolder = '/run/understudy';
const processLimit = 512;
/** Somebody else changes the same cell again and again only if something is wrong. */
const attempts = 20;

interface EngineError {
  statusCode?: number;
  message: string;
}

export class DockerProvider implements CellProvider {
  readonly kind = 'docker';
  private readonly engine: Docker;
  private readonly installation: string;
  private readonly network: string;
  private readonly graceS: number;
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
    this.installation = installation;
    this.network = network;
    this.graceS = graceS;
    this.records = new DockerRecords(this.engine, installation);
  }

  async ensure(spec: CellSpec): Promise<ObservedCell> {
    await this.refuseWhatCannotBe(spec);
    const record = await this.recordWanted(spec);
    for (const instance of instanceNames(spec)) await this.ensureInstance(record, instance, spec.identity?.[instance]);
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

  /** Its containers are paused: they keep their memory, and take no time of a core. */
  async idle(cell: string): Promise<ObservedCell> {
    const record = await this.known(cell);
    if (!record || record.isBeingDestroyed) throw new RefusedError(`there is no cell ${cell} that could lie idle`);
    for (const name of instanceNames(record)) {
      const container = await this.inspect(name);
      if (container?.State.Running && !container.State.Paused)
        await this.engine
          .getContainer(container.Id)
          .pause()
          .catch(unlessItIsSo(/already paused/));
    }
    return this.observe(cell);
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
    const containers = await this.containers([]);
    const cells = new Set([...(await this.records.cells()), ...containers.map(({ Labels }) => Labels[label('cell')]!)]);
    const observed = await Promise.all([...cells].sort().map((cell) => this.observe(cell)));
    return observed.filter(({ phase, owner: who }) => phase !== 'absent' && (owner === undefined || who === owner));
  }

  /** What is recorded of the cell; without a record (someone pruned the volumes) what its containers say. */
  private async known(cell: string): Promise<CellRecordOfEngine | undefined> {
    const record = await this.records.newest(cell);
    if (record) return record;
    const [container] = await this.containers([`${label('cell')}=${cell}`]);
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
    const containers = await this.containers([`${label('cell')}=${cell}`]);
    const ofRun = containers.filter(({ Labels }) => Labels[label('run')] === record.run);
    await Promise.all(ofRun.map(({ Id, State }) => this.end(Id, State)));
    await this.records.forget(cell, record.run);
  }

  private async end(id: string, state: string): Promise<void> {
    const container = this.engine.getContainer(id);
    // A paused container hears SIGTERM only when it runs again.
    if (state === 'paused') await container.unpause().catch(unlessItIsSo(/not paused/));
    if (state === 'running' || state === 'paused') await container.stop({ t: this.graceS }).catch(unlessItIsSo(/./));
    await container.remove({ force: true, v: true }).catch(unlessItIsSo(/no such container|already in progress/i));
  }

  /** Starts the instance unless a container runs it. */
  private async ensureInstance(
    record: CellRecordOfEngine,
    name: string,
    identity: IdentityFiles | undefined,
  ): Promise<void> {
    let found = await this.inspect(name);
    if (found && found.Config.Labels[label('installation')] !== this.installation)
      throw new RefusedError(`container ${this.containerName(name)} is not Understudy's: rename or remove it`);
    if (found?.State.Paused)
      await this.engine
        .getContainer(found.Id)
        .unpause()
        .catch(unlessItIsSo(/not paused/));
    if (found && isLiving(found) && found.Config.Labels[label('run')] === record.run) return;
    let port = Number(found?.Config.Labels[label('port')] ?? 0);
    const { address } = record.blueprint.network;
    const isNew = found?.State.Status === 'created' && found.Config.Labels[label('run')] === record.run;
    if (found && !isNew) {
      await this.end(found.Id, found.State.Status);
      found = undefined;
    }
    if (!found) {
      // Callers keep their addresses over a restart, if nobody took the port meanwhile.
      if (port === 0 || !(await isFree(address, port))) port = await chooseFreePort(address, await this.plannedPorts());
      await this.create(record, name, port, identity);
      found = await this.inspect(name);
    }
    if (!found) throw new Error(`container ${this.containerName(name)} was removed while it was being made`);
    await this.startUnlessDestroyed(record, name, found.Id);
  }

  /** Whoever was slow must not bring to life what was destroyed meanwhile. */
  private async startUnlessDestroyed(record: CellRecordOfEngine, name: string, id: string): Promise<void> {
    const container = this.engine.getContainer(id);
    const isStillWanted = async () => {
      const now = await this.records.newest(record.cell);
      return now !== undefined && now.run === record.run && !now.isBeingDestroyed;
    };
    if (await isStillWanted()) {
      try {
        await container.start();
      } catch (error) {
        const { message } = error as EngineError;
        // Not a failure if another worker has just started it.
        const now = await this.inspect(name);
        if (!now || !isLiving(now)) {
          await this.end(id, 'created');
          const reason = `${name} cannot be started: ${message}`;
          throw /no such file|not found|executable/i.test(message) ? new RefusedError(reason) : new Error(reason);
        }
      }
    }
    if (await isStillWanted()) return;
    await this.end(id, 'running');
    throw new Error(`cell ${record.cell} was destroyed while it was being made: ensure it again`);
  }

  private async create(
    record: CellRecordOfEngine,
    name: string,
    port: number,
    identity: IdentityFiles | undefined,
  ): Promise<void> {
    const { cell, service, blueprint } = record;
    const { image, network, security, resources } = blueprint;
    const isOnHost = this.network === 'host';
    const address = isOnHost ? network.address : '0.0.0.0';
    const placement = { cell, service, instance: name, address, port, dir: ownFolder };
    const seen = identity && identityFilesIn(identityFolder);
    const [uid, gid = uid] = (security.user ?? '0').split(':').map(Number);
    if (identity) await giveTo(identity, uid!, gid!);
    const { command, environment } = filledCommand(blueprint, { ...placement, identity: seen });
    const published = `${port}/tcp`;
    try {
      await this.engine.createContainer({
        name: this.containerName(name),
        Image: image.os,
        Entrypoint: [],
        Cmd: command,
        Env: Object.entries(environment).map(([key, value]) => `${key}=${value}`),
        ...(image.workingDirectory !== undefined && { WorkingDir: image.workingDirectory }),
        ...(security.user !== undefined && { User: security.user }),
        ...(!isOnHost && { ExposedPorts: { [published]: {} } }),
        Labels: { ...this.records.written(record), [label('instance')]: name, [label('port')]: String(port) },
        HostConfig: {
          NetworkMode: this.network,
          ...(!isOnHost && { PortBindings: { [published]: [{ HostIp: network.address, HostPort: String(port) }] } }),
          // No more rights than a plain process of its user has, and none to be won.
          CapDrop: ['ALL'],
          SecurityOpt: ['no-new-privileges'],
          ...(identity && { Binds: [`${dirname(identity.privateKeyFile)}:${identityFolder}:ro`] }),
          Tmpfs: { [ownFolder]: 'size=64m,mode=1777' },
          RestartPolicy: { Name: 'no' },
          ...(resources.enforce && {
            Memory: resources.memoryLimitMib * 1024 * 1024,
            PidsLimit: processLimit,
            ...(resources.cpu !== undefined && { NanoCpus: Math.round(resources.cpu * 1e9) }),
          }),
        },
      });
    } catch (error) {
      const { statusCode, message } = error as EngineError;
      // The name is taken: another worker was faster. Docker says 409, Podman 500 with these words.
      if (statusCode !== 409 && !/already in use/.test(message)) throw error;
    }
  }

  private async observeInstance(record: CellRecordOfEngine, name: string): Promise<ObservedInstance> {
    const { network, readiness, resources } = record.blueprint;
    const container = await this.inspect(name);
    const labels = container?.Config.Labels ?? {};
    const port = Number(labels[label('port')] ?? 0);
    const seen: ObservedInstance = { name, address: network.address, port, phase: 'provisioning' };
    if (!container || labels[label('run')] !== record.run) return { ...seen, reason: 'not made yet' };
    if (resources.enforce) seen.limits = limitsOf(container);
    const { State } = container;
    if (State.Paused) return { ...seen, phase: 'idle' };
    if (State.Status === 'created') return { ...seen, reason: 'not started yet' };
    if (!isLiving(container)) {
      const words = await lastWords(this.engine, container.Id);
      const how = State.OOMKilled ? 'was ended for want of memory' : `ended with exit code ${State.ExitCode}`;
      const reason = `container ${container.Name.replace('/', '')} ${how}${words ? `; its last words: ${words}` : ''}`;
      return { ...seen, phase: 'failed', reason };
    }
    const reason = await whyCellNotReady(seen, record.blueprint, this.ownTls);
    if (reason !== undefined) return { ...seen, ...unready(reason, new Date(State.StartedAt), readiness.timeoutS) };
    return { ...seen, pid: State.Pid, phase: 'ready' };
  }

  private async inspect(instance: string): Promise<Docker.ContainerInspectInfo | undefined> {
    return this.engine
      .getContainer(this.containerName(instance))
      .inspect()
      .catch((error: EngineError) => {
        if (error.statusCode === 404) return undefined;
        throw error;
      });
  }

  private async containers(labels: string[]): Promise<Docker.ContainerInfo[]> {
    const wanted = [`${label('installation')}=${this.installation}`, ...labels];
    return this.engine.listContainers({ all: true, filters: { label: wanted } });
  }

  private async plannedPorts(): Promise<Set<number>> {
    return new Set((await this.containers([])).map(({ Labels }) => Number(Labels[label('port')])));
  }

  private containerName(instance: string): string {
    return `understudy-${this.installation}-${instance}`;
  }

  private async refuseWhatCannotBe({ blueprint, identity }: CellSpec): Promise<void> {
    const { name, image, network, security } = blueprint;
    if (security.identity && !identity) throw new RefusedError(noIdentitySettings(name));
    if (identity && !/^(\d+(:\d+)?)?$/.test(security.user ?? ''))
      throw new RefusedError(
        `blueprint ${name}: security.user: must be a number, such as 1000, for a container that has an identity: its key is that user's alone`,
      );
    if (!(await isFree(network.address, 0)))
      throw new RefusedError(`blueprint ${name}: network.address: nothing can listen on ${network.address}`);
    await this.engine
      .getImage(image.os)
      .inspect()
      .catch((error: EngineError) => {
        if (error.statusCode !== 404)
          throw new Error(`the container engine does not answer as it should: ${error.message}`, { cause: error });
        throw new RefusedError(
          `blueprint ${name}: image.os: the engine has no image ${image.os}; pull or build it first`,
        );
      });
  }
}

function isLiving({ State }: Docker.ContainerInspectInfo): boolean {
  return State.Running || State.Paused || State.Restarting;
}

function limitsOf({ HostConfig }: Docker.ContainerInspectInfo): Limits {
  const { Memory, NanoCpus, PidsLimit } = HostConfig;
  const limits: Limits = { by: 'engine' };
  if (Memory) limits.memoryBytes = Memory;
  if (NanoCpus) limits.cpus = NanoCpus / 1e9;
  if (PidsLimit && PidsLimit > 0) limits.processes = PidsLimit;
  return limits;
}

/** For calls that fail because what they are to bring about is so already, or the container has gone. */
function unlessItIsSo(words: RegExp) {
  return (error: EngineError): void => {
    if (error.statusCode !== 404 && error.statusCode !== 304 && !words.test(error.message)) throw error as Error;
  };
}
