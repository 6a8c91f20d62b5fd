/** What an instance sees of the service it depends on. */
import { quantile, type StepValues } from './step-values';

export class DependencyMeter {
  private latenciesS: number[] = [];
  private errors = 0;
  private retries = 0;

  /** One attempt that ended, after `latencyS` seconds. */
  attempted(latencyS: number, ok: boolean): void {
    this.latenciesS.push(latencyS);
    if (!ok) this.errors++;
  }

  /** The next attempt is a repetition of a failed one. */
  retried(): void {
    this.retries++;
  }

  /** Runs one attempt and counts it; what it throws goes on to the caller. */
  async measure<T>(attempt: () => Promise<T>): Promise<T> {
    const beganAt = performance.now();
    let ok = false;
    try {
      const result = await attempt();
      ok = true;
      return result;
    } finally {
      this.attempted((performance.now() - beganAt) / 1000, ok);
    }
  }

  /**
   * Rate, p99 and error ratio of the attempts that ended in the step; `retry.ratio` is repetitions per first attempt.
   * Without attempts only the rate is known.
   */
  step(elapsedS: number): StepValues {
    const { latenciesS, errors, retries } = this;
    this.latenciesS = [];
    this.errors = 0;
    this.retries = 0;
    const values: StepValues = { 'dependency.request_rate': latenciesS.length / elapsedS };
    if (latenciesS.length > 0) {
      values['dependency.latency_p99_s'] = quantile(latenciesS, 0.99)!;
      values['dependency.error_ratio'] = errors / latenciesS.length;
      values['retry.ratio'] = retries / Math.max(1, latenciesS.length - retries);
    }
    return values;
  }
}
