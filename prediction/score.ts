/** From the model's hazards and the state of the telemetry to the score that is published. Pure. */
import type { Score, TimeToFailure } from './contracts';
import { features } from './feature-spec';
import type { TickInfo } from './features';

/** Where on the time axis the model's bins end, in seconds. */
export type Horizons = readonly number[];

/** F(H) = 1 - prod(1 - hazard) at each horizon; ascends by construction. Written to `result`, if one is given. */
export function cumulative(
  hazards: Float32Array,
  offset: number,
  bins: number,
  result: number[] = new Array<number>(bins),
): number[] {
  let survival = 1;
  for (let k = 0; k < bins; k++) {
    const hazard = hazards[offset + k] as number;
    // A hazard that is no number says nothing; it must not become certainty in either direction.
    survival *= 1 - (hazard === hazard ? Math.min(1, Math.max(0, hazard)) : 0);
    result[k] = 1 - survival;
  }
  return result;
}

/** P(failure within `seconds`), interpolated between horizons; beyond the longest it is that of the longest. */
export function probabilityWithin(seconds: number, failure: readonly number[], horizonsS: Horizons): number {
  let fromS = 0;
  let from = 0;
  for (let k = 0; k < failure.length; k++) {
    const toS = horizonsS[k] as number;
    const to = failure[k] as number;
    if (seconds <= toS) return from + ((to - from) * (seconds - fromS)) / (toS - fromS);
    fromS = toS;
    from = to;
  }
  return from;
}

/** The time at which the failure probability reaches each quantile; null beyond the longest horizon. */
export function timeToFailure(failure: readonly number[], horizonsS: Horizons): TimeToFailure {
  // The rule among cells: not one of the quantiles is in sight.
  if (!((failure[failure.length - 1] ?? 0) >= 0.1)) return { p10: null, p50: null, p90: null };
  return {
    p10: timeUntil(0.1, failure, horizonsS),
    p50: timeUntil(0.5, failure, horizonsS),
    p90: timeUntil(0.9, failure, horizonsS),
  };
}

function timeUntil(q: number, failure: readonly number[], horizonsS: Horizons): number | null {
  let fromS = 0;
  let from = 0;
  for (let k = 0; k < failure.length; k++) {
    const toS = horizonsS[k] as number;
    const to = failure[k] as number;
    if (to >= q) return to > from ? fromS + ((toS - fromS) * (q - from)) / (to - from) : toS;
    fromS = toS;
    from = to;
  }
  return null;
}

const zFeatures = features.flatMap(({ feature }, i) => (feature === 'z' ? [i] : []));

/** Robust-z energy of all metrics, 0 (as usual) to 1: how unlike its own past the cell is. Never raises the probability. */
export function novelty(row: Float32Array, offset: number): number {
  let n = 0;
  let energy = 0;
  for (const i of zFeatures) {
    const z = row[offset + i] as number;
    if (z !== z) continue;
    const capped = Math.min(Math.abs(z), 10);
    n += 1;
    energy += capped * capped;
  }
  if (n === 0) return 0;
  return Math.min(1, Math.max(0, (Math.sqrt(energy / n) - 2) / 6));
}

/** Newest sample older than this many steps: the score is `unknown`. */
export const staleSteps = 5;
const skewToleratedMs = 5_000;
const skewHopelessMs = 60_000;

export interface TelemetryState extends TickInfo {
  stepMs: number;
  /** How far producer time and record time lie apart, in ms. */
  skewMs: number;
  /** A metric seems to have changed its unit: see unit-watch.ts. */
  unitDoubted?: boolean;
}

export function isUnknown({ coverage, newestSampleAgeMs, stepMs }: TelemetryState): boolean {
  return coverage < 0.5 || newestSampleAgeMs > staleSteps * stepMs;
}

/** Below what a default policy asks for before it moves traffic. */
const trustOfDoubtedUnit = 0.4;

/** 0 to 1: freshness x coverage x clocks x history x units, each 1 when all is well. */
export function trust(state: TelemetryState): number {
  const ageSteps = state.newestSampleAgeMs / state.stepMs;
  const freshness = falling(ageSteps, 2, staleSteps);
  const skew = falling(Math.abs(state.skewMs), skewToleratedMs, skewHopelessMs);
  const history = Math.min(1, state.historySteps / 10);
  const instances = state.knownInstances === 0 ? 0 : 0.5 + (0.5 * state.freshInstances) / state.knownInstances;
  const units = state.unitDoubted ? trustOfDoubtedUnit : 1;
  return freshness * state.coverage * skew * history * instances * units;
}

/** 1 up to `good`, 0 from `bad` on, linear between. */
function falling(value: number, good: number, bad: number): number {
  if (value <= good) return 1;
  return value >= bad ? 0 : (bad - value) / (bad - good);
}

export interface ScoreInput {
  cell: string;
  service: string;
  /** The tick's event time, ISO 8601. */
  ts: string;
  failure: readonly number[];
  horizonsS: Horizons;
  novelty: number;
  state: TelemetryState;
  /** Users already feel it: latency or error objective missed at this tick. */
  objectiveMissed: boolean;
  model: string;
}

const round = (value: number, to: number) => Math.round(value * to) / to;
const roundSeconds = (value: number | null) => (value === null ? null : round(value, 10));

function byHorizon(failure: readonly number[], horizonsS: Horizons): Record<string, number> {
  const probability: Record<string, number> = {};
  for (let k = 0; k < horizonsS.length; k++) probability[horizonsS[k] as number] = round(failure[k] ?? 0, 1e6);
  return probability;
}

/** The score without drivers, which are added where the risk calls for them. */
export function scoreOf(input: ScoreInput): Score {
  const { failure, horizonsS, state } = input;
  const longest = failure[failure.length - 1] ?? 0;
  let health = 100 * (1 - longest) - 30 * input.novelty;
  if (input.objectiveMissed) health = Math.min(health, 20);
  const time = timeToFailure(failure, horizonsS);
  return {
    cell: input.cell,
    service: input.service,
    ts: input.ts,
    health: isUnknown(state) ? 'unknown' : Math.round(Math.max(0, health)),
    probability: byHorizon(failure, horizonsS),
    time_to_failure_s: { p10: roundSeconds(time.p10), p50: roundSeconds(time.p50), p90: roundSeconds(time.p90) },
    novelty: round(input.novelty, 1e4),
    trust: round(trust(state), 1e4),
    drivers: [],
    model: input.model,
  };
}
