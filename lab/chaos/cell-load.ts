/**
 * Open-loop load on one cell over a lean HTTP/1.1 client, measured by the step. It costs a fraction of `node:http`'s
 * client, because dozens of cells share a machine with what loads them. Requests leave at times fixed beforehand, and each
 * latency counts from the intended time.
 */
import { connect, type Socket } from 'node:net';
import { exponential, seededRandom } from '../random';

/** What callers saw of the requests that were meant to leave in one step. */
export interface MeasuredStep {
  /** Start of the step, milliseconds since the epoch. */
  atMs: number;
  requests: number;
  /** No good answer, after all attempts. */
  failed: number;
  /** At or above the objective, failed ones too. */
  slow: number;
  p50Ms: number | null;
  p99Ms: number | null;
  /** Attempts beyond the first. */
  retries: number;
  /** Longest time by which this process itself was late in sending: it says nothing about the cell. */
  heldMs: number;
}

export interface CellLoadOptions {
  port: number;
  ratePerSecond: number;
  path: (random: () => number) => string;
  stepMs: number;
  sloMs: number;
  /** Of one attempt, from the time it is sent. */
  timeoutMs: number;
  /** Attempts after a failed one. */
  retries: number;
  seed: number;
}

interface Request {
  intendedAtMs: number;
  step: StepFigures;
  attemptsLeft: number;
  /** On a connection that was used before: it may have been closed by the service just now, and is then tried anew. */
  mayRepeat: boolean;
}

interface StepFigures {
  atMs: number;
  sent: number;
  failed: number;
  retries: number;
  heldMs: number;
  latencies: number[];
  /** Requests not answered yet. */
  open: Set<Request>;
}

/** Idle connections are closed after this time, before a service does it while a request is on its way. */
const idleMs = 3000;
const sweepEveryMs = 50;

class Connection {
  readonly socket: Socket;
  request: Request | undefined;
  attempt = 0;
  sentAtMs = 0;
  idleSinceMs = 0;
  uses = 0;
  private received = '';
  private bodyLeft = -1;
  private status = 0;
  private keep = true;
  private untilClose = false;

  constructor(
    readonly port: number,
    private readonly ended: (connection: Connection, status: number, keep: boolean) => void,
    failed: (connection: Connection) => void,
  ) {
    this.socket = connect({ host: '127.0.0.1', port, noDelay: true });
    this.socket.setEncoding('latin1');
    this.socket.on('data', (text: unknown) => this.read(text as string));
    this.socket.on('error', () => failed(this));
    this.socket.on('close', () => {
      if (this.untilClose && this.request) this.finish(false);
      else failed(this);
    });
  }

  send(request: Request, path: string, nowMs: number): void {
    this.request = request;
    this.sentAtMs = nowMs;
    this.uses++;
    this.socket.write(`GET ${path} HTTP/1.1\r\nHost: cell\r\n\r\n`);
  }

  private read(text: string): void {
    if (!this.request) return;
    if (this.bodyLeft < 0 && !this.untilClose) {
      this.received += text;
      const end = this.received.indexOf('\r\n\r\n');
      if (end < 0) return;
      const head = this.received.slice(0, end);
      text = this.received.slice(end + 4);
      this.received = '';
      this.status = Number(head.slice(9, 12));
      const length = /\r\ncontent-length: *(\d+)/i.exec(head)?.[1];
      this.keep = !/\r\nconnection: *close/i.test(head) && head.startsWith('HTTP/1.1');
      if (length === undefined && /\r\ntransfer-encoding: *chunked/i.test(head)) {
        throw new Error('The services of the lab say the length of their answers; this one was chunked.');
      }
      this.untilClose = length === undefined;
      this.bodyLeft = Number(length ?? -1);
    }
    if (this.untilClose) return;
    this.bodyLeft -= text.length;
    if (this.bodyLeft <= 0) this.finish(this.keep);
  }

  private finish(keep: boolean): void {
    this.bodyLeft = -1;
    this.ended(this, this.status, keep);
  }
}

/** The value below which `share` of the sorted values lie, by nearest rank. */
function quantileOf(sorted: readonly number[], share: number): number | null {
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? null;
}

export class CellLoad {
  private readonly random: () => number;
  private readonly idle: Connection[] = [];
  private readonly busy = new Set<Connection>();
  private readonly steps = new Map<number, StepFigures>();
  private port: number;
  private ratePerSecond: number;
  private nextAtMs = 0;
  private sendTimer: NodeJS.Timeout | undefined;
  private sweepTimer: NodeJS.Timeout | undefined;
  private readonly retryTimers = new Set<NodeJS.Timeout>();
  private stopped = false;

  constructor(private readonly options: CellLoadOptions) {
    this.port = options.port;
    this.ratePerSecond = options.ratePerSecond;
    this.random = seededRandom(options.seed);
  }

  start(): void {
    this.nextAtMs = this.nowMs();
    this.sweepTimer = setInterval(() => this.sweep(), sweepEveryMs);
    this.sendDue();
  }

  setRate(ratePerSecond: number): void {
    this.ratePerSecond = Math.max(0.01, ratePerSecond);
  }

  /** New connections go there; idle ones to elsewhere are closed. */
  setPort(port: number): void {
    this.port = port;
    for (const connection of this.idle.splice(0)) connection.socket.destroy();
  }

