/** Prometheus' `predict_linear`: a line through the last window, extrapolated over a horizon, against the limit. */
import type { CellSeries, Detector } from '../contracts';
import { RollingTrend, sustained } from './rolling';
import { pressures, rememberLatest, type Pressure } from './signals';

interface Rule {
  name: string;
  windowTicks: number;
  horizonTicks: number;
  forTicks: number;
  /** Only resources used beyond this share count, as `avail < 40 %` does in the published rules; 0 for none. */
  floor: number;
  kinds: readonly Pressure['kind'][];
}

/** The line speaks once so much of its window is there. */
const presentShare = 0.25;

interface Line {
  kind: Pressure['kind'];
  share: Float64Array;
  /** The line's value now, and its change per tick. */
  level: Float32Array;
  slope: Float32Array;
}

const lines: (cell: CellSeries, windowTicks: number) => readonly Line[] = rememberLatest((cell, windowTicks) =>
  pressures(cell).map(({ kind, share }): Line => {
    const trend = new RollingTrend(windowTicks);
    const level = new Float32Array(cell.ticks).fill(NaN);
    const slope = new Float32Array(cell.ticks).fill(NaN);
    for (let tick = 0; tick < cell.ticks; tick++) {
      trend.push(share[tick]!);
      if (trend.count < Math.max(3, presentShare * windowTicks)) continue;
      level[tick] = trend.at(0);
      slope[tick] = trend.slope;
    }
    return { kind, share, level, slope };
  }),
);

/** The furthest that any metric will be at the horizon: 1 is at its limit then, 2 is twice as far. */
function furthest(cell: CellSeries, rule: Rule): Float32Array {
  const result = new Float32Array(cell.ticks).fill(NaN);
  for (const { kind, share, level, slope } of lines(cell, rule.windowTicks)) {
    if (!rule.kinds.includes(kind)) continue;
    for (let tick = 0; tick < cell.ticks; tick++) {
      const now = share[tick]!;
      const projected = level[tick]! + slope[tick]! * rule.horizonTicks;
      if (now !== now || projected !== projected) continue;
      const counted = now >= rule.floor && projected > 0 ? projected : 0;
      if (!(result[tick]! >= counted)) result[tick] = counted;
    }
  }
  return result;
}

const detector = (rule: Rule): Detector => ({
  name: rule.name,
  family: 'predict-linear',
  score: (cell) => sustained(furthest(cell, rule), rule.forTicks),
});

const exhaustible: Rule['kinds'] = ['exhaustible'];
const subjects = { space: exhaustible, all: ['exhaustible', 'load', 'service-level'] as const };

/** The rules as published, at one sample a minute, the usual scrape interval: `[1h]` is 60 ticks. */
const published: readonly Rule[] = [
  { name: '[1h] 4h for 30m', windowTicks: 60, horizonTicks: 240, forTicks: 30, floor: 0, kinds: exhaustible },
  { name: '[6h] 24h for 30m', windowTicks: 360, horizonTicks: 1440, forTicks: 30, floor: 0, kinds: exhaustible },
  { name: '[6h] 24h 60 % for 1h', windowTicks: 360, horizonTicks: 1440, forTicks: 60, floor: 0.6, kinds: exhaustible },
  { name: '[6h] 4h 80 % for 1h', windowTicks: 360, horizonTicks: 240, forTicks: 60, floor: 0.8, kinds: exhaustible },
  { name: '[6h] 4d 85 % for 1h', windowTicks: 360, horizonTicks: 5760, forTicks: 60, floor: 0.85, kinds: exhaustible },
];

/** Ordered by window: members of one window share their lines. */
export const predictLinear = (): Detector[] => [
  ...[15, 30, 60, 120, 240].flatMap((windowTicks) =>
    [1, 2, 4].flatMap((times) =>
      [0, 0.6].flatMap((floor) =>
        Object.entries(subjects).flatMap(([subject, kinds]) =>
          [1, 5, 10].map((forTicks) => {
            const horizonTicks = times * windowTicks;
            const above = floor > 0 ? ` above ${floor * 100} %` : '';
            const name = `predict-linear ${subject} ${windowTicks}/${horizonTicks}${above} for ${forTicks}`;
            return detector({ name, windowTicks, horizonTicks, forTicks, floor, kinds });
          }),
        ),
      ),
    ),
  ),
  ...published.map((rule) => detector({ ...rule, name: `predict-linear ${rule.name}` })),
];
