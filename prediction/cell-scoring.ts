/** Scores all cells at a tick: features, one batched model run, score, drivers and risk episode per cell. */
import type { CellDirectory, KnownCell } from './cell-directory';
import type { CellWindow } from './cell-window';
import type { RiskEvent, Sample, Score } from './contracts';
import type { Counters } from './counters';
import type { DriftWatch } from './drift';
import { contributions, drivers } from './explain';
import { featureSpec, historySteps } from './feature-spec';
import { FeatureExtractor } from './features';
import type { Model } from './model';
import { advance, type RiskEpisode } from './risk-episode';
import { cumulative, isUnknown, novelty, probabilityWithin, scoreOf, staleSteps, type TelemetryState } from './score';
import type { Shadow, ShadowScore } from './shadow';
import { UnitWatch } from './unit-watch';
import type { WordReader, WordWriter } from './words';

/** What scoring needs of a model; `Model` is one. */
export type ScoringModel = Pick<Model, 'id' | 'bins' | 'manifest' | 'forest' | 'rows' | 'run'>;

export interface CellScoringOptions {
  model: ScoringModel;
  directory: CellDirectory;
  stepMs: number;
  riskChangedEveryMs: number;
  counters: Counters;
  drift?: DriftWatch | undefined;
  shadow?: Shadow | undefined;
}

export interface ScoredCell {
  score: Score;
  /** Set when the workflow has to be told. */
  event: RiskEvent | undefined;
  /** What the challenger says, if there is one. */
  shadow: ShadowScore | undefined;
  /** Partitions the cell's samples came from. */
  partitions: ReadonlySet<string>;
}

interface CellState {
  cell: string;
  /** The extractor's. */
  window: CellWindow;
  episode: RiskEpisode | null;
  lastEventMs: number;
  newestMs: number;
  skewMs: number;
  units: UnitWatch;
  /** Ticks in a row at which users felt it. */
  ticksMissed: number;
  partitions: Set<string>;
}

interface DueCell {
  known: KnownCell;
  state: CellState;
}

/** Attribution takes a few ms a row: with more cells at risk than this at once, the rest goes without. */
const mostExplainedPerTick = 20;
/** More than any topics have together. */
const mostPartitions = 100_000;
/** Users have to feel it for so many ticks in a row before it counts as a failure. */
const failureTicks = 3;

export class CellScoring {
  private readonly extractor: FeatureExtractor;
  private readonly cells = new Map<string, CellState>();
  /** In order of name, so that a replay agrees; undefined when a cell has come or gone. */
  private ordered: CellState[] | undefined;
  private readonly horizonsS: readonly number[];
  private readonly failure: number[];

  constructor(private readonly options: CellScoringOptions) {
    const { model, stepMs } = options;
    this.extractor = new FeatureExtractor(featureSpec, stepMs);
    this.horizonsS = model.manifest.horizonsSteps.map((steps) => (steps * stepMs) / 1000);
    this.failure = new Array<number>(model.bins);
  }

  get cellCount(): number {
    return this.cells.size;
  }

  /** Notes where a cell's samples come from and how far producer and record time lie apart. */
  met(cell: string, partition: string, skewMs: number): void {
    const state = this.cells.get(cell) ?? this.add(cell, skewMs);
    state.skewMs = skewMs;
    state.partitions.add(partition);
  }

  private add(cell: string, skewMs: number): CellState {
    const state = {
      cell,
      window: this.extractor.window(cell),
      episode: null,
      lastEventMs: -Infinity,
      newestMs: -Infinity,
      skewMs,
      units: new UnitWatch(),
      ticksMissed: 0,
      partitions: new Set<string>(),
    };
    this.cells.set(cell, state);
    this.ordered = undefined;
    return state;
  }

  /** The cells that have been heard of, each with the partitions it came by. */
  *partitionsOfCells(): Generator<readonly [cell: string, partitions: ReadonlySet<string>]> {
    for (const { cell, partitions, newestMs } of this.cells.values()) {
      if (newestMs !== -Infinity) yield [cell, partitions];
    }
  }

  /** Everything about a cell that is carried from one tick to the next. */
  save(cell: string, out: WordWriter): void {
    const state = this.cells.get(cell) as CellState;
    out.text(cell);
    out.number(state.partitions.size);
    for (const partition of state.partitions) out.text(partition);
    out.text(JSON.stringify(state.episode));
    for (const number of [state.lastEventMs, state.newestMs, state.skewMs, state.ticksMissed]) out.number(number);
    state.units.save(out);
    state.window.save(out);
  }

  /** Takes in a cell that was saved, and that is not known yet. Throws for what no cell can be. */
  restore(from: WordReader): void {
    const cell = from.text();
    if (this.cells.has(cell)) throw new RangeError(`cell ${cell} comes twice`);
    const state = this.add(cell, 0);
    for (let left = from.count(mostPartitions); left > 0; left--) state.partitions.add(from.text());
    state.episode = episodeOf(from.text());
    state.lastEventMs = from.number();
    state.newestMs = from.number();
    state.skewMs = from.number();
    state.ticksMissed = from.number();
    state.units.restore(from);
    state.window.restore(from);
  }

