/** Scores all cells at a tick: features, one batched model run, score, drivers and risk episode per cell. */
import type { CellDirectory, KnownCell } from './cell-directory';
import type { RiskEvent, Sample, Score } from './contracts';
import type { Counters } from './counters';
import { contributions, drivers } from './explain';
import { featureSpec, historySteps } from './feature-spec';
import { FeatureExtractor } from './features';
import type { Model } from './model';
import { advance, type RiskEpisode } from './risk-episode';
import { cumulative, isUnknown, novelty, probabilityWithin, scoreOf, type TelemetryState } from './score';

/** What scoring needs of a model; `Model` is one. */
export type ScoringModel = Pick<Model, 'id' | 'bins' | 'manifest' | 'forest' | 'rows' | 'run'>;

export interface CellScoringOptions {
  model: ScoringModel;
  directory: CellDirectory;
  stepMs: number;
  riskChangedEveryMs: number;
  counters: Counters;
}

export interface ScoredCell {
  score: Score;
  /** Set when the workflow has to be told. */
  event: RiskEvent | undefined;
  /** Partitions the cell's samples came from. */
  partitions: ReadonlySet<string>;
}

interface CellState {
  episode: RiskEpisode | null;
  lastEventMs: number;
  newestMs: number;
  skewMs: number;
  partitions: Set<string>;
}

/** Attribution takes a few ms a row: with more cells at risk than this at once, the rest goes without. */
const mostExplainedPerTick = 20;

export class CellScoring {
  private readonly extractor: FeatureExtractor;
  private readonly cells = new Map<string, CellState>();
  private readonly horizonsS: readonly number[];

  constructor(private readonly options: CellScoringOptions) {
    const { model, stepMs } = options;
    this.extractor = new FeatureExtractor(featureSpec, stepMs);
    this.horizonsS = model.manifest.horizonsSteps.map((steps) => (steps * stepMs) / 1000);
  }

  get cellCount(): number {
    return this.cells.size;
  }

  /** Notes where a cell's samples come from and how far producer and record time lie apart. */
  met(cell: string, partition: string, skewMs: number): void {
    let state = this.cells.get(cell);
    if (!state) {
      state = { episode: null, lastEventMs: -Infinity, newestMs: -Infinity, skewMs, partitions: new Set() };
      this.cells.set(cell, state);
    }
    state.skewMs = skewMs;
    state.partitions.add(partition);
  }

  observe(sample: Sample): void {
    const state = this.cells.get(sample.cell);
    if (!state) return;
    if (sample.atMs > state.newestMs) state.newestMs = sample.atMs;
    if (!this.extractor.observe(sample)) this.options.counters.add('samples.ignored');
  }

  /** All cells that have been heard of by the tick, in order of name so that a replay agrees. */
  async tick(tickMs: number): Promise<ScoredCell[]> {
    const { model, stepMs } = this.options;
    const due = this.due(tickMs);
    if (due.length === 0) return [];
    const rows = model.rows(due.length);
    for (const { cell, known } of due) {
      this.extractor.describe(cell, { sloLatencyMs: known.sloLatencyMs, cohort: known.service });
    }
    this.extractor.tick(
      due.map(({ cell }) => cell),
      tickMs,
      rows,
    );
    const hazards = await model.run(due.length);
    let explained = 0;
    return due.map(({ cell, known, state }, i) => {
      const telemetry: TelemetryState = { ...this.extractor.info(cell), stepMs, skewMs: state.skewMs };
      const offset = i * this.extractor.featureCount;
      const score = this.score(cell, known, tickMs, telemetry, rows, offset, hazards, i * model.bins);
      const probability = this.probability(score, known);
      const watched = probability >= known.policy.prepare.enter || state.episode !== null;
      if (watched && model.forest && explained < mostExplainedPerTick) {
        explained += 1;
        const byMetric = contributions(model.forest, rows, offset, hazards, i * model.bins);
        score.drivers = drivers(byMetric, (metric) => this.extractor.figures(cell, metric), stepMs);
      }
      const event = this.episode(cell, known, state, score, probability, isUnknown(telemetry), tickMs);
      this.extractor.freezeBaseline(cell, probability >= known.policy.prepare.enter || state.episode !== null);
      return { score, event, partitions: state.partitions };
    });
  }

  private due(tickMs: number): { cell: string; known: KnownCell; state: CellState }[] {
    const { directory, stepMs } = this.options;
    const due: { cell: string; known: KnownCell; state: CellState }[] = [];
    for (const cell of [...this.cells.keys()].sort()) {
      const state = this.cells.get(cell) as CellState;
      if (state.newestMs === -Infinity) continue;
      const known = directory.find(cell);
      // Gone from the configuration, or silent for longer than any window reaches.
      if (!known || tickMs - state.newestMs > historySteps * stepMs) {
        this.cells.delete(cell);
        this.extractor.forget(cell);
      } else due.push({ cell, known, state });
    }
    return due;
  }

  private score(
    cell: string,
    known: KnownCell,
    atMs: number,
    state: TelemetryState,
    rows: Float32Array,
    offset: number,
    hazards: Float32Array,
    hazardOffset: number,
  ): Score {
    const p99 = this.extractor.figures(cell, 'http.latency_p99_s')?.value ?? NaN;
    const errors = this.extractor.figures(cell, 'http.error_ratio')?.value ?? NaN;
    return scoreOf({
      cell,
      service: known.service,
      atMs,
      failure: cumulative(hazards, hazardOffset, this.options.model.bins),
      horizonsS: this.horizonsS,
      novelty: novelty(rows, offset),
      state,
      objectiveMissed: p99 * 1000 >= known.sloLatencyMs || errors >= known.sloErrorRatio,
      model: this.options.model.id,
    });
  }

  private probability(score: Score, { policy }: KnownCell): number {
    const failure = this.horizonsS.map((s) => score.probability[String(s)] ?? 0);
    return probabilityWithin(policy.horizonS, failure, this.horizonsS);
  }

  private episode(
    cell: string,
    known: KnownCell,
    state: CellState,
    score: Score,
    probability: number,
    unknown: boolean,
    tickMs: number,
  ): RiskEvent | undefined {
    const reading = { cell, probability, trust: score.trust, unknown };
    const step = advance(state.episode, reading, known.policy, tickMs);
    state.episode = step.episode;
    if (known.policy.autonomy === 'observe' || known.synthetic || step.episodeId === null) return undefined;
    const isDue = !unknown && step.level !== 'clear' && tickMs - state.lastEventMs >= this.options.riskChangedEveryMs;
    if (!step.changed && !isDue) return undefined;
    state.lastEventMs = tickMs;
    return {
      eventId: `${step.episodeId}#${tickMs}`,
      episodeId: step.episodeId,
      service: known.service,
      cell,
      at: score.ts,
      level: step.level,
      probability: Number(probability.toFixed(6)),
      horizonS: known.policy.horizonS,
      health: score.health,
      timeToFailureS: score.time_to_failure_s,
      trust: score.trust,
      drivers: score.drivers,
      model: score.model,
    };
  }
}
