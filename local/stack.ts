/** The whole of Understudy on this machine: real servers and our own processes, started in order, watched, and stopped without a trace. */
import { randomBytes } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { stringify } from 'yaml';
import { type Settings, settingsSchema } from '../blueprints/settings';
import { ConfigurationStore } from '../blueprints/store';
import { envoyBootstrap } from '../envoy/bootstrap';
import { packageRoot } from '../package-root';
import { recordedCellProcesses, stopGroups } from './cell-processes';
import { prepareEnvoy } from './envoy';
import { createTopics, prepareKafka, topics } from './kafka';
import { ownProcess } from './own-processes';
import { releasePorts, reservePorts } from './ports';
import { isReachableByAll, preparePostgres } from './postgres';
import { ManagedProcess, type ProcessSpec } from './process';
import { Reaper } from './reaper-client';
import { prepareTemporal } from './temporal';

export const stackParts = [
  'kafka',
  'temporal',
  'postgres',
  'control-plane',
  'scoring-worker',
  'failover-worker',
  'envoy',
] as const;
export type StackPart = (typeof stackParts)[number];

/** Settings of a stack, section by section; addresses of what the stack itself starts are filled in. */
export type SettingsOverrides = {
  [Section in keyof Settings]?: Settings[Section] extends object ? Partial<Settings[Section]> : Settings[Section];
};

export interface StackOptions {
  /** Where logs and data go. A folder given here is kept when the stack stops. @default a new folder, removed at the end */
  dir?: string;
  /** What to start now; the rest can follow by `start`. @default all */
  parts?: readonly StackPart[];
  /** Leave logs and data when the stack stops. @default whether `dir` was given */
  keep?: boolean;
  /** Told, in a sentence, what has been started and what was restarted. */
  onProgress?: (sentence: string) => void;
  /** A server is gone that nobody stopped. @default throw, which ends a program that does not expect it */
  onFailure?: (error: Error) => void;
  settings?: SettingsOverrides;
  /** How many proxies. @default 1 */
  envoyCount?: number;
  /** Aborting it stops the stack, also while it is being started; `startStack` then throws. */
  signal?: AbortSignal;
}

export interface StackAddresses {
  /** Base URL. */
  temporalUi: string;
  temporal: string;
  kafka: string;
  postgresUrl: string;
  trafficApi: string;
  xds: string;
  /** Of each proxy, host:port. */
  envoyAdmin: string[];
}

export interface Stack {
  readonly dir: string;
  readonly settings: Settings;
  /** What the processes were started with. */
  readonly settingsFile: string;
  readonly addresses: StackAddresses;
  /** By part, `kafka`; a second proxy is `envoy-2`. Throws if it was never started. */
  process(name: string): ManagedProcess;
  /** All that were started, in that order. */
  readonly processes: readonly ManagedProcess[];
  /** Starts a part that was left out, or starts again what was killed, on the same ports and data. */
  start(part: StackPart): Promise<void>;
  /** Starts a program of the caller's beside the parts: watched, logged and stopped like them. */
  startAlso(spec: ProcessSpec): Promise<ManagedProcess>;
  /** Stops all, the cells' processes too. Safe to call again. */
  stop(): Promise<void>;
}

export async function startStack(options: StackOptions = {}): Promise<Stack> {
  options.signal?.throwIfAborted();
  const stack = await LocalStack.prepare(options);
  options.signal?.addEventListener('abort', () => void stack.stop(), { once: true });
  try {
    await stack.startAll(options.parts ?? stackParts);
  } catch (error) {
    // The error names a log file: leave it there.
    await stack.stop({ keep: true });
    throw error;
  }
  return stack;
}

interface Ports {
  kafka: number;
  kafkaController: number;
  temporal: number;
  temporalUi: number;
  temporalHttp: number;
  temporalMetrics: number;
  postgres: number;
  xds: number;
  trafficApi: number;
  operations: number;
  envoyAdmin: number[];
}

