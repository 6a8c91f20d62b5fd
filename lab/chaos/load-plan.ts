/** The planned load of a cell: how many requests per second are meant to come at a time. */
import { loadShapes, type LoadShape } from './services';

export interface LoadPlan {
  shape: LoadShape;
  /** Mean requests per second. */
  mean: number;
  /** Deviation from the mean as a share of it, 0 to 1. */
  swing: number;
  periodS: number;
  /** 0 to 1. */
  phase: number;
}

/** Smooth noise in [-1, 1], the same for the same place. */
function noiseAt(x: number, seed: number): number {
  const at = (n: number): number => {
    let h = Math.imul(n + 1, 0x9e3779b1) ^ Math.imul(seed + 1, 0x85ebca6b);
    h = Math.imul(h ^ (h >>> 15), 0x2c1b3c6d);
    h ^= h >>> 12;
    return ((h >>> 0) / 4294967296) * 2 - 1;
  };
  const n = Math.floor(x);
  const share = (x - n) * (x - n) * (3 - 2 * (x - n));
  return at(n) * (1 - share) + at(n + 1) * share;
}

/** Planned arrivals per second at a time, before load events. */
export function rateAt({ shape, mean, swing, periodS, phase }: LoadPlan, atS: number): number {
  const turns = atS / periodS + phase;
  const inTurn = turns - Math.floor(turns);
  const small = 0.05 * noiseAt(atS / 3, 1000 * phase);
  let deviation: number;
  switch (shape) {
    case 'steady':
      deviation = 0;
      break;
    case 'diurnal':
      deviation = Math.sin(2 * Math.PI * turns);
      break;
    case 'steps':
      deviation = noiseAt(Math.floor(turns * 2) * 7, 991 * phase);
      break;
    case 'bursts':
      // Short and high; the mean over a turn stays 0.
      deviation = inTurn < 0.2 ? 1.2 : -0.3;
      break;
    case 'ramps':
      deviation = inTurn < 0.8 ? -1 + (2 * inTurn) / 0.8 : 1 - (2 * (inTurn - 0.8)) / 0.2;
      break;
    case 'noise':
      deviation = noiseAt(atS / (periodS / 10), 3571 * phase);
      break;
  }
  return Math.max(0.1, mean * (1 + swing * deviation + small));
}

export { loadShapes };
