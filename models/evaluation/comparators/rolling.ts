/** Sums, lines and order statistics over the last so many ticks, each step in constant or nearly constant time. */

/** Incremental sums gather rounding errors, and one absurd value leaves its trace: they are made afresh so often. */
const rebuildEvery = 1024;

/** A least-squares line through the last `window` ticks. Missing values (NaN, infinite) leave a gap. */
export class RollingTrend {
  /** Values present in the window. */
  count = 0;
  private readonly ring: Float64Array;
  private pushed = 0;
  // Ticks are counted back from the present one, x = 0, so that the sums stay small however long the series is.
  private sx = 0;
  private sxx = 0;
  private sy = 0;
  private sxy = 0;
  private syy = 0;

  constructor(private readonly window: number) {
    this.ring = new Float64Array(window).fill(NaN);
  }

  push(value: number): void {
    const slot = this.pushed % this.window;
    const leaving = this.ring[slot]!;
    this.ring[slot] = Number.isFinite(value) ? value : NaN;
    this.pushed++;
    if (this.pushed % rebuildEvery === 0) return this.rebuild();

    this.sxy -= this.sy;
    this.sxx += this.count - 2 * this.sx;
    this.sx -= this.count;
    if (leaving === leaving) {
      this.count--;
      this.sx += this.window;
      this.sxx -= this.window * this.window;
      this.sxy += this.window * leaving;
      this.sy -= leaving;
      this.syy -= leaving * leaving;
    }
    if (Number.isFinite(value)) {
      this.count++;
      this.sy += value;
      this.syy += value * value;
    }
  }

  private rebuild(): void {
    this.count = this.sx = this.sxx = this.sy = this.sxy = this.syy = 0;
    for (let age = 0; age < this.window; age++) {
      const value = this.ring[(this.pushed - 1 - age + this.window * rebuildEvery) % this.window]!;
      if (value !== value) continue;
      this.count++;
      this.sx -= age;
      this.sxx += age * age;
      this.sy += value;
      this.sxy -= age * value;
      this.syy += value * value;
    }
  }

  /** Change per tick; NaN below two values. */
  get slope(): number {
    const spreadX = this.count * this.sxx - this.sx * this.sx;
    return spreadX > 0 ? (this.count * this.sxy - this.sx * this.sy) / spreadX : NaN;
  }

  /** The line's value at `ticks` from now. */
  at(ticks: number): number {
    const slope = this.slope;
    return (this.sy - slope * this.sx) / this.count + slope * ticks;
  }

  /** Standard error of a single value at `ticks` from now: half of the prediction band, per sigma. */
  errorAt(ticks: number): number {
    const n = this.count;
    if (n < 3) return NaN;
    const slope = this.slope;
    const meanX = this.sx / n;
    const spreadX = this.sxx - n * meanX * meanX;
    const residual = this.syy - (this.sy * this.sy) / n - slope * slope * spreadX;
    const variance = Math.max(0, residual) / (n - 2);
    return Math.sqrt(variance * (1 + 1 / n + (ticks - meanX) ** 2 / spreadX));
  }
}

/** Median and quartiles of the last `window` values present. */
export class RollingQuantiles {
  private readonly ring: Float64Array;
  private readonly sorted: Float64Array;
  private next = 0;
  count = 0;

  constructor(private readonly window: number) {
    this.ring = new Float64Array(window);
    this.sorted = new Float64Array(window);
  }

  /** A missing value changes nothing. */
  push(value: number): void {
    if (!Number.isFinite(value)) return;
    if (this.count === this.window) {
      const leaving = this.position(this.ring[this.next]!);
      this.sorted.copyWithin(leaving, leaving + 1, this.count);
      this.count--;
    }
    const entering = this.position(value);
    this.sorted.copyWithin(entering + 1, entering, this.count);
    this.sorted[entering] = value;
    this.count++;
    this.ring[this.next] = value;
    this.next = (this.next + 1) % this.window;
  }

  /** Index of the first value that is not below. */
  private position(value: number): number {
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.sorted[middle]! < value) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  quantile(share: number): number {
    return this.count === 0 ? NaN : this.sorted[Math.round(share * (this.count - 1))]!;
  }
}

