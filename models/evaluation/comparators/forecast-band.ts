/** Forecast monitors, as Datadog has them: an alert when the edge of the prediction band crosses the limit within the horizon. */
import type { CellSeries, Detector } from '../contracts';
import { RollingTrend } from './rolling';
import { pressures, type Pressure } from './signals';

/** Where the series may be at the horizon, at its upper edge; NaN while too little is known. */
type Forecast = (share: Float64Array, windowTicks: number, horizonTicks: number, bounds: number) => Float32Array;

const presentShare = 0.25;

const linear: Forecast = (share, windowTicks, horizonTicks, bounds) => {
  const trend = new RollingTrend(windowTicks);
  const edge = new Float32Array(share.length).fill(NaN);
  for (let tick = 0; tick < share.length; tick++) {
    trend.push(share[tick]!);
    if (trend.count < Math.max(4, presentShare * windowTicks)) continue;
    edge[tick] = trend.at(horizonTicks) + bounds * trend.errorAt(horizonTicks);
  }
  return edge;
};

/** Holt's two equations. The band is that of Holt's model: errors of level and slope add up over the horizon. */
const holt: Forecast = (share, windowTicks, horizonTicks, bounds) => {
  const alpha = 2 / (windowTicks / 4 + 1);
  const beta = 2 / (windowTicks + 1);
  const step = alpha * beta;
  const m = horizonTicks - 1;
  const widening = 1 + m * (alpha * alpha + alpha * step * (m + 1) + (step * step * (m + 1) * (2 * m + 1)) / 6);
  const edge = new Float32Array(share.length).fill(NaN);
  let level = NaN;
  let slope = 0;
  let variance = 0;
  let known = 0;
  for (let tick = 0; tick < share.length; tick++) {
    const value = share[tick]!;
    if (value !== value) {
      level += slope;
      continue;
    }
    known++;
    if (known === 1) level = value;
    else {
      const error = value - (level + slope);
      const before = level;
      level += slope + alpha * error;
      slope += beta * (level - before - slope);
      const weight = Math.max(1 / windowTicks, 1 / (known - 1));
      variance += weight * (error * error - variance);
    }
    if (known < Math.max(4, presentShare * windowTicks)) continue;
    edge[tick] = level + slope * horizonTicks + bounds * Math.sqrt(variance * widening);
  }
  return edge;
};

const methods = { linear, holt };

function worstEdge(
  cell: CellSeries,
  kinds: readonly Pressure['kind'][],
  forecast: (share: Float64Array) => Float32Array,
) {
  const worst = new Float32Array(cell.ticks).fill(NaN);
  for (const { kind, share } of pressures(cell)) {
    if (!kinds.includes(kind)) continue;
    const edge = forecast(share);
    for (let tick = 0; tick < cell.ticks; tick++) if (!(worst[tick]! >= edge[tick]!)) worst[tick] = edge[tick]!;
  }
  return worst;
}

const subjects: Readonly<Record<string, readonly Pressure['kind'][]>> = {
  space: ['exhaustible'],
  all: ['exhaustible', 'load', 'service-level'],
};

export const forecastBands = (): Detector[] =>
  Object.entries(methods).flatMap(([method, forecast]) =>
    Object.entries(subjects).flatMap(([subject, kinds]) =>
      [30, 60, 120, 240].flatMap((windowTicks) =>
        [1, 2].flatMap((times) =>
          [2, 3].map((bounds): Detector => ({
            name: `forecast-band ${method} ${subject} ${windowTicks}/${times * windowTicks} bounds ${bounds}`,
            family: 'forecast-band',
            score: (cell) =>
              worstEdge(cell, kinds, (share) => forecast(share, windowTicks, times * windowTicks, bounds)),
          })),
        ),
      ),
    ),
  );
