/** Replays recorded samples through the extractor: the rows a model is trained on are the rows it is served with. */
import type { Sample } from './contracts';
import { featureSpec } from './feature-spec';
import { FeatureExtractor, type CellFacts, type TickInfo } from './features';

export interface FeatureRow {
  cell: string;
  /** The tick's event time; a multiple of the step. */
  atMs: number;
  features: Float32Array;
  info: TickInfo;
}

/** What the configuration would say, by cell. */
export type ReplayFacts = Readonly<Record<string, CellFacts>>;

/**
 * Rows of every cell from its first sample to the end of the recording, in order of time, cells in order of first
 * appearance. Samples may come in any order. A tick sees what was measured up to its time.
 */
export function* featureRows(
  samples: Iterable<Sample>,
  stepMs: number,
  facts: ReplayFacts = {},
  extractor = new FeatureExtractor(featureSpec, stepMs),
): Generator<FeatureRow> {
  const ordered = [...samples].sort((a, b) => a.atMs - b.atMs);
  const last = ordered[ordered.length - 1];
  if (!last) return;
  const known = new Set<string>();
  const cells: string[] = [];
  let rows = new Float32Array(0);
  let next = 0;
  const end = Math.ceil(last.atMs / stepMs) * stepMs;
  for (let atMs = Math.ceil((ordered[0] as Sample).atMs / stepMs) * stepMs; atMs <= end; atMs += stepMs) {
    for (; next < ordered.length && (ordered[next] as Sample).atMs <= atMs; next++) {
      const sample = ordered[next] as Sample;
      if (!known.has(sample.cell)) {
        known.add(sample.cell);
        cells.push(sample.cell);
        extractor.describe(sample.cell, facts[sample.cell] ?? {});
      }
      extractor.observe(sample);
    }
    const size = cells.length * extractor.featureCount;
    if (rows.length < size) rows = new Float32Array(size);
    extractor.tick(cells, atMs, rows);
    for (const [i, cell] of cells.entries()) {
      const features = rows.slice(i * extractor.featureCount, (i + 1) * extractor.featureCount);
      yield { cell, atMs, features, info: { ...extractor.info(cell) } };
    }
  }
}
