/** A real memory leak on the V8 heap: ordinary objects that stay reachable, at a set rate, until V8 gives up. */

export const leakShapes = ['steady', 'stepwise', 'per-request'] as const;
export type LeakShape = (typeof leakShapes)[number];

export interface LeakOrder {
  /** Mean growth; 0 stops it. */
  bytesPerSecond: number;
  shape: LeakShape;
  /** Lets everything leaked so far be collected. */
  release: boolean;
}

const tickMs = 100;
/** A stepwise leak keeps the mean rate but grows only once in this time. */
const stepEveryMs = 4000;
/** Requests over which the rate is measured that a per-request leak divides by. */
const rateWindow = 100;
/** What one forgotten session holds on the heap: measured as growth of `heapUsed` per session on Node 20. */
export const bytesPerSession = 418;

/** What a service forgets to delete: a session with a few nested objects, so that the collector has to trace it. */
function session(number: number): object {
  return {
    id: `session-${number}`,
    openedAt: number * 1.5,
    path: ['items', number],
    headers: { accept: `text/${number}`, language: `en-${number}` },
    basket: { items: [number, number + 1], total: number * 0.01 },
  };
}

export class HeapLeak {
  private kept: object[] = [];
  private made = 0;
  private owedBytes = 0;
  private order: LeakOrder = { bytesPerSecond: 0, shape: 'steady', release: false };
  private timer: NodeJS.Timeout | undefined;
  private lastTickMs = 0;
  private lastStepMs = 0;
  private bytesPerRequest = 0;
  private readonly arrivalsMs: number[] = [];

  /** Bytes held so far, by the measured size of a session. */
  get leakedBytes(): number {
    return this.kept.length * bytesPerSession;
  }

  set(order: LeakOrder): void {
    this.order = order;
    if (order.release) {
      this.kept = [];
      this.owedBytes = 0;
    }
    if (this.timer) clearInterval(this.timer);
    this.timer = undefined;
    if (order.bytesPerSecond <= 0) return;
    // Fixed when the leak begins: from then on twice the load leaks twice as fast.
    this.bytesPerRequest = order.bytesPerSecond / this.requestsPerSecond();
    this.lastTickMs = this.lastStepMs = performance.now();
    this.timer = setInterval(() => this.tick(), tickMs);
  }

  /** Called once per request served: a per-request leak grows only here. */
  onRequest(): void {
    this.arrivalsMs.push(performance.now());
    if (this.arrivalsMs.length > rateWindow) this.arrivalsMs.shift();
    if (this.timer && this.order.shape === 'per-request') this.grow(this.bytesPerRequest);
  }

  private requestsPerSecond(): number {
    const first = this.arrivalsMs[0];
    if (first === undefined) return 1;
    return Math.max(1, (1000 * this.arrivalsMs.length) / (performance.now() - first));
  }

  private tick(): void {
    const now = performance.now();
    const elapsedS = (now - this.lastTickMs) / 1000;
    this.lastTickMs = now;
    if (this.order.shape === 'steady') this.grow(this.order.bytesPerSecond * elapsedS);
    if (this.order.shape === 'stepwise' && now - this.lastStepMs >= stepEveryMs) {
      this.grow((this.order.bytesPerSecond * (now - this.lastStepMs)) / 1000);
      this.lastStepMs = now;
    }
  }

  private grow(bytes: number): void {
    this.owedBytes += bytes;
    for (; this.owedBytes >= bytesPerSession; this.owedBytes -= bytesPerSession) this.kept.push(session(this.made++));
  }
}
