/** One metric of one cell over time: its trend, its baseline, and how the newest values stand to both. */
import { baselineSize, CENTRE, closeBaseline, emptyBaseline, keptOfBaseline, rebuildBaseline, SCALE } from './baseline';
import {
  beginAgain,
  followGain,
  forgetOldRisk,
  isBack,
  letGoSize,
  rememberNoRisk,
  rememberRisk,
  remembersRisk,
} from './let-go';
import {
  beginTrendAnew,
  BLOCK_COUNT,
  BLOCK_MEAN,
  BLOCK_VARIANCE,
  blockSteps,
  emptyTrend,
  FLOOR,
  FLOOR_SLOPE_LONG,
  FLOOR_SLOPE_MID,
  keptOfTrend,
  longBlocks,
  lowestOf,
  MEAN,
  PRESENT,
  R2,
  rebuildTrend,
  shortWindow,
  SLOPE,
  stepTrend,
  trendSize,
  type WindowPlace,
} from './trend';
import type { WordReader, WordWriter } from './words';

const [Z, LOG_RATIO, LIMIT, Z_SCALE, LAST_SEEN] = [0, 1, 2, 3, 4] as const;
/** The values of the newest three steps. */
const [LAST, BEFORE, BEFORE_THAT] = [5, 6, 7] as const;
const letGo = 8;
const baseline = letGo + letGoSize;
const trend = baseline + baselineSize;
/** How far back the longest window reaches. */
const longWindowSteps = (longBlocks + 1) * blockSteps;
/** Numbers per track. */
export const trackSize = trend + trendSize;

/** What has to be kept of a track between two steps; everything else follows from it, at once or with the next step. */
const kept: readonly (readonly [from: number, to: number])[] = [
  [LIMIT, baseline + keptOfBaseline],
  ...keptOfTrend.map(([from, to]) => [trend + from, trend + to] as const),
];

/** A view of a stretch of its cell's numbers: all tracks of a cell lie side by side in one array. */
export class Track {
  /** `d` may be replaced by a larger copy when the cell sends more metrics. */
  constructor(
    public d: Float64Array,
    private readonly at: number,
  ) {
    d.fill(NaN, at, at + letGo);
    d[at + LAST_SEEN] = -Infinity;
    rememberNoRisk(d, at + letGo);
    emptyBaseline(d, at + baseline);
    emptyTrend(d, at + trend);
  }

  /** `place`: of the step in its block, 1 to `blockSteps`. */
  step(value: number, step: number, place: number, frozen: boolean): void {
    const { d, at } = this;
    d[at + BEFORE_THAT] = d[at + BEFORE]!;
    d[at + BEFORE] = d[at + LAST]!;
    d[at + LAST] = value;
    if (value === value) d[at + LAST_SEEN] = step;
    stepTrend(d, at + trend, at + LAST, place);
    if (place !== blockSteps) return;
    const count = d[at + trend + BLOCK_COUNT]!;
    closeBaseline(d, at + baseline, at + trend + BLOCK_MEAN, at + trend + BLOCK_VARIANCE, count, frozen);
  }

  /**
   * Whether what was at risk has been let go: the newest three values are back at what was normal before. For resources,
   * after each step; `atRisk`: as the step before found the cell. See let-go.ts.
   */
  findsLetGo(step: number, atRisk: boolean): boolean {
    const { d, at } = this;
    if (atRisk) {
      rememberRisk(d, at + letGo, step, this.centre, this.scale, lowestOf(d, at + trend), this.limit);
    } else if (!remembersRisk(d, at + letGo)) return false;
    else forgetOldRisk(d, at + letGo, step, longWindowSteps);
    followGain(d, at + letGo, this.last);
    for (const place of [LAST, BEFORE, BEFORE_THAT]) if (!isBack(d, at + letGo, d[at + place]!)) return false;
    return true;
  }

  /** From here on the trend is that of the newest three values alone. `place`: as for the step. */
  beginTrendAnew(place: number): void {
    const { d, at } = this;
    beginAgain(d, at + letGo);
    beginTrendAnew(d, at + trend, [at + BEFORE_THAT, at + BEFORE, at + LAST], place);
  }

  save(out: WordWriter): void {
    for (const [from, to] of kept) out.numbers(this.d, this.at + from, this.at + to);
  }

  /** Brings a new track to where the one that was saved stood. Throws RangeError for what no track can be. */
  restore(from: WordReader): void {
    for (const [begin, end] of kept) from.numbers(this.d, this.at + begin, this.at + end);
    rebuildBaseline(this.d, this.at + baseline);
    rebuildTrend(this.d, this.at + trend);
  }

  /** Whether the cell sends this metric at all, as far as the window reaches. */
  isKnown(step: number, windowSteps: number): boolean {
    return step - this.d[this.at + LAST_SEEN]! <= windowSteps;
  }

  /** The newest step's value; NaN if missing. */
  get last(): number {
    return this.d[this.at + LAST]!;
  }

  /** The value at which the metric is exhausted; NaN if unknown. */
  get limit(): number {
    return this.d[this.at + LIMIT]!;
  }
  set limit(value: number) {
    this.d[this.at + LIMIT] = value;
  }

  /** Smallest distance from the baseline that counts as one standard deviation. */
  get scale(): number {
    return this.d[this.at + Z_SCALE]!;
  }
  set scale(value: number) {
    this.d[this.at + Z_SCALE] = value;
  }

  /** Distance of the short window's mean from the baseline in robust standard deviations; NaN without either. */
  get z(): number {
    return this.d[this.at + Z]!;
  }
  set z(value: number) {
    this.d[this.at + Z] = value;
  }

  /** Logarithm of the short window's mean over the baseline. */
  get logRatio(): number {
    return this.d[this.at + LOG_RATIO]!;
  }
  set logRatio(value: number) {
    this.d[this.at + LOG_RATIO] = value;
  }

  /** The baseline: NaN until there is one. */
  get centre(): number {
    return this.d[this.at + baseline + CENTRE]!;
  }

  get spread(): number {
    return this.d[this.at + baseline + SCALE]!;
  }

  mean(window: WindowPlace): number {
    return this.d[this.at + trend + window + MEAN]!;
  }

  /** What the metric is at: the mean of the last 6 to 10 steps. */
  get recent(): number {
    return this.d[this.at + trend + shortWindow + MEAN]!;
  }

  /** Per step. */
  slope(window: WindowPlace): number {
    return this.d[this.at + trend + window + SLOPE]!;
  }

  r2(window: WindowPlace): number {
    return this.d[this.at + trend + window + R2]!;
  }

  get floor(): number {
    return this.d[this.at + trend + FLOOR]!;
  }

  get floorSlopeMid(): number {
    return this.d[this.at + trend + FLOOR_SLOPE_MID]!;
  }

  get floorSlopeLong(): number {
    return this.d[this.at + trend + FLOOR_SLOPE_LONG]!;
  }

  /** Share of the last 26 to 30 steps that have a value. */
  get present(): number {
    return this.d[this.at + trend + PRESENT]!;
  }
}