class LocalStack implements Stack {
  readonly settingsFile: string;
  settings!: Settings;
  addresses!: StackAddresses;
  private readonly started = new Map<string, ManagedProcess>();
  private readonly reaper = new Reaper();
  private stopping: Promise<void> | undefined;
  /** Starts that have not come to their end yet. */
  private readonly underWay = new Set<Promise<void>>();

  private constructor(
    readonly dir: string,
    private readonly ports: Ports,
    private readonly options: StackOptions,
  ) {
    this.settingsFile = join(dir, 'settings.yaml');
  }

  static async prepare(options: StackOptions): Promise<LocalStack> {
    const dir = resolve(options.dir ?? newRunDir());
    mkdirSync(dir, { recursive: true });
    // Postgres may run as another user, who has to get through.
    chmodSync(dir, 0o755);
    const stack = new LocalStack(dir, await portsOf(dir, options.envoyCount ?? 1), options);
    if (!stack.keep) stack.reaper.removeAtEnd(dir);
    stack.fillIn(`postgres://127.0.0.1:${stack.ports.postgres}/understudy`);
    stack.reaper.watchCells(stack.settings.processProvider.stateDir);
    return stack;
  }

  private get keep(): boolean {
    return this.options.keep ?? this.options.dir !== undefined;
  }

  /** Fixes addresses and settings, and writes the settings file. */
  private fillIn(postgresUrl: string): void {
    const at = (port: number) => `127.0.0.1:${port}`;
    const { ports } = this;
    this.addresses = {
      temporalUi: `http://${at(ports.temporalUi)}`,
      temporal: at(ports.temporal),
      kafka: at(ports.kafka),
      postgresUrl,
      trafficApi: at(ports.trafficApi),
      xds: at(ports.xds),
      envoyAdmin: ports.envoyAdmin.map(at),
    };
    const { addresses } = this;
    const wanted = this.options.settings ?? {};
    this.settings = settingsSchema.parse({
      ...wanted,
      kafka: { brokers: [addresses.kafka], ...wanted.kafka },
      temporal: { address: addresses.temporal, uiAddress: addresses.temporalUi, ...wanted.temporal },
      postgres: { url: addresses.postgresUrl, ...wanted.postgres },
      controlPlane: {
        xdsAddress: addresses.xds,
        trafficAddress: addresses.trafficApi,
        // Several processes cannot share it.
        ...((wanted.controlPlane?.processes ?? 1) === 1 && {
          operations: { address: at(ports.operations), tokenFile: this.operationsToken() },
        }),
        ...wanted.controlPlane,
      },
      processProvider: { stateDir: join(this.dir, 'cells'), ...wanted.processProvider },
    });
    // It holds the password of the database.
    writeFileSync(this.settingsFile, stringify(this.settings), { mode: 0o600 });
  }

  /** File with the token by which `understudy proxies` may ask; whoever may read the settings may read it. */
  private operationsToken(): string {
    const file = join(this.dir, 'operations-token');
    if (!existsSync(file)) writeFileSync(file, randomBytes(24).toString('hex'), { mode: 0o600 });
    return file;
  }

  /** Servers side by side, then the control plane and the workers, then the proxies. */
  async startAll(parts: readonly StackPart[]): Promise<void> {
    const wanted = (some: StackPart[]) => some.filter((part) => parts.includes(part));
    const orderly = [
      wanted(['kafka', 'temporal', 'postgres']),
      wanted(['control-plane', 'scoring-worker', 'failover-worker']),
      wanted(['envoy']),
    ];
    for (const together of orderly) {
      const results = await Promise.allSettled(together.map((part) => this.start(part)));
      const failure = results.find((result) => result.status === 'rejected');
      if (failure) throw failure.reason;
    }
  }

