/** One arm of one run: its two cells, its callers, and the fault that strikes its first cell. */
import type { Instance } from '../../blueprints/schema';
import { runnerOrders, type Order, type RunnerOrder } from '../../lab/chaos/catalogue';
import { TcpProxy } from '../../lab/chaos/tcp-proxy';
import type { Peer } from '../../lab/contract';
import { OpenLoopLoad, type LoadFigures, type LoadReport } from '../../lab/load';
import { findSpans } from '../../lab/onset';
import { seededRandom } from '../../lab/random';
import type { ArmName } from './arms';
import { pathsOf, type Case } from './cases';
import { blueprintOf, letters, type Letter } from './deployment';
import type { Ground } from './ground';
import type { ArmResult } from './result';

/** From this share of failed or late requests on, a second is bad; three in a row are a failure. As in the lab. */
const badShare = 0.05;
const badSecondsInARow = 3;

export interface ArmContext {
  ground: Ground;
  play: Case;
  /** Names the run; in the lab's limits it begins with this process's id. */
  run: string;
  /** Where callers reach the service. */
  port: number;
}

export abstract class Arm {
  readonly service: string;
  protected beganMs = 0;
  private readonly proxies = new Map<Letter, TcpProxy>();
  private pids: number[] = [];
  private sourceInstances: Instance[] = [];
  private load!: OpenLoopLoad;
  private before: LoadReport | undefined;
  private diedAtS: number | null = null;

  constructor(
    readonly name: ArmName,
    protected readonly context: ArmContext,
  ) {
    this.service = `${context.play.fault}-${context.play.seed}-${name}`;
  }

  /** Starts the cells; callers may come when it resolves. */
  abstract start(): Promise<void>;
  /** Once the load has begun. */
  protected abstract begin(): void;
  /** Called each second of the load with the requests that ended in it. */
  protected seen(_second: { requests: number; bad: number }): void {}
  /** What there is to say beyond what callers saw. */
  protected abstract account(endMs: number): Promise<Pick<ArmResult, 'standbyS' | 'falseShifts' | 'understudy'>>;
  /** Lets go of what goes on by itself. */
  abstract stop(): Promise<void>;

  protected get source(): string {
    return `${this.service}-a`;
  }

  get url(): string {
    return `http://127.0.0.1:${this.context.port}`;
  }

  /** The blueprint of a cell of this arm; its dependency, if it has one, is started on the first call. */
  protected async blueprint(letter: Letter) {
    const { deployment } = this.context.play;
    const cell = `${this.service}-${letter}`;
    return blueprintOf(deployment, cell, this.context.run, await this.dependency(letter));
  }

  protected get declared(): readonly Letter[] {
    return letters.slice(0, 2);
  }

  /** Every cell has a way of its own to a store of its own, and what is made from it goes the same way. */
  private async dependency(letter: Letter): Promise<Peer | undefined> {
    const { store } = this.context.play.deployment.variant;
    if (!store) return undefined;
    const peer = await this.context.ground.startStore(`${this.service}-${letter}-store`, store);
    const proxy = await TcpProxy.start(peer, seededRandom(this.context.play.seed));
    this.proxies.set(letter, proxy);
    return { host: '127.0.0.1', port: proxy.port };
  }

  /** From now on callers come. All arms are called at the same moment. */
  startLoad(): void {
    this.beganMs = Date.now();
    this.load = this.newLoad(this.context.play.seed);
    this.load.start();
    this.begin();
  }

  /** What callers have seen so far, of the requests that have ended. */
  quietFigures(): LoadFigures {
    return this.load.snapshot();
  }

  expectedRequests(seconds: number): number {
    return this.context.play.deployment.ratePerSecond * seconds;
  }

  /** From now on what callers see counts. */
  measure(): void {
    const before = this.load;
    this.load = this.newLoad(this.context.play.seed + 1000);
    this.load.onSecond(({ requests, failed, overSlo }) => this.seen({ requests, bad: failed + overSlo }));
    this.load.start();
    void before.stop().then((report) => (this.before = report));
  }

