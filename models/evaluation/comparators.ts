/** Every method the model is compared with, and all of them together as a practitioner would run them. */
import { anomalyBands } from './comparators/anomaly-band';
import { clusterDistances } from './comparators/cluster-distance';
import { forecastBands } from './comparators/forecast-band';
import { isolationForests } from './comparators/isolation-forest';
import { pcas } from './comparators/pca';
import { peerOutliers } from './comparators/peer-outlier';
import { predictLinear } from './comparators/predict-linear';
import { sustained } from './comparators/rolling';
import { staticThresholds } from './comparators/static-thresholds';
import { tailProbabilities } from './comparators/tail-probability';
import { threeSigma } from './comparators/three-sigma';
import type { Detector } from './contracts';

/** Each family with its whole grid; members of one family stand together, and share work if scored in this order. */
export const allComparators = (): readonly Detector[] => [
  ...staticThresholds(),
  ...predictLinear(),
  ...threeSigma(),
  ...forecastBands(),
  ...anomalyBands(),
  ...peerOutliers(),
  ...clusterDistances(),
  ...tailProbabilities(),
  ...isolationForests(),
  ...pcas(),
];

export interface StackMember {
  readonly detector: Detector;
  readonly threshold: number;
  /** Ticks in a row that this member must be at its threshold; 1 if not said. */
  readonly persist?: number;
}

/** How far a score is towards its threshold: 1 at it, rising with the score whatever the threshold's sign. */
function towards(score: number, threshold: number): number {
  return threshold > 0 ? score / threshold : 1 + score - threshold;
}

/**
 * The practitioner's stack: an alert when any member alerts. Its score is the largest of the members' scores as multiples
 * of their thresholds, so 1 means that one of them is at its own; a lower false-alarm budget for the whole raises it.
 */
export function orOf(members: readonly StackMember[]): Detector {
  return {
    name: `any of ${members.map(({ detector }) => detector.name).join(', ')}`,
    family: 'practitioner-stack',
    fit(training) {
      for (const { detector } of members) detector.fit?.(training);
    },
    score(cell, peers) {
      const worst = new Float32Array(cell.ticks).fill(NaN);
      for (const { detector, threshold, persist } of members) {
        const scores = sustained(detector.score(cell, peers), persist ?? 1);
        // Rounded as the scores are: at its threshold a member must reach 1.
        const limit = Math.fround(threshold);
        for (let tick = 0; tick < cell.ticks; tick++) {
          const score = scores[tick]!;
          if (score !== score) continue;
          const share = towards(score, limit);
          if (!(worst[tick]! >= share)) worst[tick] = share;
        }
      }
      return worst;
    },
  };
}