  stop(): void {
    this.stopped = true;
    clearTimeout(this.sendTimer);
    clearInterval(this.sweepTimer);
    for (const timer of this.retryTimers) clearTimeout(timer);
    for (const connection of [...this.idle, ...this.busy]) connection.socket.destroy();
  }

  /**
   * The steps from `fromMs` to `toMs`. An unanswered request counts as slow once it has waited for the objective; before
   * that it is not counted yet, so steps that ended longer ago than the objective are final in this respect.
   */
  measured(fromMs: number, toMs: number): MeasuredStep[] {
    const { stepMs, sloMs } = this.options;
    const now = this.nowMs();
    const result: MeasuredStep[] = [];
    for (let atMs = Math.ceil(fromMs / stepMs) * stepMs; atMs + stepMs <= toMs; atMs += stepMs) {
      const step = this.steps.get(atMs);
      const waited = step ? [...step.open].map((r) => now - r.intendedAtMs).filter((ms) => ms >= sloMs) : [];
      const latencies = [...(step?.latencies ?? []), ...waited].sort((a, b) => a - b);
      const tenth = (ms: number | null): number | null => (ms === null ? null : Math.round(ms * 10) / 10);
      result.push({
        atMs,
        requests: latencies.length,
        failed: step?.failed ?? 0,
        slow: latencies.filter((ms) => ms >= sloMs).length,
        p50Ms: tenth(quantileOf(latencies, 0.5)),
        p99Ms: tenth(quantileOf(latencies, 0.99)),
        retries: step?.retries ?? 0,
        heldMs: Math.round(step?.heldMs ?? 0),
      });
    }
    return result;
  }

  /** Retries per first attempt in one step, or undefined if nothing was sent in it. */
  retryRatio(atMs: number): number | undefined {
    const step = this.steps.get(atMs);
    return step && step.sent > 0 ? step.retries / step.sent : undefined;
  }

  private nowMs(): number {
    return performance.timeOrigin + performance.now();
  }

  private stepAt(ms: number): StepFigures {
    const atMs = Math.floor(ms / this.options.stepMs) * this.options.stepMs;
    let step = this.steps.get(atMs);
    if (!step) {
      step = { atMs, sent: 0, failed: 0, retries: 0, heldMs: 0, latencies: [], open: new Set() };
      this.steps.set(atMs, step);
    }
    return step;
  }

  private sendDue(): void {
    const now = this.nowMs();
    while (this.nextAtMs <= now) {
      const step = this.stepAt(this.nextAtMs);
      step.sent++;
      step.heldMs = Math.max(step.heldMs, now - this.nextAtMs);
      const request = { intendedAtMs: this.nextAtMs, step, attemptsLeft: this.options.retries, mayRepeat: false };
      step.open.add(request);
      this.send(request, now);
      this.nextAtMs += (1000 * exponential(this.random)) / this.ratePerSecond;
    }
    this.sendTimer = setTimeout(() => this.sendDue(), Math.max(0, this.nextAtMs - this.nowMs()));
  }

  private send(request: Request, now: number): void {
    let connection = this.idle.pop();
    while (connection && (connection.port !== this.port || now - connection.idleSinceMs > idleMs)) {
      connection.socket.destroy();
      connection = this.idle.pop();
    }
    connection ??= new Connection(
      this.port,
      (c, status, keep) => this.ended(c, status, keep),
      (c) => this.broken(c),
    );
    request.mayRepeat = connection.uses > 0;
    this.busy.add(connection);
    connection.send(request, this.options.path(this.random), now);
  }

  private ended(connection: Connection, status: number, keep: boolean): void {
    const { request } = connection;
    connection.request = undefined;
    this.busy.delete(connection);
    if (keep && connection.port === this.port && !this.stopped) {
      connection.idleSinceMs = this.nowMs();
      this.idle.push(connection);
    } else connection.socket.destroy();
    if (request) this.settle(request, status >= 200 && status < 300);
  }

  private broken(connection: Connection): void {
    const { request } = connection;
    connection.request = undefined;
    this.busy.delete(connection);
    connection.socket.destroy();
    if (!request || this.stopped) return;
    if (request.mayRepeat) this.send(request, this.nowMs());
    else this.settle(request, false);
  }

  private settle(request: Request, good: boolean): void {
    const { step } = request;
    if (!good && request.attemptsLeft > 0) {
      request.attemptsLeft--;
      // By the step in which the retry is sent: that is when the service feels it.
      this.stepAt(this.nowMs()).retries++;
      const timer = setTimeout(
        () => {
          this.retryTimers.delete(timer);
          this.send(request, this.nowMs());
        },
        10 + 40 * this.random(),
      );
      this.retryTimers.add(timer);
      return;
    }
    step.open.delete(request);
    step.latencies.push(this.nowMs() - request.intendedAtMs);
    if (!good) step.failed++;
  }

  /** Gives up on attempts that have taken too long, as a caller does: by closing the connection. */
  private sweep(): void {
    const now = this.nowMs();
    for (const connection of this.busy) {
      // Those sent later come later.
      if (now - connection.sentAtMs < this.options.timeoutMs) break;
      const { request } = connection;
      connection.request = undefined;
      this.busy.delete(connection);
      connection.socket.destroy();
      if (request) this.settle(request, false);
    }
    for (let first = this.idle[0]; first && now - first.idleSinceMs > idleMs; first = this.idle[0]) {
      this.idle.shift();
      first.socket.destroy();
    }
  }
}