  private newLoad(seed: number): OpenLoopLoad {
    const { deployment } = this.context.play;
    const { sloMs } = deployment.variant;
    return new OpenLoopLoad({
      urls: this.url,
      ratePerSecond: deployment.ratePerSecond,
      arrivals: 'poisson',
      paths: pathsOf(deployment, this.context.play.seed),
      sloMs,
      timeoutMs: Math.max(1500, 2 * sloMs),
      seed,
    });
  }

  /** Who the fault is to strike, as they stand when the load begins. */
  async know(): Promise<void> {
    const { instances } = await this.context.ground.provider.observe(this.source);
    this.sourceInstances = instances.map(({ name, address, port }) => ({ name, address, port }));
    this.pids = instances.flatMap(({ pid }) => pid ?? []);
  }

  /** A process that is gone unasked is a failure, whatever callers see of it. */
  watch(): void {
    if (this.diedAtS === null && !this.pids.every(isAlive)) this.diedAtS = (Date.now() - this.beganMs) / 1000;
  }

  give({ kind, level, release }: Order): void {
    if (!(kind in runnerOrders)) {
      const order = JSON.stringify({ fault: kind, level, ...(release === undefined ? {} : { release }) });
      for (const instance of this.sourceInstances) void post(instance, '/admin/fault', order);
      return;
    }
    const way = this.proxies.get('a');
    switch (kind as RunnerOrder) {
      case 'dependency-delay':
        if (way) Object.assign(way.levels, { delayMs: level, jitterMs: level / 20 });
        return;
      case 'dependency-stall':
        if (way) way.levels.stallShare = level;
        return;
      case 'load':
        this.load.setRate(this.context.play.deployment.ratePerSecond * (level > 0 ? level : 1));
        return;
      case 'kill':
        for (const pid of this.pids) process.kill(pid, 'SIGKILL');
        return;
      case 'network-delay':
      case 'network-stall':
      case 'neighbour':
      case 'rolling-restart':
        throw new Error(`This bench cannot give the order ${kind}.`);
    }
  }

  /** Ends the load and closes the books. */
  async end(): Promise<ArmResult> {
    const endMs = Date.now();
    const report = await this.load.stop();
    const all = [...(this.before?.seconds ?? []), ...report.seconds];
    const badPerS: number[] = [];
    const asked: number[] = [];
    for (const { atMs, requests, failed, overSlo } of all) {
      const second = Math.max(0, Math.round((atMs - this.beganMs) / 1000));
      badPerS[second] = (badPerS[second] ?? 0) + failed + overSlo;
      asked[second] = (asked[second] ?? 0) + requests;
    }
    const bad = Array.from(badPerS, (count) => count ?? 0);
    const steps = bad.map((count, second) => ({
      atMs: second,
      bad: count >= badShare * Math.max(1, asked[second] ?? 0),
    }));
    const fromS = Math.floor(this.context.play.faultAtS);
    const suffering = findSpans(steps.slice(fromS), badSecondsInARow)[0]?.onsetMs ?? null;
    const failures = [suffering, this.diedAtS].filter((at) => at !== null);
    return {
      requests: report.totals.requests,
      failed: report.totals.failed,
      overSlo: report.totals.overSlo,
      p99Ms: Math.round(report.totals.p99Ms ?? 0),
      failures: report.failures,
      badPerS: bad,
      badBefore: (this.before?.totals.failed ?? 0) + (this.before?.totals.overSlo ?? 0),
      failedAtS: failures.length > 0 ? Math.round(10 * Math.min(...failures)) / 10 : null,
      ...(await this.account(endMs)),
    };
  }

  async stopWays(): Promise<void> {
    await Promise.all([...this.proxies.values()].map((proxy) => proxy.stop()));
  }

  /** Ends a load that nobody will ask about. */
  abandon(): void {
    void (this.load as OpenLoopLoad | undefined)?.stop();
  }
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

/** What is dying need not answer. */
async function post({ address, port }: Instance, path: string, body: string): Promise<void> {
  const signal = AbortSignal.timeout(3000);
  await fetch(`http://${address}:${port}${path}`, { method: 'POST', body, signal }).then(
    async (answer) => {
      if (answer.status === 400) process.stderr.write(`${address}:${port} refused ${body}: ${await answer.text()}\n`);
    },
    () => undefined,
  );
}
