/** The fault `disk-slow`: a disk that is slow now and then, as extra time in the layer that writes files. */

/** Bursts of slowness take this share of the time; so a write in a burst is that much slower than the mean. */
const burstShare = 0.3;
const burstMeanMs = 2000;

export class SlowDisk {
  private meanExtraS = 0;
  private burstUntil = 0;
  private calmUntil = 0;

  constructor(private readonly random: () => number) {}

  /** @param meanExtraS seconds per write on average over bursts and calm; 0 ends the fault */
  set(meanExtraS: number): void {
    this.meanExtraS = meanExtraS;
  }

  /** Extra time for a write that begins now. */
  delayMs(now = performance.now()): number {
    if (this.meanExtraS <= 0) return 0;
    if (now >= this.calmUntil) {
      this.burstUntil = now + this.exponential(burstMeanMs);
      this.calmUntil = this.burstUntil + this.exponential((burstMeanMs * (1 - burstShare)) / burstShare);
    }
    return now < this.burstUntil ? this.exponential((1000 * this.meanExtraS) / burstShare) : 0;
  }

  private exponential(mean: number): number {
    return -mean * Math.log(1 - this.random());
  }
}