  async start(part: StackPart): Promise<void> {
    const since = Date.now();
    switch (part) {
      case 'kafka':
        await this.run('kafka', () =>
          prepareKafka(join(this.dir, 'kafka'), { broker: this.ports.kafka, controller: this.ports.kafkaController }),
        );
        await createTopics(
          this.addresses.kafka,
          topics(this.settings.kafka),
          () => !this.stopping && this.process('kafka').state === 'serving',
        );
        break;
      case 'temporal':
        await this.run('temporal', () =>
          prepareTemporal(join(this.dir, 'temporal'), this.temporalPorts(), this.settings.temporal.namespace),
        );
        break;
      case 'postgres':
        await this.startPostgres();
        break;
      case 'control-plane':
      case 'scoring-worker':
      case 'failover-worker':
        await this.run(part, () => ownProcess(part, join(this.dir, 'understudy'), this.settingsFile));
        break;
      case 'envoy':
        await Promise.all(this.ports.envoyAdmin.map((port, index) => this.startEnvoy(port, index)));
        break;
    }
    this.options.onProgress?.(`${part} serves after ${((Date.now() - since) / 1000).toFixed(1)} s`);
  }

  async startAlso(spec: ProcessSpec): Promise<ManagedProcess> {
    await this.run(spec.name, () => spec);
    return this.process(spec.name);
  }

  private temporalPorts() {
    const { temporal, temporalUi, temporalHttp, temporalMetrics } = this.ports;
    return { frontend: temporal, ui: temporalUi, http: temporalHttp, metrics: temporalMetrics };
  }

  private async startPostgres(): Promise<void> {
    const dir = join(this.dir, 'postgres');
    let createDatabase: (() => Promise<void>) | undefined;
    await this.run('postgres', async () => {
      const prepared = await preparePostgres(dir, this.ports.postgres);
      createDatabase = () => prepared.createDatabase();
      this.fillIn(prepared.url);
      return prepared.spec;
    });
    await createDatabase?.();
    const store = await ConfigurationStore.connect(this.addresses.postgresUrl, { maxConnections: 1 });
    try {
      await store.migrate();
    } finally {
      await store.close();
    }
  }

  private async startEnvoy(adminPort: number, index: number): Promise<void> {
    const name = index === 0 ? 'envoy' : `envoy-${index + 1}`;
    const bootstrap = envoyBootstrap({
      nodeId: name,
      cluster: 'understudy',
      xdsAddress: this.settings.controlPlane.xdsAddress,
      adminPort,
    });
    await this.run(name, () => prepareEnvoy(name, join(this.dir, 'envoy'), bootstrap, adminPort));
  }

  /** Starts a process by its description, or again the one that was already made from it. */
  private async run(name: string, prepare: () => ProcessSpec | Promise<ProcessSpec>): Promise<void> {
    const starting = this.prepareAndStart(name, prepare);
    this.underWay.add(starting);
    try {
      await starting;
    } finally {
      this.underWay.delete(starting);
    }
  }

  private async prepareAndStart(name: string, prepare: () => ProcessSpec | Promise<ProcessSpec>): Promise<void> {
    let managed = this.started.get(name);
    if (!managed) {
      const spec = await prepare();
      managed = new ManagedProcess(spec, this.reaper, {
        onLost: (_, reason) => this.fail(new Error(`The local stack has lost a process: ${reason}`)),
        onRestart: (_, reason) => this.options.onProgress?.(`${reason}\n${name} is started again`),
      });
      this.started.set(name, managed);
    }
    if (this.stopping) throw new Error(`${name} was not started: the stack is being stopped.`);
    await managed.start();
  }

  private fail(error: Error): void {
    if (this.stopping) return;
    if (this.options.onFailure) this.options.onFailure(error);
    else
      setImmediate(() => {
        throw error;
      });
  }

  get processes(): readonly ManagedProcess[] {
    return [...this.started.values()];
  }

  process(name: string): ManagedProcess {
    const found = this.started.get(name);
    if (found) return found;
    throw new Error(`The stack has no process ${name}; it has ${[...this.started.keys()].join(', ') || 'none'}.`);
  }

  stop({ keep = this.keep } = {}): Promise<void> {
    this.stopping ??= this.stopAll(keep);
    return this.stopping;
  }

