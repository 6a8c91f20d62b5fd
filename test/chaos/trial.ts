/** One failover under attack: a service with its cells, callers and workers of its own, and everything that is needed to judge it afterwards. */
import { spawn, type ChildProcess } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { WorkflowFailedError } from '@temporalio/client';
import { CancelledFailure, TerminatedFailure } from '@temporalio/common';
import { releasePorts, reservePorts } from '../../local/ports';
import { GiveUp, waitUntil } from '../../local/wait';
import type { RiskEvent, RiskLevel } from '../../prediction/contracts';
import {
  failoverWorkflowId,
  signalNames,
  workflowTypes,
  type FailoverResult,
  type Override,
  type OverrideAnswer,
  type Phase,
} from '../../workflows/messages';
import { orderFailover } from '../../cli/failover/orders';
import { riskEvent } from '../support/failover-world';
import { OpenLoad } from '../support/open-load';
import type { Bench } from './bench';
import { applyService, callEveryMs, isServed, policyOf } from './services';
import type { WorkerOrders } from './chaos-worker';
import { Cloud, type Lies } from './cloud';
import type { Fault, Witnessed } from './watched-ports';

export interface TrialOptions {
  policy?: Record<string, unknown>;
  /** Of a cell, requests per second. */
  capacity?: number;
  readinessS?: number;
  /** Of reading requests, for which a copy goes to a source without a share. */
  mirrorPercent?: number;
  /** Keeps as many idle cells as are worth their cost. */
  keepsPool?: boolean;
  fault?: Fault | undefined;
  lies?: Lies | undefined;
  maxCachedWorkflows?: number | undefined;
  publishes?: boolean | undefined;
  limitS?: number | undefined;
}

/** What became of the run, as Temporal says it. */
export type Ending = FailoverResult | { outcome: 'cancelled' | 'terminated'; reason: string };

const tellEveryMs = 1000;
const workerScript = join(__dirname, 'chaos-worker.js');

export class Trial {
  readonly source: string;
  readonly peer: string;
  readonly failover: string;
  readonly episode = randomUUID();
  cloud!: Cloud;
  load!: OpenLoad;
  /** Every worker that was ever started. */
  readonly workers: ChildProcess[] = [];
  /** When workers died unasked. */
  readonly deathsMs: number[] = [];
  sourceDiedMs: number | null = null;
  private port!: number;
  private level: RiskLevel | null = null;
  private lead = { p10: 300, p50: 400, p90: 500 };
  private isOver = false;
  private storiesLeft = 0;
  private readonly folder: string;
  private teller: Promise<void> | undefined;
  /** The last word on the risk, on its way. */
  private telling = Promise.resolve();
  private trouble: Error | undefined;
  private readonly deadlineMs: number;

  private constructor(
    readonly bench: Bench,
    readonly service: string,
    readonly options: TrialOptions,
  ) {
    this.source = `${service}-a`;
    this.peer = `${service}-b`;
    this.failover = failoverWorkflowId(service, this.source);
    this.folder = join(bench.stack.dir, 'rows', service);
    this.deadlineMs = Date.now() + (options.limitS ?? 300) * 1000;
  }

  static async begin(bench: Bench, options: TrialOptions): Promise<Trial> {
    const trial = new Trial(bench, bench.nextService(), options);
    try {
      await trial.setUp();
      return trial;
    } catch (error) {
      await trial.end();
      throw error;
    }
  }

  private async setUp(): Promise<void> {
    const { service, options } = this;
    mkdirSync(this.folder, { recursive: true });
    this.cloud = await Cloud.open();
    [this.port] = (await reservePorts(1)) as [number];
    await applyService(this.bench.store, this.cloud, {
      service,
      port: this.port,
      policy: policyOf(options.policy),
      ...(options.capacity !== undefined && { capacity: options.capacity }),
      ...(options.mirrorPercent !== undefined && { mirrorPercent: options.mirrorPercent }),
      ...(options.keepsPool && { keepsPool: true }),
      ...(options.readinessS !== undefined && { readinessS: options.readinessS }),
    });
    this.cloud.lies = options.lies ?? {};
    await Promise.all([
      waitUntil(() => isServed(this.port), { withinMs: 60_000, what: `Envoy serves ${service}` }),
      this.startWorker(options.fault ?? null),
    ]);
    this.load = new OpenLoad(this.port, callEveryMs);
    this.teller = this.keepTelling();
  }

  get journalFile(): string {
    return join(this.folder, 'journal');
  }

  get journal(): Witnessed[] {
    if (!existsSync(this.journalFile)) return [];
    const lines = readFileSync(this.journalFile, 'utf8').trim().split('\n');
    return lines.filter(Boolean).map((line) => JSON.parse(line) as Witnessed);
  }

