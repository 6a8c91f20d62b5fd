/** The model as a detector: recorded samples replayed through the features, the ONNX graph and F(H) that serve. */
import type { Driver, Sample } from '../../prediction/contracts';
import { contributions, drivers } from '../../prediction/explain';
import { featureSpec } from '../../prediction/feature-spec';
import { FeatureExtractor } from '../../prediction/features';
import type { Model } from '../../prediction/model';
import { cumulative, isUnknown } from '../../prediction/score';
import type { CellSeries } from './contracts';
import { heldTicks } from './events';
import type { RecordedCell } from './series';

export type ReplayedModel = Pick<Model, 'id' | 'bins' | 'manifest' | 'forest' | 'rows' | 'run'>;

export interface ReplayOptions {
  model: ReplayedModel;
  /** An alert begins at this probability within the longest horizon ... */
  threshold: number;
  /** ... at so many ticks in a row. Drivers are found at that tick. */
  persist: number;
  /** Told now and then how far the replay is. */
  onProgress?: (doneTicks: number, ofTicks: number) => void;
  /** Told each row of features, for measuring drift. Valid during the call only. */
  onRow?: (row: Float32Array) => void;
}

export interface ScoredCell {
  /** P(failure within the longest horizon) per tick; NaN while the telemetry does not allow a word. */
  probability: Float32Array;
  /** Why, at each tick at which an alert began. */
  drivers: Map<number, Driver[]>;
}

/** From this probability on serving freezes baselines, by the default policy: a slow leak must not become normal. */
export const watchLevel = 0.4;

const progressEvery = 20_000;

/** What a cell is replayed with; `seriesOf` makes it, and a bare series will do. */
type Replayable = CellSeries & Partial<Pick<RecordedCell, 'samples'>>;

/** Scores by cell. Cells of one step run side by side in time, so that those of one service are compared as in serving. */
export async function scoreCells(
  cells: readonly Replayable[],
  options: ReplayOptions,
): Promise<Map<string, ScoredCell>> {
  const scored = new Map<string, ScoredCell>();
  const total = cells.reduce((sum, { ticks }) => sum + ticks, 0);
  let done = 0;
  const report = (ticks: number): void => {
    const before = Math.floor(done / progressEvery);
    done += ticks;
    if (Math.floor(done / progressEvery) > before) options.onProgress?.(done, total);
  };
  for (const stepMs of new Set(cells.map((cell) => cell.stepMs))) {
    const replay = new Replay(options, stepMs, report);
    await replay.run(
      cells.filter((cell) => cell.stepMs === stepMs),
      scored,
    );
  }
  options.onProgress?.(total, total);
  return scored;
}

interface Running {
  cell: Replayable;
  samples: Iterator<Sample>;
  next: IteratorResult<Sample>;
  result: ScoredCell;
  /** Consecutive ticks at or above the threshold, and below. */
  above: number;
  below: number;
  silent: number;
  inAlert: boolean;
}

class Replay {
  private readonly extractor: FeatureExtractor;

  constructor(
    private readonly options: ReplayOptions,
    private readonly stepMs: number,
    private readonly report: (ticks: number) => void,
  ) {
    this.extractor = new FeatureExtractor(featureSpec, stepMs);
  }

  async run(cells: readonly Replayable[], scored: Map<string, ScoredCell>): Promise<void> {
    const waiting = [...cells].sort((a, b) => a.startMs - b.startMs || (a.cell < b.cell ? -1 : 1));
    let running: Running[] = [];
    let tickMs = waiting[0]?.startMs ?? 0;
    while (waiting.length > 0 || running.length > 0) {
      if (running.length === 0) tickMs = (waiting[0] as Replayable).startMs;
      for (let cell = waiting[0]; cell && cell.startMs <= tickMs; cell = waiting[0]) {
        waiting.shift();
        const begun = this.begin(cell);
        scored.set(cell.cell, begun.result);
        running.push(begun);
      }
      await this.tick(running, tickMs);
      this.report(running.length);
      running = running.filter(({ cell }) => {
        const isOver = tickMs >= cell.startMs + (cell.ticks - 1) * cell.stepMs;
        if (isOver) this.extractor.forget(cell.cell);
        return !isOver;
      });
      tickMs += this.stepMs;
    }
  }

  private begin(cell: Replayable): Running {
    const sloLatencyMs = Number.isNaN(cell.sloLatencyS) ? undefined : cell.sloLatencyS * 1000;
    this.extractor.describe(cell.cell, { sloLatencyMs, cohort: cell.service });
    const samples = (cell.samples?.() ?? samplesOfSeries(cell))[Symbol.iterator]();
    return {
      cell,
      samples,
      next: samples.next(),
      result: { probability: new Float32Array(cell.ticks).fill(NaN), drivers: new Map() },
      above: 0,
      below: 0,
      silent: 0,
      inAlert: false,
    };
  }

  private async tick(running: readonly Running[], tickMs: number): Promise<void> {
    const { extractor } = this;
    const { model } = this.options;
    for (const one of running) {
      for (; !one.next.done && one.next.value.atMs <= tickMs; one.next = one.samples.next()) {
        extractor.observe(one.next.value);
      }
    }
    const rows = model.rows(running.length);
    extractor.tick(
      running.map(({ cell }) => cell.cell),
      tickMs,
      rows,
    );
    const hazards = await model.run(running.length);
    for (const [i, one] of running.entries()) {
      const { cell } = one.cell;
      const failure = cumulative(hazards, i * model.bins, model.bins);
      const probability = failure[failure.length - 1] ?? NaN;
      const unknown = isUnknown({ ...extractor.info(cell), stepMs: this.stepMs, skewMs: 0 });
      const tick = Math.round((tickMs - one.cell.startMs) / this.stepMs);
      one.result.probability[tick] = unknown ? NaN : probability;
      const begins = this.follow(one, unknown ? NaN : probability);
      if (begins && model.forest) {
        const byMetric = contributions(model.forest, rows, i * extractor.featureCount, hazards, i * model.bins);
        one.result.drivers.set(
          tick,
          drivers(byMetric, (metric) => extractor.figures(cell, metric), this.stepMs),
        );
      }
      extractor.freezeBaseline(cell, probability >= watchLevel || one.inAlert);
      if (this.options.onRow) {
        this.options.onRow(rows.subarray(i * extractor.featureCount, (i + 1) * extractor.featureCount));
      }
    }
  }

  /** Whether an alert begins: the rules of `alertsOf`, one tick at a time. */
  private follow(one: Running, probability: number): boolean {
    const { threshold, persist } = this.options;
    if (probability !== probability) {
      one.silent += 1;
      if (one.silent > heldTicks) {
        one.above = 0;
        one.inAlert = false;
      }
      return false;
    }
    one.silent = 0;
    // As stored: a row of float32 scores is compared with the threshold.
    const reaches = Math.fround(probability) >= threshold;
    one.above = reaches ? one.above + 1 : 0;
    one.below = reaches ? 0 : one.below + 1;
    if (one.inAlert && one.below >= persist) one.inAlert = false;
    const begins = !one.inAlert && one.above >= persist;
    if (begins) one.inAlert = true;
    return begins;
  }
}

/** A series as samples of one instance: what is left to replay when the samples themselves are not at hand. */
function* samplesOfSeries({ cell, startMs, stepMs, ticks, values }: CellSeries): Generator<Sample> {
  for (let tick = 0; tick < ticks; tick++) {
    for (const [metric, row] of values) {
      const value = row[tick] as number;
      if (value === value) yield { cell, instance: cell, atMs: startMs + tick * stepMs, metric, value };
    }
  }
}
