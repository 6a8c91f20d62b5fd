/** What flows through the Failure Prediction Engine: samples in, scores and risk events out. */
import type { MetricName } from './metrics';

/** One decoded measurement. */
export interface Sample {
  cell: string;
  instance: string;
  /** Milliseconds since the epoch, by the producer's clock. */
  atMs: number;
  metric: MetricName;
  /** In the metric's SI unit; always finite. */
  value: number;
}

/** Why a score is what it is: one canonical metric's part in it. */
export interface Driver {
  metric: MetricName;
  /** Whether the metric pushes the probability up or down. */
  direction: 'up' | 'down';
  /** Signed contribution in log-odds of the failure probability. */
  contribution: number;
  /** One sentence for a person: "heap 91 % of limit, +1.2 %/s, limit in 7 s". */
  text: string;
}

export interface TimeToFailure {
  /** Seconds; null when the quantile lies beyond the longest horizon. */
  p10: number | null;
  p50: number | null;
  p90: number | null;
}

/** The published score of one cell at one tick (topic `understudy.scores`, compacted, keyed by cell). */
export interface Score {
  cell: string;
  service: string;
  /** ISO 8601, the tick's event time. */
  ts: string;
  /** 0 (failing) to 100 (well); `unknown` when coverage or freshness does not allow a word. */
  health: number | 'unknown';
  /** P(failure within the horizon), calibrated, by horizon in seconds. */
  probability: Record<string, number>;
  time_to_failure_s: TimeToFailure;
  /** 0 to 1, how unlike anything in training; never raises the probability. */
  novelty: number;
  /** 0 to 1, how far the telemetry behind the score can be believed. */
  trust: number;
  drivers: Driver[];
  model: string;
}

/**
 * How much a risk episode justifies: `clear` ends it, `prepare` allows the cheap, reversible steps (create, warm,
 * arm), `shift` allows moving traffic.
 */
export type RiskLevel = 'clear' | 'prepare' | 'shift';

/** What the scoring worker tells the workflow while an episode lasts (signal `riskChanged`). Silence is stale, never healthy. */
export interface RiskEvent {
  /** Deduplicates redelivery: `<episodeId>#<tick in ms>`. */
  eventId: string;
  /** `<cell>@<ISO time the episode began>`. */
  episodeId: string;
  service: string;
  cell: string;
  /** ISO 8601, the tick's event time. */
  at: string;
  level: RiskLevel;
  /** P(failure within horizonS). */
  probability: number;
  horizonS: number;
  health: number | 'unknown';
  timeToFailureS: TimeToFailure;
  trust: number;
  drivers: Driver[];
  model: string;
  /** Set where nothing was predicted: the failure is seen, by the failure detector, or seen to be over. */
  observed?: { state: 'dead' | 'alive'; why: string };
  /** Of a practice prediction: the id of its drill. Never set by the scoring worker. */
  drill?: string;
}