  /** Resolves once it polls. A worker that is killed is followed by another, without the fault. */
  async startWorker(fault: Fault | null): Promise<void> {
    const orders: WorkerOrders = {
      settingsFile: this.bench.stack.settingsFile,
      taskQueue: this.service,
      service: this.service,
      cloudPort: this.cloud.port,
      journal: this.journalFile,
      bundle: this.bench.bundle,
      fault,
      maxCachedWorkflows: this.options.maxCachedWorkflows ?? 50,
      publishes: this.options.publishes ?? false,
    };
    const file = join(this.folder, `worker-${this.workers.length + 1}.json`);
    writeFileSync(file, JSON.stringify(orders));
    const child = spawn(process.execPath, ['--enable-source-maps', workerScript, file], {
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    this.workers.push(child);
    let said = '';
    let isReady = false;
    child.stderr.on('data', (text: Buffer) => (said += String(text)));
    child.stdout.on('data', (text: Buffer) => (isReady ||= String(text).includes('ready')));
    child.once('exit', (code, signal) => {
      if (this.isOver || this.stopped.has(child)) return;
      if (signal !== 'SIGKILL')
        this.trouble = new Error(`a worker ended by itself (${signal ?? code}): ${said.slice(-2000)}`);
      this.deathsMs.push(Date.now());
      if (!this.isOver) this.startWorker(null).catch((err: unknown) => (this.trouble = err as Error));
    });
    await waitUntil(() => isReady || child.exitCode !== null || child.signalCode !== null, {
      withinMs: 60_000,
      what: `a worker of ${this.service} polls (${said.slice(-500)})`,
    });
  }

  private readonly stopped = new Set<ChildProcess>();

  /** kill -9 of whatever worker runs; another follows. */
  killWorker(): void {
    this.workers.at(-1)?.kill('SIGKILL');
  }

  /** kill -9, and nobody follows until `startWorker`. */
  async removeWorker(): Promise<void> {
    const child = this.workers.at(-1)!;
    this.stopped.add(child);
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exited = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await exited;
  }

  /** The scoring worker's part: the level is told now, and again while it is not `clear`. */
  async tell(level: RiskLevel, lead = this.lead): Promise<void> {
    if (this.isStoryOver) throw new GiveUp('the story was left');
    this.level = level;
    this.lead = lead;
    if (level === 'clear') await this.surely(() => this.signal(this.event('clear')));
  }

  /** The risk is not told any more once this has resolved: a signal that came late would begin a failover anew. */
  silence(): Promise<void> {
    this.level = null;
    return this.telling;
  }

  event(level: RiskLevel, overrides: Partial<RiskEvent> = {}): RiskEvent {
    const nowMs = Date.now();
    const event = riskEvent(level, nowMs);
    const about = { service: this.service, cell: this.source, episodeId: this.episode };
    return {
      ...event,
      ...about,
      eventId: `${this.episode}#${nowMs}#${level}`,
      timeToFailureS: this.lead,
      ...overrides,
    };
  }

  async signal(event: RiskEvent): Promise<void> {
    await this.bench.client.withDeadline(Date.now() + 3000, () =>
      this.bench.client.workflow.signalWithStart(workflowTypes.predictiveFailover, {
        workflowId: this.failover,
        taskQueue: this.service,
        args: [{ service: this.service, cell: this.source }],
        signal: signalNames.riskChanged,
        signalArgs: [event],
      }),
    );
  }

  order(override: Partial<Override> & Pick<Override, 'action'>): Promise<OverrideAnswer> {
    return this.surely(() =>
      orderFailover(this.bench.client, this.failover, { by: 'ada', reason: 'test', ...override }),
    );
  }

  private async keepTelling(): Promise<void> {
    while (!this.isOver) {
      if (this.level && this.level !== 'clear') {
        this.telling = this.signal(this.event(this.level)).catch(() => undefined);
        await this.telling;
      }
      await pause(tellEveryMs);
    }
  }

  /** Waits, within the time of the row; what goes wrong with its workers ends the wait. */
  until<T>(
    what: string,
    look: () => Promise<T | false | null | undefined> | T | false | null | undefined,
    everyMs = 100,
  ): Promise<T> {
    const { storiesLeft } = this;
    return waitUntil(
      () => {
        if (this.trouble) throw new GiveUp(this.trouble.message);
        if (this.storiesLeft !== storiesLeft) throw new GiveUp(`${what}: nobody waits for it any more`);
        return look();
      },
      { withinMs: Math.max(1, this.deadlineMs - Date.now()), everyMs, what: `${this.service}: ${what}` },
    );
  }

  /** Whoever waits in the story waits no longer, and the story tells nothing more. */
  leaveStory(): Promise<void> {
    this.storiesLeft += 1;
    return this.silence();
  }

  get isStoryOver(): boolean {
    return this.storiesLeft > 0;
  }

  get handle() {
    return this.bench.client.workflow.getHandle(this.failover);
  }

  async hasEnded(): Promise<boolean> {
    return (await this.handle.describe()).status.name !== 'RUNNING';
  }

  /** Whether every activity that was begun by a worker that lives has come to an end. */
  get isIdle(): boolean {
    const { pid } = this.workers.at(-1)!;
    const whole = this.journal.filter((w) => w.effect === 'itself' && w.pid === pid && w.stage !== 'fault');
    const begun = whole.filter(({ stage }) => stage === 'begun').length;
    return begun === whole.length - begun;
  }

  /** Since traffic was first moved. */
  movedAgoMs(): number {
    const first = this.journal.find((w) => w.effect === 'traffic.applySplit' && w.stage === 'done');
    return first ? Date.now() - first.atMs : 0;
  }

  /** Servers may be away for a moment: asked until it is answered. */
  surely<T>(ask: () => Promise<T>): Promise<T> {
    return this.until('an answer', async () => ({ answer: await ask() })).then(({ answer }) => answer);
  }

  async shares(): Promise<Record<string, number>> {
    const split = (await this.bench.store.traffic(this.service))?.split ?? [];
    return Object.fromEntries(split.map((s) => [s.cell, s.shareBp]));
  }

  async synthetic() {
    return (await this.bench.store.cells(this.service)).filter(({ role }) => role === 'synthetic');
  }

  untilMoved(atLeastBp: number): Promise<unknown> {
    return this.until(
      `${atLeastBp} bp are moved`,
      async () => ((await this.shares())[this.source] ?? 0) <= 5000 - atLeastBp,
    );
  }

  untilState(state: string): Promise<unknown> {
    return this.until(`the synthetic cell is ${state}`, async () => (await this.synthetic())[0]?.state === state);
  }

  /** Asked of lists, so that it needs no worker. */
  async phase(): Promise<Phase | null> {
    const { searchAttributes } = await this.handle.describe();
    return (searchAttributes.FailoverPhase?.[0] as Phase | undefined) ?? null;
  }

  /** The source dies, and nobody tells of a dead cell. */
  async killSource(): Promise<void> {
    await this.silence();
    this.sourceDiedMs = Date.now();
    this.cloud.kill(this.source);
  }

  async ending(): Promise<Ending> {
    return this.until('the failover has ended', async () => {
      const { handle } = this;
      const { status } = await handle.describe();
      if (status.name === 'RUNNING' || status.name === 'CONTINUED_AS_NEW') return null;
      try {
        return (await handle.result()) as FailoverResult;
      } catch (err) {
        if (!(err instanceof WorkflowFailedError)) throw err;
        const reason = err.cause?.message ?? err.message;
        if (err.cause instanceof CancelledFailure) return { outcome: 'cancelled', reason };
        if (err.cause instanceof TerminatedFailure) return { outcome: 'terminated', reason };
        throw new GiveUp(`the run failed: ${reason}`);
      }
    });
  }

  /** What it is at, for whoever asks why it does not end. */
  async standing(): Promise<string> {
    const { raw, status } = await this.handle.describe();
    const pending = (raw.pendingActivities ?? []).map((activity) => {
      const last = activity.lastFailure;
      const why = last?.cause?.message ?? last?.message ?? '';
      return `${activity.activityType?.name} at attempt ${activity.attempt}${why ? ` after: ${why}` : ''}`;
    });
    return `the run is ${status.name} in phase ${await this.phase()}, under way: ${pending.join('; ') || 'nothing'}`;
  }

  /** Callers have all had their answers. */
  async quiet(): Promise<void> {
    await this.silence();
    await this.load.stop();
  }

  /**
   * Requests that failed while the plain service beside it, with the same cells, callers and proxy but no failover, lost
   * none: what a machine that stands still does to everybody is nobody's fault.
   */
  get failuresOfItsOwn(): string[] {
    const stalls = this.bench.plainFailuresMs();
    const isCommon = (failure: string): boolean => {
      const atMs = Date.parse(failure.split(' ')[0]!);
      return stalls.some((stallMs) => Math.abs(stallMs - atMs) < 3000);
    };
    return this.load.failures.filter((failure) => !isCommon(failure));
  }

  async end(): Promise<void> {
    this.isOver = true;
    try {
      await this.teller;
    } finally {
      await Promise.all(this.workers.map(endOf));
      await this.load?.stop();
      await this.cloud?.close();
      if (this.port) releasePorts([this.port]);
    }
  }
}

async function endOf(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGKILL');
  await exited;
}