  observe(sample: Sample): void {
    const state = this.cells.get(sample.cell);
    if (!state) return;
    if (sample.atMs > state.newestMs) state.newestMs = sample.atMs;
    const { counters } = this.options;
    const verdict = state.units.judge(sample);
    if (verdict !== 'as-usual') counters.add('samples.unit-doubted');
    if (verdict === 'refused') return;
    if (!state.window.observe(sample.instance, sample.metric, sample.atMs, sample.value))
      counters.add('samples.ignored');
  }

  /** All cells that have been heard of by the tick, in order of name. */
  async tick(tickMs: number): Promise<ScoredCell[]> {
    const { model, shadow } = this.options;
    const due = this.due(tickMs);
    if (due.length === 0) return [];
    const rows = model.rows(due.length);
    for (const { known, state } of due) state.window.describe(known.sloLatencyMs, known.service);
    this.extractor.tickWindows(
      due.map(({ state }) => state.window),
      tickMs,
      rows,
    );
    const hazards = await model.run(due.length);
    const challenged = await shadow?.run(rows, due.length);
    const ts = new Date(tickMs).toISOString();
    const explaining = { left: model.forest ? mostExplainedPerTick : 0 };
    return due.map((cell, i) => this.scoreCell(cell, i, { tickMs, ts, rows, hazards, challenged, explaining }));
  }

  private due(tickMs: number): DueCell[] {
    const { directory, stepMs } = this.options;
    const due: DueCell[] = [];
    this.ordered ??= [...this.cells.values()].sort((a, b) => (a.cell < b.cell ? -1 : 1));
    for (const state of this.ordered) {
      if (state.newestMs === -Infinity) continue;
      // Restored from a later tick than others were.
      if (state.window.lastStep * stepMs >= tickMs) continue;
      const known = directory.find(state.cell);
      // Gone from the configuration, or silent for longer than any window reaches.
      if (!known || tickMs - state.newestMs > historySteps * stepMs) {
        this.cells.delete(state.cell);
        this.extractor.forget(state.cell);
        this.ordered = undefined;
      } else due.push({ known, state });
    }
    return due;
  }

  private scoreCell({ known, state }: DueCell, index: number, tick: Tick): ScoredCell {
    const { model, stepMs, shadow, drift } = this.options;
    const { cell } = state;
    const { policy } = known;
    const { tickMs, ts, rows, hazards, challenged, explaining } = tick;
    const telemetry = this.telemetry(state, tickMs);
    const unknown = isUnknown(telemetry);
    const offset = index * this.extractor.featureCount;
    const failure = cumulative(hazards, index * model.bins, model.bins, this.failure);
    const isMissed = objectiveMissed(state.window, known);
    const score = scoreOf({
      cell,
      service: known.service,
      ts,
      failure,
      horizonsS: this.horizonsS,
      novelty: novelty(rows, offset),
      state: telemetry,
      objectiveMissed: isMissed,
      model: model.id,
    });
    const probability = probabilityWithin(policy.horizonS, failure, this.horizonsS);
    if (drift) {
      state.ticksMissed = isMissed ? state.ticksMissed + 1 : 0;
      if (state.ticksMissed === failureTicks) drift.failed();
      // While it fails it cannot begin to.
      else if (!unknown && !isMissed) {
        const perStep = (hazards[index * model.bins] as number) / (model.manifest.horizonsSteps[0] as number);
        drift.row(rows, offset, failure[failure.length - 1] as number, perStep);
      }
    }
    const isAbove = probability >= policy.prepare.enter;
    if (explaining.left > 0 && (isAbove || state.episode !== null)) {
      explaining.left -= 1;
      const forest = model.forest as NonNullable<typeof model.forest>;
      const byMetric = contributions(forest, rows, offset, hazards, index * model.bins);
      score.drivers = drivers(byMetric, (metric) => this.extractor.figures(cell, metric), stepMs);
    }
    const event = this.episode(cell, known, state, score, probability, unknown, tickMs);
    state.window.frozen = isAbove || state.episode !== null || telemetry.unitDoubted === true;
    const shadowed =
      challenged && shadow?.compare(challenged, index, score, probability, policy.horizonS, policy.prepare.enter);
    return { score, event, shadow: shadowed, partitions: state.partitions };
  }

  private telemetry(state: CellState, tickMs: number): TelemetryState {
    const { stepMs } = this.options;
    const { info } = state.window;
    return {
      coverage: info.coverage,
      newestSampleAgeMs: info.newestSampleAgeMs,
      freshInstances: info.freshInstances,
      knownInstances: info.knownInstances,
      historySteps: info.historySteps,
      stepMs,
      skewMs: state.skewMs,
      unitDoubted: state.units.isDoubted(tickMs, staleSteps * stepMs),
    };
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

/** Users already feel it. */
function objectiveMissed(window: CellWindow, { sloLatencyMs, sloErrorRatio }: KnownCell): boolean {
  return (
    window.latest('http.latency_p99_s') * 1000 >= sloLatencyMs || window.latest('http.error_ratio') >= sloErrorRatio
  );
}

function episodeOf(json: string): RiskEpisode | null {
  const episode = JSON.parse(json) as RiskEpisode | null;
  if (episode !== null && (!episode.prepare || !episode.shift)) throw new RangeError(`${json} is no episode`);
  return episode;
}

/** What all cells of a tick share. */
interface Tick {
  tickMs: number;
  /** The same, ISO 8601. */
  ts: string;
  rows: Float32Array;
  hazards: Float32Array;
  challenged: Float32Array | undefined;
  /** How many cells may still be explained. */
  explaining: { left: number };
}
