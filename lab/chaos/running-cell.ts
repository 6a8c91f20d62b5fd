/** One cell of an episode while it runs: its instance, what it depends on, its callers, its faults and its telemetry. */
import { spawn, type ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import { packageRoot } from '../../package-root';
import type { InstanceConfig, Peer } from '../contract';
import { seededRandom } from '../random';
import { runnerOrders, type Order, type RunnerOrder } from './catalogue';
import { CellLoad } from './cell-load';
import { Instance } from './instance';
import { CellGroups, labRunsDir, mountSmall } from './limits';
import { rateAt } from './load-plan';
import { OutsideView, type Metrics } from './outside';
import type { CellPlan, EpisodePlan } from './plan';
import { RoundTrip } from './round-trip';
import { commandOf, serviceKinds } from './services';
import { TcpProxy } from './tcp-proxy';

/** Servers that the recording started, by kind of dependency. */
export interface Servers {
  /** With user, password and database. */
  postgresUrl?: string | undefined;
  kafka?: Peer | undefined;
}

interface Watched {
  instance: Instance;
  view: OutsideView;
}

/** What was said of one instance at one step: by itself and by those who watch it. */
export interface StepRecord {
  instance: string;
  atMs: number;
  metrics: Metrics;
}

const neighbourWeightCores = 1;

export class RunningCell {
  readonly records = new Map<string, StepRecord>();
  load!: CellLoad;
  private readonly random: () => number;
  private readonly groups: CellGroups;
  private readonly helpers: CellGroups;
  private readonly stops: (() => Promise<void> | void)[] = [];
  private readonly neighbours: ChildProcess[] = [];
  private watched: Watched[] = [];
  private current!: Instance;
  private starts = 0;
  private front: TcpProxy | undefined;
  private roundTrip: RoundTrip | undefined;
  private dependency: TcpProxy | undefined;
  private dir: string | undefined;
  private loadFactor = 1;
  private readonly orders: Order[];

  constructor(
    private readonly episode: EpisodePlan,
    readonly plan: CellPlan,
    private readonly run: string,
    private readonly servers: Servers,
  ) {
    const { variant, seed } = episode;
    this.random = seededRandom(seed ^ (plan.name.length * 7919 + Number(plan.name.slice(-1)) * 104_729));
    // The report writer limits its own address space: files in memory would count against a group's limit.
    const memoryLimitBytes = variant.service === 'reports' ? undefined : variant.memoryLimitBytes;
    this.groups = new CellGroups(`${run}/${plan.name}`, { memoryLimitBytes });
    this.helpers = new CellGroups(`${run}/${plan.name}-helpers`, {});
    this.orders = [...plan.faults, ...plan.lookAlikes].flatMap((e) => e.orders).sort((a, b) => a.atS - b.atS);
  }

  /** Starts what the cell depends on, the cell and its callers' way to it; no load yet. */
  async start(): Promise<void> {
    const { variant } = this.episode;
    if (variant.diskBytes !== undefined) {
      this.dir = join(labRunsDir, this.run, this.plan.name);
      mountSmall(this.dir, variant.diskBytes);
    }
    const target = await this.startDependency();
    if (target) {
      this.dependency = await TcpProxy.start(target, this.random);
      this.stops.push(() => this.dependency?.stop());
    }
    this.current = await this.startInstance();
    if (this.plan.proxied) {
      this.front = await TcpProxy.start({ host: '127.0.0.1', port: this.current.port }, this.random);
      this.roundTrip = await RoundTrip.through(this.front, this.random);
      this.stops.push(
        () => this.roundTrip?.stop(),
        () => this.front?.stop(),
      );
    }
    const { callers, sloMs, stepMs } = { ...this.episode, sloMs: variant.sloMs };
    this.load = new CellLoad({
      port: this.front?.port ?? this.current.port,
      ratePerSecond: rateAt(this.plan.load, 0),
      path: this.pathMaker(),
      stepMs,
      sloMs,
      timeoutMs: callers.timeoutMs,
      retries: callers.retries,
      seed: Math.floor(this.random() * 2 ** 32),
    });
  }

  /** The quota holds from here on: under it the start itself would take a minute. */
  startLoad(): void {
    const { cpuQuota } = this.episode.variant;
    if (cpuQuota !== undefined) this.groups.limitCpu(cpuQuota);
    this.load.start();
  }

  /** Gives the orders that are due and sets the load. */
  advance(atS: number): void {
    for (let order = this.orders[0]; order && order.atS <= atS; order = this.orders[0]) {
      this.orders.shift();
      this.give(order);
    }
    this.load.setRate(rateAt(this.plan.load, atS) * this.loadFactor);
  }

  /** When the instance that serves ended without being asked to; undefined while it lives. */
  get diedMs(): number | undefined {
    return this.current.stopping ? undefined : this.current.endedMs;
  }

  /** What is seen from outside at the end of a step. */
  look(atMs: number): void {
    const { stepMs, callers } = this.episode;
    const shared: Metrics = {};
    const rttS = this.roundTrip?.take();
    if (rttS !== undefined) shared['network.rtt_s'] = rttS;
    const counts = this.front?.takeCounts();
    if (counts && counts.pieces > 0) shared['network.retransmit_ratio'] = counts.stalled / counts.pieces;
    const retryRatio = callers.retries > 0 ? this.load.retryRatio(atMs - stepMs) : undefined;
    if (retryRatio !== undefined) shared['retry.ratio'] = retryRatio;
    for (const { instance, view } of this.watched) {
      const seen = view.read();
      if (!seen) continue;
      const isCurrent = instance === this.current;
      Object.assign(this.recordOf(instance.name, atMs).metrics, isCurrent ? shared : {}, seen);
    }
    this.watched = this.watched.filter(({ instance }) => instance.endedMs === undefined);
  }

  async stop(): Promise<void> {
    this.load?.stop();
    for (const neighbour of this.neighbours) neighbour.kill('SIGKILL');
    await Promise.allSettled(this.watched.map(({ instance }) => instance.stop()));
    for (const stop of this.stops.reverse()) await stop();
  }

  private recordOf(instance: string, atMs: number): StepRecord {
    const key = `${instance} ${atMs}`;
    let record = this.records.get(key);
    if (!record) this.records.set(key, (record = { instance, atMs, metrics: {} }));
    return record;
  }

  private pathMaker(): (random: () => number) => string {
    const { service, knobs } = this.episode.variant;
    if (service !== 'lookup') return (random) => `/work?key=${Math.floor(1e6 * random())}`;
    // Most requests are for few keys, so that a cache of a fifth of them answers four in five.
    const keys = knobs['keys'] ?? 5000;
    return (random) => `/work?key=${Math.floor(keys * random() ** 8)}`;
  }

  private async startDependency(): Promise<Peer | undefined> {
    const { variant } = this.episode;
    const local = (port: number): Peer => ({ host: '127.0.0.1', port });
    const name = `${this.plan.name}-behind`;
    const startHelper = async (program: string, ...args: string[]): Promise<Peer> => {
      const helper = await Instance.start({
        name,
        command: [
          process.execPath,
          '--max-old-space-size=64',
          join(packageRoot, 'dist', 'lab', 'services', program),
          ...args,
        ],
        fdLimit: 1024,
        groups: this.helpers,
        env: process.env,
        onStep: () => undefined,
      });
      this.stops.push(() => helper.stop());
      return local(helper.port);
    };
    switch (serviceKinds[variant.service].dependency) {
      case undefined:
        return undefined;
      case 'kafka':
        return this.servers.kafka;
      case 'postgres': {
        const { hostname, port } = new URL(this.servers.postgresUrl ?? '');
        return { host: hostname, port: Number(port || 5432) };
      }
      case 'store':
      case 'downstream':
        return startHelper('store.js', '--config', JSON.stringify({ port: 0, ...variant.store }));
    }
  }

  private async startInstance(): Promise<Instance> {
    const { variant, stepMs } = this.episode;
    const name = `${this.plan.name}-${++this.starts}`;
    const config: InstanceConfig = {
      service: variant.service,
      cell: this.plan.name,
      instance: name,
      port: 0,
      stepMs,
      slots: variant.slots,
      serviceMs: variant.serviceMs,
      knobs: { changeAgeS: 600 + Math.floor(86_400 * this.random()), ...variant.knobs },
      ...(this.dir === undefined ? {} : { dir: this.dir }),
      ...(this.dependency ? { dependency: { host: '127.0.0.1', port: this.dependency.port } } : {}),
      ...(variant.memoryLimitBytes === undefined ? {} : { memoryLimitBytes: variant.memoryLimitBytes }),
    };
    const instance = await Instance.start({
      name,
      command: [...commandOf(variant), JSON.stringify(config)],
      fdLimit: variant.fdLimit,
      groups: this.groups,
      env: { ...process.env, LAB_POSTGRES_URL: this.servers.postgresUrl ?? '' },
      onStep: ({ at, metrics }) => {
        // What is seen from outside of a metric is what an operator would have; the instance's own word comes second.
        const record = this.recordOf(name, at);
        record.metrics = { ...metrics, ...record.metrics };
      },
    });
    const view = new OutsideView({
      pid: instance.pid,
      startedMs: instance.startedMs,
      restarts: 0,
      groups: this.groups,
      cpuQuota: variant.cpuQuota,
      memoryLimitBytes: variant.memoryLimitBytes,
      fdLimit: variant.fdLimit,
      dir: this.dir,
    });
    this.watched.push({ instance, view });
    return instance;
  }

  private give({ kind, level, release }: Order): void {
    if (!(kind in runnerOrders)) {
      this.current.order({
        fault: kind as Exclude<typeof kind, RunnerOrder>,
        level,
        ...(release === undefined ? {} : { release }),
      });
      return;
    }
    switch (kind as RunnerOrder) {
      case 'network-delay':
        // It varies by a tenth, as ways through real networks do.
        if (this.front) Object.assign(this.front.levels, { delayMs: level, jitterMs: level / 20 });
        break;
      case 'network-stall':
        if (this.front) this.front.levels.stallShare = level;
        break;
      case 'dependency-delay':
        if (this.dependency) Object.assign(this.dependency.levels, { delayMs: level, jitterMs: level / 20 });
        break;
      case 'dependency-stall':
        if (this.dependency) this.dependency.levels.stallShare = level;
        break;
      case 'neighbour':
        this.setNeighbours(level);
        break;
      case 'load':
        this.loadFactor = level > 0 ? level : 1;
        break;
      case 'kill':
        this.current.kill();
        break;
      case 'rolling-restart':
        this.restart().catch((error: Error) => process.stderr.write(`${this.plan.name}: ${error.message}\n`));
        break;
    }
  }

  private setNeighbours(cores: number): void {
    while (this.neighbours.length < Math.ceil(cores / neighbourWeightCores)) {
      const child = spawn(process.execPath, [join(packageRoot, 'dist', 'lab', 'chaos', 'neighbour.js')], {
        stdio: ['pipe', 'ignore', 'ignore'],
      });
      if (child.pid !== undefined) this.groups.addNeighbour(child.pid);
      child.stdin?.on('error', () => undefined);
      this.neighbours.push(child);
    }
    for (const [index, child] of this.neighbours.entries()) {
      child.stdin?.write(`${Math.min(1, Math.max(0, cores - index))}\n`);
    }
  }

  /** The new instance serves before the old one goes. */
  private async restart(): Promise<void> {
    const old = this.current;
    const next = await this.startInstance();
    if (old.endedMs !== undefined) return;
    this.current = next;
    old.stopping = true;
    if (this.front) this.front.setTarget({ host: '127.0.0.1', port: next.port });
    this.load.setPort(this.front?.port ?? next.port);
    await old.drain();
  }
}
