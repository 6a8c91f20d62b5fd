/** The alert rules that everybody starts with: a resource above 90 %, errors above 5 %, latency above its objective. */
import type { CellSeries, Detector } from '../contracts';
import { sustained } from './rolling';
import { pressures, type Pressure } from './signals';

const resourceAlarm = 0.9;

const subjects = {
  resources: ['exhaustible', 'load'],
  symptoms: ['service-level'],
  all: ['exhaustible', 'load', 'service-level'],
} as const satisfies Record<string, readonly Pressure['kind'][]>;

/** The worst value, as a ratio to its alarm level: 1 is the rule as published, and tuning moves all levels together. */
function worstRatio(cell: CellSeries, kinds: readonly Pressure['kind'][]): Float32Array {
  const worst = new Float32Array(cell.ticks).fill(NaN);
  for (const { kind, share } of pressures(cell)) {
    if (!kinds.includes(kind)) continue;
    const alarm = kind === 'service-level' ? 1 : resourceAlarm;
    for (let tick = 0; tick < cell.ticks; tick++) {
      const ratio = share[tick]! / alarm;
      if (ratio === ratio && !(worst[tick]! >= ratio)) worst[tick] = ratio;
    }
  }
  return worst;
}

export const staticThresholds = (): Detector[] =>
  Object.entries(subjects).flatMap(([subject, kinds]) =>
    [1, 5, 10].map((forTicks): Detector => ({
      name: `static-thresholds ${subject} for ${forTicks}`,
      family: 'static-thresholds',
      score: (cell) => sustained(worstRatio(cell, kinds), forTicks),
    })),
  );
