/** A challenger model beside the one that decides: same features, scores published apart, never an episode or a workflow. */
import type { Counters } from './counters';
import type { ScoringModel } from './cell-scoring';
import { cumulative, probabilityWithin } from './score';

/** What the challenger says of a cell, beside what the champion said (topic `understudy.scores.shadow`). */
export interface ShadowScore {
  cell: string;
  service: string;
  ts: string;
  model: string;
  probability: Record<string, number>;
  champion: string;
  /** The champion's probability by its own horizons. */
  champion_probability: Record<string, number>;
}

/** How far the two models have been apart since the start. */
export interface ShadowDivergence {
  model: string;
  rows: number;
  /** Mean and largest absolute difference of P(failure within the policy's horizon). */
  mean: number;
  largest: number;
  /** Rows at which exactly one of them was at or above the level at which an episode begins. */
  disagreed: number;
}

export class Shadow {
  private readonly horizonsS: readonly number[];
  private readonly failure: number[];
  private rows = 0;
  private sum = 0;
  private largest = 0;
  private disagreed = 0;

  constructor(
    private readonly model: ScoringModel,
    stepMs: number,
    private readonly counters: Counters,
  ) {
    this.horizonsS = model.manifest.horizonsSteps.map((steps) => (steps * stepMs) / 1000);
    this.failure = new Array<number>(model.bins);
  }

  /** The challenger's hazards for the champion's rows; undefined if it fails, which the champion must not feel. */
  async run(rows: Float32Array, count: number): Promise<Float32Array | undefined> {
    try {
      this.model.rows(count).set(rows);
      return await this.model.run(count);
    } catch {
      this.counters.add('shadow.failed');
      return undefined;
    }
  }

  /** Compares one row. `probability` is the champion's within `horizonS`, `enter` the level at which an episode begins. */
  compare(
    hazards: Float32Array,
    index: number,
    champion: { cell: string; service: string; ts: string; model: string; probability: Record<string, number> },
    probability: number,
    horizonS: number,
    enter: number,
  ): ShadowScore {
    const { failure, horizonsS, model } = this;
    cumulative(hazards, index * model.bins, model.bins, failure);
    const own = probabilityWithin(horizonS, failure, horizonsS);
    const apart = Math.abs(own - probability);
    this.rows += 1;
    this.sum += apart;
    if (apart > this.largest) this.largest = apart;
    if (own >= enter !== probability >= enter) {
      this.disagreed += 1;
      this.counters.add('shadow.diverged');
    }
    const byHorizon: Record<string, number> = {};
    horizonsS.forEach((s, k) => (byHorizon[s] = Math.round((failure[k] as number) * 1e6) / 1e6));
    return {
      cell: champion.cell,
      service: champion.service,
      ts: champion.ts,
      model: model.id,
      probability: byHorizon,
      champion: champion.model,
      champion_probability: champion.probability,
    };
  }

  divergence(): ShadowDivergence {
    const { rows, sum, largest, disagreed, model } = this;
    return { model: model.id, rows, mean: rows === 0 ? 0 : sum / rows, largest, disagreed };
  }
}
