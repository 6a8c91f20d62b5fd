/** A group replayed through the extractor: the rows of its cells while they were watched, each with its label. */
import type { Sample } from '../../prediction/contracts';
import { featureRows, type ReplayFacts } from '../../prediction/feature-rows';
import type { FeatureExtractor } from '../../prediction/features';
import { labelOf, type RowLabel } from './labels';
import type { RecordedCell, RecordedGroup } from './recorded';

export interface LabelledRow extends RowLabel {
  /** Which of the group's cells, and what is known of it. */
  place: number;
  about: RecordedCell;
  /** Steps since the cell's first row. */
  step: number;
  features: Float32Array;
}

export interface Replay {
  /** Instead of the group's own. */
  samples?: readonly Sample[];
  facts?: ReplayFacts;
  /** By so much the samples have been moved in time. */
  shiftMs?: number;
  extractor?: FeatureExtractor;
}

/** In order of time; every tick of a cell from `fromMs` to `toMs` has its row. */
export function* labelledRows(group: RecordedGroup, replay: Replay = {}): Generator<LabelledRow> {
  const { samples = group.cells.flatMap((c) => c.samples), shiftMs = 0, extractor } = replay;
  const facts = replay.facts ?? Object.fromEntries(group.cells.map(({ cell, facts: known }) => [cell, known]));
  const cells = new Map(group.cells.map((about, place) => [about.cell, { about, place }]));
  for (const row of featureRows(samples, group.stepMs, facts, extractor)) {
    const known = cells.get(row.cell);
    if (!known) continue;
    const { about, place } = known;
    const atMs = row.atMs - shiftMs;
    if (atMs < about.fromMs || atMs > about.toMs) continue;
    const step = Math.round((atMs - about.fromMs) / group.stepMs);
    yield { place, about, step, features: row.features, ...labelOf(atMs, about.incidents, about.toMs, group.stepMs) };
  }
}
