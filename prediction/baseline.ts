/** What is normal for one metric of one cell: robust centre and scale of its own recent past, lagging behind the present. */

/** Blocks (see trend.ts) in the baseline: 240 steps. */
export const baselineBlocks = 48;
/** Newest blocks kept out, 20 steps, so that a degradation does not become normal while it begins. */
export const lagBlocks = 4;
const minBlocks = 2;

/** Ascending values with removal and insertion by shifting: cheaper than sorting anew each block. */
class SortedWindow {
  private readonly sorted = new Float64Array(baselineBlocks);
  size = 0;

  insert(value: number): void {
    let i = this.size++;
    while (i > 0 && (this.sorted[i - 1] as number) > value) {
      this.sorted[i] = this.sorted[i - 1] as number;
      i -= 1;
    }
    this.sorted[i] = value;
  }

  remove(value: number): void {
    let i = 0;
    while (i < this.size && this.sorted[i] !== value) i += 1;
    if (i === this.size) return;
    this.sorted.copyWithin(i, i + 1, this.size);
    this.size -= 1;
  }

  quantile(q: number): number {
    const position = q * (this.size - 1);
    const low = Math.floor(position);
    const below = this.sorted[low] as number;
    const above = this.sorted[Math.min(low + 1, this.size - 1)] as number;
    return below + (above - below) * (position - low);
  }
}

export class Baseline {
  /** NaN until 30 steps have been seen. */
  centre = NaN;
  scale = NaN;

  private readonly lagMeans = new Float64Array(lagBlocks);
  private readonly lagVariances = new Float64Array(lagBlocks);
  private lagging = 0;
  private readonly means = new Float64Array(baselineBlocks);
  private readonly variances = new Float64Array(baselineBlocks);
  private next = 0;
  private readonly sortedMeans = new SortedWindow();
  private readonly sortedVariances = new SortedWindow();

  /** Takes a closed block; one with fewer than 3 values is passed over. */
  close(mean: number, variance: number, count: number, frozen: boolean): void {
    if (frozen) this.lagging = 0;
    else if (count >= 3) this.queue(mean, variance);
  }

  private queue(mean: number, variance: number): void {
    if (this.lagging === lagBlocks) {
      this.admit(this.lagMeans[0] as number, this.lagVariances[0] as number);
      this.lagMeans.copyWithin(0, 1);
      this.lagVariances.copyWithin(0, 1);
      this.lagging -= 1;
    }
    this.lagMeans[this.lagging] = mean;
    this.lagVariances[this.lagging] = variance;
    this.lagging += 1;
  }

  private admit(mean: number, variance: number): void {
    if (this.sortedMeans.size === baselineBlocks) {
      this.sortedMeans.remove(this.means[this.next] as number);
      this.sortedVariances.remove(this.variances[this.next] as number);
    }
    this.means[this.next] = mean;
    this.variances[this.next] = variance;
    this.next = (this.next + 1) % baselineBlocks;
    this.sortedMeans.insert(mean);
    this.sortedVariances.insert(variance);
    if (this.sortedMeans.size < minBlocks) return;
    this.centre = this.sortedMeans.quantile(0.5);
    // Spread within blocks and between them; 1.349 is the interquartile range of a standard normal.
    const between = (this.sortedMeans.quantile(0.75) - this.sortedMeans.quantile(0.25)) / 1.349;
    this.scale = Math.sqrt(this.sortedVariances.quantile(0.5) + between * between);
  }
}
