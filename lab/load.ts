/**
 * Open-loop load: requests leave at times fixed beforehand, however slow the answers are, and each latency counts from
 * the intended time. A closed loop would send less exactly when the service is in trouble, and report it as healthy.
 */
import { Agent, request } from 'node:http';
import { exponential, seededRandom } from './random';

export interface LoadOptions {
  /** Base URL, or several to use in turn. */
  urls: string | readonly string[];
  ratePerSecond: number;
  /** `fixed`: equal gaps. `poisson`: exponential gaps of the same mean. Default `fixed`. */
  arrivals?: 'fixed' | 'poisson';
  /** Requested at random. */
  paths: readonly string[];
  /** A slower answer has missed the objective. */
  sloMs: number;
  /** From the intended time; no answer by then is a failure. */
  timeoutMs: number;
  seed: number;
}

export interface LoadFigures {
  requests: number;
  /** No answer, an answer after the timeout, or one that is not 2xx. */
  failed: number;
  /** Answered well but later than the objective; not in `failed`. */
  overSlo: number;
  /** Exact quantiles of the latencies of all requests, failed ones included, in milliseconds; null without requests. */
  p50Ms: number | null;
  p99Ms: number | null;
}

export interface LoadSecond extends LoadFigures {
  /** Start of the second, milliseconds since the epoch. */
  atMs: number;
}

export interface LoadReport {
  startedAtMs: number;
  stoppedAtMs: number;
  totals: LoadFigures;
  /** By the second in which the requests were meant to leave. */
  seconds: LoadSecond[];
  /** Failures by reason: `HTTP 503`, `timeout`, `ECONNRESET` and so on. */
  failures: Record<string, number>;
}

/** One request that has ended. */
export interface Outcome {
  intendedAtMs: number;
  doneAtMs: number;
  latencyMs: number;
  failure: string | undefined;
}

/** The value below which `share` of the sorted values lie: the nearest-rank quantile, no interpolation. */
export function exactQuantile(sorted: readonly number[], share: number): number | null {
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? null;
}

function figuresOf(outcomes: readonly Outcome[], sloMs: number): LoadFigures {
  const latencies = outcomes.map((o) => o.latencyMs).sort((a, b) => a - b);
  return {
    requests: outcomes.length,
    failed: outcomes.filter((o) => o.failure !== undefined).length,
    overSlo: outcomes.filter((o) => o.failure === undefined && o.latencyMs > sloMs).length,
    p50Ms: exactQuantile(latencies, 0.5),
    p99Ms: exactQuantile(latencies, 0.99),
  };
}

/** Groups outcomes by wall-clock second; seconds without any are absent. */
function bySecond(outcomes: readonly Outcome[], sloMs: number): LoadSecond[] {
  const groups = new Map<number, Outcome[]>();
  for (const outcome of outcomes) {
    const second = Math.floor(outcome.intendedAtMs / 1000) * 1000;
    const group = groups.get(second);
    if (group) group.push(outcome);
    else groups.set(second, [outcome]);
  }
  return [...groups].sort(([a], [b]) => a - b).map(([atMs, group]) => ({ atMs, ...figuresOf(group, sloMs) }));
}

/** Anything that asks a service all the time and can say how it was answered. */
export interface Load {
  start(): void;
  /** Sends no more, waits for the answers still due and reports. Safe to call twice. */
  stop(): Promise<LoadReport>;
}

export function reportOf(
  outcomes: readonly Outcome[],
  sloMs: number,
  times: Pick<LoadReport, 'startedAtMs' | 'stoppedAtMs'>,
): LoadReport {
  const failures: Record<string, number> = {};
  for (const { failure } of outcomes) if (failure) failures[failure] = (failures[failure] ?? 0) + 1;
  return { ...times, totals: figuresOf(outcomes, sloMs), seconds: bySecond(outcomes, sloMs), failures };
}

export class OpenLoopLoad implements Load {
  private readonly urls: readonly string[];
  private paths: readonly string[];
  private readonly random: () => number;
  private readonly agent = new Agent({ keepAlive: true, maxSockets: Infinity, scheduling: 'fifo' });
  private readonly outcomes: Outcome[] = [];
  private readonly listeners: ((second: LoadSecond) => void)[] = [];
  private readonly inFlight = new Set<Promise<void>>();
  private ratePerSecond: number;
  private sent = 0;
  private startedAtMs = 0;
  private nextAtMs = 0;
  private reported = 0;
  private sendTimer: NodeJS.Timeout | undefined;
  private secondTimer: NodeJS.Timeout | undefined;
  private report: Promise<LoadReport> | undefined;