/** So many silent ticks do not interrupt a rule's `for`: a lost sample is no recovery. */
const heldTicks = 5;

/** The score that has been reached for the last `ticks` ticks with a score: an alert rule's `for`. */
export function sustained(scores: Float32Array, ticks: number): Float32Array {
  if (ticks <= 1) return scores;
  const lowest = new Float32Array(scores.length).fill(NaN);
  // Scores of the run that may still become its lowest, ascending, and their ordinal numbers in it.
  const candidates = new Float32Array(scores.length);
  const ordinals = new Int32Array(scores.length);
  let head = 0;
  let tail = 0;
  let run = 0;
  let silent = 0;
  for (let tick = 0; tick < scores.length; tick++) {
    const score = scores[tick]!;
    if (score !== score) {
      silent++;
      continue;
    }
    if (silent > heldTicks) {
      run = 0;
      head = tail;
    }
    silent = 0;
    run++;
    while (tail > head && candidates[tail - 1]! >= score) tail--;
    candidates[tail] = score;
    ordinals[tail++] = run;
    if (ordinals[head]! <= run - ticks) head++;
    if (run >= ticks) lowest[tick] = candidates[head]!;
  }
  return lowest;
}

/** Mean of the values present among the last `window`; NaN where fewer than half of them are. */
export function trailingMean(values: Float32Array, window: number): Float32Array {
  if (window <= 1) return values;
  const means = new Float32Array(values.length);
  let sum = 0;
  let count = 0;
  for (let tick = 0; tick < values.length; tick++) {
    if (tick % rebuildEvery === 0) {
      sum = count = 0;
      for (let past = Math.max(0, tick - window); past < tick; past++) {
        if (!Number.isNaN(values[past]!)) {
          sum += values[past]!;
          count++;
        }
      }
    }
    const entering = values[tick]!;
    if (entering === entering) {
      sum += entering;
      count++;
    }
    const leaving = tick >= window ? values[tick - window]! : NaN;
    if (leaving === leaving) {
      sum -= leaving;
      count--;
    }
    means[tick] = 2 * count >= window ? sum / count : NaN;
  }
  return means;
}

/** The value that half of the last `window` ticks reach: high only if the deviation lasts, whatever its peaks. */
export function trailingMedian(values: Float32Array, window: number): Float32Array {
  if (window <= 1) return values;
  const medians = new Float32Array(values.length).fill(NaN);
  const sorted = new Float64Array(window);
  let count = 0;
  const position = (value: number): number => {
    let at = 0;
    while (at < count && sorted[at]! < value) at++;
    return at;
  };
  for (let tick = 0; tick < values.length; tick++) {
    const leaving = tick >= window ? values[tick - window]! : NaN;
    if (leaving === leaving) {
      const at = position(leaving);
      for (let i = at + 1; i < count; i++) sorted[i - 1] = sorted[i]!;
      count--;
    }
    const entering = values[tick]!;
    if (entering === entering) {
      const at = position(entering);
      for (let i = count; i > at; i--) sorted[i] = sorted[i - 1]!;
      sorted[at] = entering;
      count++;
    }
    if (2 * count >= window) medians[tick] = sorted[(count - 1) >> 1]!;
  }
  return medians;
}

/** Per tick the k-th largest of the columns' values: what at least k of m reach. NaN where fewer than k say anything. */
export function kthLargest(columns: readonly Float32Array[], k: number, ticks: number): Float32Array {
  const result = new Float32Array(ticks).fill(NaN);
  const top = new Float64Array(k);
  for (let tick = 0; tick < ticks; tick++) {
    let filled = 0;
    for (const column of columns) {
      const value = column[tick]!;
      if (value !== value || (filled === k && value <= top[k - 1]!)) continue;
      let at = filled < k ? filled++ : k - 1;
      for (; at > 0 && top[at - 1]! < value; at--) top[at] = top[at - 1]!;
      top[at] = value;
    }
    if (filled === k) result[tick] = top[k - 1]!;
  }
  return result;
}
