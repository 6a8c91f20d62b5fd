/** Replays recorded samples through the extractor: the rows a model is trained on are the rows it is served with. */
import type { Sample } from './contracts';
import { featureSpec } from './feature-spec';
import { FeatureExtractor, type TickInfo } from './features';

export interface FeatureRow {
  cell: string;
  /** The tick's event time; a multiple of the step. */
  atMs: number;
  features: Float32Array;
  info: TickInfo;
}

export interface ReplayFacts {
  /** Latency objective by cell, as the service's blueprint declares it. */
  sloLatencyMs?: Readonly<Record<string, number>>;
}

/**
 * Rows of every cell from its first sample to the end of the recording, in order of time, cells in order of first
 * appearance. Samples may come in any order. A tick sees what was measured up to its time.
 */
export function* featureRows(
  samples: Iterable<Sample>,
  stepMs: number,
  facts: ReplayFacts = {},
): Generator<FeatureRow> {
  const ordered = [...samples].sort((a, b) => a.atMs - b.atMs);
  const last = ordered[ordered.length - 1];
  if (!last) return;
  const extractor = new FeatureExtractor(featureSpec, stepMs);
  const cells = new Set<string>();
  let next = 0;
  const end = Math.ceil(last.atMs / stepMs) * stepMs;
  for (let atMs = Math.ceil((ordered[0] as Sample).atMs / stepMs) * stepMs; atMs <= end; atMs += stepMs) {
    for (; next < ordered.length && (ordered[next] as Sample).atMs <= atMs; next++) {
      const sample = ordered[next] as Sample;
      if (!cells.has(sample.cell)) {
        cells.add(sample.cell);
        const sloLatencyMs = facts.sloLatencyMs?.[sample.cell];
        if (sloLatencyMs !== undefined) extractor.describe(sample.cell, { sloLatencyMs });
      }
      extractor.observe(sample);
    }
    for (const cell of cells) {
      const row = new Float32Array(extractor.featureCount);
      const info = { ...extractor.tick(cell, atMs, row, 0) };
      yield { cell, atMs, features: row, info };
    }
  }
}
