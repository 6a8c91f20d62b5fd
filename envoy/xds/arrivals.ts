/**
 * Lets new streams in, in the order in which they came, so that a storm of connecting proxies is served one handful
 * after the other and leaves room for those that are connected. One that waits holds nothing but its place in the queue.
 */
import { availableParallelism } from 'node:os';

export interface ArrivalLimits {
  /** Streams that may be in the middle of their first answers at once. Default 15 + 5 per core. */
  atOnce?: number | undefined;
  /** New streams per second; Infinity, the default, lets in as many as are served. */
  perSecond?: number | undefined;
  /** A stream that has not acknowledged its first answers by then makes room for others. Default 1,000. */
  patienceMs?: number | undefined;
}

/** One that was let in; tells once when it has been served or is gone. */
export interface Arrival {
  done(): void;
}

export class Arrivals {
  private readonly waiting = new Set<{ enter: () => void }>();
  private readonly inside = new Set<object>();
  private readonly atOnce: number;
  private readonly perSecond: number;
  private readonly patienceMs: number;
  /** When the next one may come in, on the monotonic clock; not before, if there is a rate. */
  private nextAt = 0;
  private timer: NodeJS.Timeout | undefined;

  constructor(limits: ArrivalLimits = {}) {
    this.atOnce = limits.atOnce ?? 15 + 5 * availableParallelism();
    this.perSecond = limits.perSecond ?? Infinity;
    this.patienceMs = limits.patienceMs ?? 1000;
  }

  /** How many have not been let in yet. */
  get queued(): number {
    return this.waiting.size;
  }

  /** Calls `enter` when it is this one's turn: now, or later in the order of the calls. */
  arrive(enter: () => void): Arrival {
    let patience: NodeJS.Timeout | undefined;
    const place = {
      enter: () => {
        this.inside.add(place);
        patience = setTimeout(leave, this.patienceMs);
        patience.unref();
        enter();
      },
    };
    const leave = (): void => {
      clearTimeout(patience);
      if (this.waiting.delete(place)) return;
      if (this.inside.delete(place)) this.admit();
    };
    this.waiting.add(place);
    this.admit();
    return { done: leave };
  }

  close(): void {
    clearTimeout(this.timer);
    this.waiting.clear();
  }

  private admit(): void {
    while (this.inside.size < this.atOnce) {
      const [next] = this.waiting;
      if (!next) return;
      const now = performance.now();
      if (now < this.nextAt) {
        this.timer ??= setTimeout(() => {
          this.timer = undefined;
          this.admit();
        }, this.nextAt - now);
        return;
      }
      // A rate's pause is never saved up: after a quiet hour the first second lets in no more than any other.
      this.nextAt = Math.max(this.nextAt, now) + 1000 / this.perSecond;
      this.waiting.delete(next);
      next.enter();
    }
  }
}