  private async stopAll(keep: boolean): Promise<void> {
    const looks = await Promise.allSettled([...beforeStop].map((look) => look(this)));
    await this.stopProcesses(keep);
    for (const look of looks) if (look.status === 'rejected') throw look.reason;
  }

  private async stopProcesses(keep: boolean): Promise<void> {
    // What is being prepared must not write into a folder that is being removed.
    for (const managed of this.processes) if (managed.state === 'starting') await managed.stop();
    await Promise.allSettled(this.underWay);
    const { stateDir } = this.settings.processProvider;
    const servers = ['kafka', 'temporal', 'postgres'];
    const ours = this.processes.filter(({ name }) => !servers.includes(name));
    // First who could start or steer something new, last what they depend on.
    for (const managed of ours.reverse()) await managed.stop();
    await stopGroups(recordedCellProcesses(stateDir));
    await Promise.all(servers.map(async (name) => this.started.get(name)?.stop()));
    if (keep) this.reaper.keep(this.dir);
    await this.reaper.close();
    releasePorts(Object.values(this.ports).flat() as number[]);
    if (!keep) rmSync(this.dir, { recursive: true, force: true });
  }
}

/** Called with each stack of this process before it stops; what fails there fails `stop`, after all is stopped. */
export const beforeStop = new Set<(stack: Stack) => Promise<void>>();

/** The ports of the last run in this folder, where they are still free: what was told of them stays true. */
async function portsOf(dir: string, envoys: number): Promise<Ports> {
  const file = join(dir, 'ports.json');
  const before = existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as number[]) : [];
  const ports = await reservePorts(10 + envoys, before);
  writeFileSync(file, JSON.stringify(ports));
  const next = () => ports.shift()!;
  return {
    kafka: next(),
    kafkaController: next(),
    temporal: next(),
    temporalUi: next(),
    temporalHttp: next(),
    temporalMetrics: next(),
    postgres: next(),
    xds: next(),
    trafficApi: next(),
    operations: next(),
    envoyAdmin: ports,
  };
}

let runsOfThisProcess = 0;

/** A new folder for one run: below `.runs/`, or in the system's temporary folder if Postgres' user cannot get there. */
function newRunDir(): string {
  const isReachable = process.getuid?.() !== 0 || isReachableByAll(packageRoot);
  const parent = isReachable ? join(packageRoot, '.runs') : join(tmpdir(), 'understudy-runs');
  const time = new Date().toISOString().slice(0, 19).replace(/[-:]/g, '').replace('T', '-');
  for (;;) {
    const dir = join(parent, `${time}-${process.pid}-${++runsOfThisProcess}`);
    if (!existsSync(dir)) return dir;
  }
}

/** What was started and where, for a person; the Temporal UI first. */
export function formatStack(stack: Stack): string {
  const { addresses, settingsFile, dir } = stack;
  const { hostname, port, pathname } = new URL(addresses.postgresUrl);
  const all: [string, string, string][] = [
    ['temporal', 'Temporal UI', addresses.temporalUi],
    ['temporal', 'Temporal', addresses.temporal],
    ['kafka', 'Kafka', addresses.kafka],
    ['postgres', 'Postgres', `${hostname}:${port}${pathname} (URL with password: see settings)`],
    ['control-plane', 'Traffic API', addresses.trafficApi],
    ['control-plane', 'xDS', addresses.xds],
    ...addresses.envoyAdmin.map((address): [string, string, string] => ['envoy', 'Envoy admin', `http://${address}`]),
  ];
  const running = new Set(stack.processes.map(({ name }) => name));
  const lines = all.filter(([part]) => running.has(part)).map(([, title, where]) => [title, where]);
  lines.push(['Settings', settingsFile], ['Logs and data', dir]);
  for (const { name, pid } of stack.processes) lines.push([`  ${name}`, `pid ${pid ?? '-'}`]);
  return lines.map(([title, where]) => `${title!.padEnd(16)} ${where}`).join('\n');
}
