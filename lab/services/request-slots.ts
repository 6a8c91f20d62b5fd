/** The capacity limit of an instance: slots held for a request's whole work, and a bounded first-in-first-out line. */

/** Why a request got no slot: the line was full, or its caller left it. */
export type Refusal = 'full' | 'gone';

export interface Place {
  /** Resolves when a slot is held, or to why there is none. */
  entered: Promise<Refusal | undefined>;
  /** The caller has gone: leaves the line at once, without ever taking a slot. */
  abandon(): void;
}

const nothing = (): void => undefined;

export class RequestSlots {
  private serving = 0;
  private readonly line = new Set<(refusal: Refusal | undefined) => void>();

  constructor(
    readonly slots: number,
    readonly longestLine: number,
  ) {}

  get inFlight(): number {
    return this.serving + this.line.size;
  }

  enter(): Place {
    if (this.serving < this.slots) {
      this.serving++;
      return { entered: Promise.resolve(undefined), abandon: nothing };
    }
    if (this.line.size >= this.longestLine) return { entered: Promise.resolve('full'), abandon: nothing };
    let answer!: (refusal: Refusal | undefined) => void;
    const entered = new Promise<Refusal | undefined>((resolve) => (answer = resolve));
    this.line.add(answer);
    return {
      entered,
      abandon: () => {
        if (this.line.delete(answer)) answer('gone');
      },
    };
  }

  /** Gives the slot to the first in line, or frees it. */
  leave(): void {
    const [next] = this.line;
    if (!next) {
      this.serving--;
      return;
    }
    this.line.delete(next);
    next(undefined);
  }
}
