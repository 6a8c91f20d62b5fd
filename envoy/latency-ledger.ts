/**
 * How long each cell's answers take, from sampled requests. Kept in slices of time, each a quantile sketch (DDSketch,
 * C. Masson et al., 2019): quantiles within 1 % of the true value, sketches of several proxies and slices add up.
 */
import { DDSketch } from '@datadog/sketches-js';

export interface CellLatency {
  /** Half of the sampled requests took at most this long. */
  p50Ms: number;
  /** Missing below 100 samples: one request would decide it. */
  p99Ms: number | undefined;
  samples: number;
  /** Age of the newest sample. */
  ageMs: number;
}

interface Slice {
  startedAt: number;
  sketch: DDSketch;
}

interface Cell {
  slices: Slice[];
  lastAt: number;
}

const relativeAccuracy = 0.01;
/** Samples below which the slowest one would be the 99th percentile. */
export const fewestForP99 = 100;

export class LatencyLedger {
  private readonly clusters = new Map<string, Map<string, Cell>>();

  /**
   * @param windowMs how far back quantiles look.
   * @param sliceMs in which steps what is older leaves them.
   */
  constructor(
    private readonly windowMs = 30_000,
    private readonly sliceMs = 5000,
  ) {}

  /** Takes in one request's upstream time, received at that time (milliseconds, monotonic). */
  record(cluster: string, cell: string, latencyMs: number, at: number): void {
    let cells = this.clusters.get(cluster);
    if (!cells) this.clusters.set(cluster, (cells = new Map<string, Cell>()));
    let kept = cells.get(cell);
    if (!kept) cells.set(cell, (kept = { slices: [], lastAt: at }));
    let slice = kept.slices.at(-1);
    if (!slice || at - slice.startedAt >= this.sliceMs) {
      slice = { startedAt: at, sketch: new DDSketch({ relativeAccuracy }) };
      kept.slices = [...kept.slices.filter(({ startedAt }) => at - startedAt < this.windowMs), slice];
    }
    slice.sketch.accept(latencyMs);
    kept.lastAt = at;
  }

  /** The latency of each cell of which the last seconds hold a sample, over the clusters that are meant. */
  read(isMeant: (cluster: string) => boolean, at: number): Map<string, CellLatency> {
    const merged = new Map<string, { sketch: DDSketch; lastAt: number }>();
    for (const [name, cells] of this.clusters) {
      if (!isMeant(name)) continue;
      for (const [cell, { slices, lastAt }] of cells) {
        const recent = slices.filter(({ startedAt }) => at - startedAt < this.windowMs);
        if (recent.length === 0) continue;
        const sum = merged.get(cell) ?? { sketch: new DDSketch({ relativeAccuracy }), lastAt };
        for (const { sketch } of recent) sum.sketch.merge(sketch);
        merged.set(cell, { sketch: sum.sketch, lastAt: Math.max(sum.lastAt, lastAt) });
      }
    }
    return new Map(
      [...merged].map(([cell, { sketch, lastAt }]) => [
        cell,
        {
          p50Ms: sketch.getValueAtQuantile(0.5),
          p99Ms: sketch.count >= fewestForP99 ? sketch.getValueAtQuantile(0.99) : undefined,
          samples: sketch.count,
          ageMs: at - lastAt,
        },
      ]),
    );
  }
}
