/** A fixed window of the last values of one metric, one per step, newest first; NaN where there was none. */

/** Steps kept; a power of two. */
export const ringSize = 64;
const mask = ringSize - 1;

export class Ring {
  private readonly values = new Float64Array(ringSize).fill(NaN);
  private head = 0;

  push(value: number): void {
    this.head = (this.head + 1) & mask;
    this.values[this.head] = value;
  }

  /** The value `stepsAgo` steps before the newest (0). */
  at(stepsAgo: number): number {
    return this.values[(this.head - stepsAgo) & mask] ?? NaN;
  }
}