  constructor(private readonly options: LoadOptions) {
    this.urls = typeof options.urls === 'string' ? [options.urls] : options.urls;
    this.paths = options.paths;
    if (this.urls.length === 0 || this.paths.length === 0) throw new Error('A load needs a URL and a path.');
    if (!(options.ratePerSecond > 0)) throw new Error(`ratePerSecond must be above 0, got ${options.ratePerSecond}.`);
    this.ratePerSecond = options.ratePerSecond;
    this.random = seededRandom(options.seed);
  }

  start(): void {
    if (this.startedAtMs) throw new Error('This load was started before; make a new one.');
    this.startedAtMs = this.nextAtMs = this.nowMs();
    this.secondTimer = setInterval(() => this.tellSecond(), 1000);
    this.sendDue();
  }

  /** From the next request on; for steps and bursts. */
  setRate(ratePerSecond: number): void {
    if (!(ratePerSecond > 0)) throw new Error(`ratePerSecond must be above 0, got ${ratePerSecond}.`);
    this.ratePerSecond = ratePerSecond;
  }

  /** From the next request on; to tell requests of one time from those of another. */
  setPaths(paths: readonly string[]): void {
    if (paths.length === 0) throw new Error('A load needs a path.');
    this.paths = paths;
  }

  /** Resolves once every request sent so far has ended. */
  async caughtUp(): Promise<void> {
    await Promise.all(this.inFlight);
  }

  /** Called about once per second with the requests that ended since the last call. */
  onSecond(listener: (second: LoadSecond) => void): void {
    this.listeners.push(listener);
  }

  /** Totals of the requests that have ended so far. */
  snapshot(): LoadFigures {
    return figuresOf(this.outcomes, this.options.sloMs);
  }

  /** Sends no more, waits for the answers still due (at most `timeoutMs`) and reports. Safe to call twice. */
  stop(): Promise<LoadReport> {
    this.report ??= this.finish();
    return this.report;
  }

  private async finish(): Promise<LoadReport> {
    clearTimeout(this.sendTimer);
    const stoppedAtMs = this.nowMs();
    await Promise.all(this.inFlight);
    clearInterval(this.secondTimer);
    this.tellSecond();
    this.agent.destroy();
    return reportOf(this.outcomes, this.options.sloMs, { startedAtMs: this.startedAtMs, stoppedAtMs });
  }

  /** Wall-clock time that never jumps: the epoch of the process's monotonic clock plus that clock. */
  private nowMs(): number {
    return performance.timeOrigin + performance.now();
  }

  /** Sends everything whose time has come. After a pause of this process that is a burst, each request with its own intended time. */
  private sendDue(): void {
    const now = this.nowMs();
    while (this.nextAtMs <= now) {
      this.send(this.nextAtMs);
      const gap = this.options.arrivals === 'poisson' ? exponential(this.random) : 1;
      this.nextAtMs += (1000 * gap) / this.ratePerSecond;
    }
    this.sendTimer = setTimeout(() => this.sendDue(), Math.max(0, this.nextAtMs - this.nowMs()));
  }

  private send(intendedAtMs: number): void {
    const url = this.urls[this.sent++ % this.urls.length] ?? '';
    const path = this.paths[Math.floor(this.random() * this.paths.length)] ?? '/';
    const work = this.exchange(url + path, intendedAtMs).then((failure) => {
      const doneAtMs = this.nowMs();
      this.outcomes.push({ intendedAtMs, doneAtMs, latencyMs: doneAtMs - intendedAtMs, failure });
      this.inFlight.delete(work);
    });
    this.inFlight.add(work);
  }

  /** Resolves to the reason of the failure, or to undefined if the answer was good and in time. */
  private exchange(url: string, intendedAtMs: number): Promise<string | undefined> {
    return new Promise((resolve) => {
      const outgoing = request(url, { agent: this.agent }, (answer) => {
        const status = answer.statusCode ?? 0;
        answer.resume();
        answer.on('end', () => end(status >= 200 && status < 300 ? undefined : `HTTP ${status}`));
        answer.on('error', (error: NodeJS.ErrnoException) => end(error.code ?? error.message));
        answer.on('close', () => end('answer cut off'));
      });
      const left = intendedAtMs + this.options.timeoutMs - this.nowMs();
      const timer = setTimeout(
        () => {
          end('timeout');
          outgoing.destroy();
        },
        Math.max(1, left),
      );
      const end = (failure: string | undefined): void => {
        clearTimeout(timer);
        resolve(failure);
      };
      outgoing.on('error', (error: NodeJS.ErrnoException) => end(error.code ?? error.message));
      outgoing.end();
    });
  }

  private tellSecond(): void {
    const ended = this.outcomes.slice(this.reported);
    this.reported = this.outcomes.length;
    const second = { atMs: this.nowMs() - 1000, ...figuresOf(ended, this.options.sloMs) };
    for (const listener of this.listeners) listener(second);
  }
}
