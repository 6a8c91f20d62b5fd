/** What the evaluation's parts agree on: recorded cells as series, and anything that gives them a score per tick. */
import type { MetricName } from '../../prediction/metrics';

/** One incident of a cell: the contract's incident record, read. Times in milliseconds since the epoch. */
export interface IncidentSpan {
  cell: string;
  fault: string;
  faultStartMs: number;
  onsetMs: number;
  /** Infinity if it still lasted when the recording ended. */
  recoveredMs: number;
  /** Whether the fault gives any warning; one that does not is reported apart. */
  predictable: boolean;
}

/** One cell of a recording at its ticks. Tick i is at `startMs + i * stepMs`. */
export interface CellSeries {
  cell: string;
  /** Cells of one service are each other's peers; undefined if the telemetry does not say. */
  service: string | undefined;
  stepMs: number;
  startMs: number;
  ticks: number;
  /** The cell's value per tick, put together from its instances by the metric's rule; NaN where missing. Only metrics it sends. */
  values: ReadonlyMap<MetricName, Float64Array>;
  /** Latency objective in seconds; NaN if none is declared. */
  sloLatencyS: number;
  incidents: readonly IncidentSpan[];
  /** Only ticks within are judged; what lies before fills the windows, what lies after was not watched. Default: all. */
  watched?: { fromMs: number; toMs: number } | undefined;
}

/** A way to foretell failures: the model, or one it is compared with. */
export interface Detector {
  /** Short and unique, with its parameters: `predict-linear 60/240`. */
  readonly name: string;
  /** The family it is one parameter setting of: `predict-linear`. The best of a family is chosen on training data. */
  readonly family: string;
  /** Learns what it needs from training cells (their healthy stretches; never their labels, except the model itself). */
  fit?(training: readonly CellSeries[]): void;
  /**
   * One score per tick, higher is worse, NaN where it says nothing. May look only at ticks up to the present one.
   * An alert begins when the score reaches a threshold that is tuned on training data to the false-alarm budget.
   */
  score(cell: CellSeries, peers: readonly CellSeries[]): Float32Array;
}
