/** Holds samples until the tick they belong to, so that a tick's features do not depend on the order of arrival. */
import type { Sample } from './contracts';

export class StepBuffer {
  private readonly steps = new Map<number, Sample[]>();
  private held = 0;

  constructor(private readonly stepMs: number) {}

  get size(): number {
    return this.held;
  }

  add(sample: Sample): void {
    const step = Math.ceil(sample.atMs / this.stepMs);
    const samples = this.steps.get(step);
    if (samples) samples.push(sample);
    else this.steps.set(step, [sample]);
    this.held += 1;
  }

  /** The earliest tick that has samples; undefined if nothing is held. */
  firstTickMs(): number | undefined {
    let first = Infinity;
    for (const step of this.steps.keys()) first = Math.min(first, step);
    return first === Infinity ? undefined : first * this.stepMs;
  }

  /** Hands over, oldest step first, everything measured up to the tick. */
  release(tickMs: number, take: (sample: Sample) => void): void {
    const due = [...this.steps.keys()].filter((step) => step * this.stepMs <= tickMs).sort((a, b) => a - b);
    for (const step of due) {
      const samples = this.steps.get(step) ?? [];
      this.steps.delete(step);
      this.held -= samples.length;
      for (const sample of samples) take(sample);
    }
  }
}
