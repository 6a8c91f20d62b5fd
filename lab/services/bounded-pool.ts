/** A pool of a fixed number of connections: callers wait in line for one, for a while, and then get an error. */
import { quantile, type StepValues } from './step-values';

interface Waiter {
  beganAt: number;
  timer: NodeJS.Timeout;
  enter: (giveBack: () => void) => void;
}

const leakTickMs = 100;

export class BoundedPool {
  private taken = 0;
  private leaked = 0;
  private readonly waiters = new Set<Waiter>();
  private waitsS: number[] = [];
  private leakTimer: NodeJS.Timeout | undefined;

  /** @param timeoutMs longest wait for a connection before `acquire` fails */
  constructor(
    readonly limit: number,
    private readonly timeoutMs: number,
  ) {}

  get used(): number {
    return this.taken;
  }

  /** Resolves to the function that gives the connection back (harmless if called twice); rejects after the timeout. */
  acquire(): Promise<() => void> {
    if (this.taken < this.limit) {
      this.taken++;
      this.waitsS.push(0);
      return Promise.resolve(this.permit());
    }
    return new Promise((enter, reject) => {
      const waiter: Waiter = {
        beganAt: performance.now(),
        enter,
        timer: setTimeout(() => {
          this.waiters.delete(waiter);
          this.waitsS.push((performance.now() - waiter.beganAt) / 1000);
          reject(new Error(`No connection became free within ${this.timeoutMs} ms (${this.limit} in the pool).`));
        }, this.timeoutMs),
      };
      this.waiters.add(waiter);
    });
  }

  /** Takes and gives back around `use`. */
  async with<T>(use: () => Promise<T>): Promise<T> {
    const giveBack = await this.acquire();
    try {
      return await use();
    } finally {
      giveBack();
    }
  }

  /** The fault `pool-leak`: takes free connections at this rate and keeps them; `release` gives all of them back. */
  leak(perSecond: number, release: boolean): void {
    if (this.leakTimer) clearInterval(this.leakTimer);
    this.leakTimer = undefined;
    if (release) {
      for (; this.leaked > 0; this.leaked--) this.giveBack();
    }
    if (perSecond <= 0) return;
    let owed = 0;
    this.leakTimer = setInterval(() => {
      owed = Math.min(owed + (perSecond * leakTickMs) / 1000, this.limit);
      for (; owed >= 1 && this.taken < this.limit; owed--) {
        this.taken++;
        this.leaked++;
      }
    }, leakTickMs);
  }

  /** Connections in use now, and the waits that ended in the step (0 for those served at once). */
  step(): StepValues {
    const wait = quantile(this.waitsS, 0.99);
    this.waitsS = [];
    return {
      'pool.used': this.taken,
      'pool.limit': this.limit,
      ...(wait === undefined ? {} : { 'pool.wait_p99_s': wait }),
    };
  }

  private permit(): () => void {
    let held = true;
    return () => {
      if (held) this.giveBack();
      held = false;
    };
  }

  private giveBack(): void {
    const [next] = this.waiters;
    if (!next) {
      this.taken--;
      return;
    }
    this.waiters.delete(next);
    clearTimeout(next.timer);
    this.waitsS.push((performance.now() - next.beganAt) / 1000);
    next.enter(this.permit());
  }
}
