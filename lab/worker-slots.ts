/** The capacity limit of an instance: a few slots, each held for a request's whole wait, and a first-in-first-out queue. */

interface Waiter {
  /** False once its caller has gone; it is then passed over without using a slot. */
  wanted: () => boolean;
  enter: (entered: boolean) => void;
}

export class WorkerSlots {
  private free: number;
  private readonly queue: Waiter[] = [];

  constructor(readonly slots: number) {
    this.free = slots;
  }

  get queued(): number {
    return this.queue.length;
  }

  /** Resolves to true with a slot held, or to false if the request was no longer wanted when its turn came. */
  enter(wanted: () => boolean): Promise<boolean> {
    if (this.free > 0) {
      this.free--;
      return Promise.resolve(true);
    }
    return new Promise((enter) => this.queue.push({ wanted, enter }));
  }

  leave(): void {
    for (let next = this.queue.shift(); next; next = this.queue.shift()) {
      if (next.wanted()) {
        next.enter(true);
        return;
      }
      next.enter(false);
    }
    this.free++;
  }
}
