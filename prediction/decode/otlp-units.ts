/** What a unit that an OTLP metric declares is worth in the unit of the canonical metrics. */
import type { MetricDefinition } from '../metrics';

export type Dimension = MetricDefinition['unit'];

const scales: Readonly<Record<Dimension, Readonly<Record<string, number>>>> = {
  s: { '': 1, s: 1, ms: 1e-3, us: 1e-6, ns: 1e-9, min: 60, h: 3600 },
  By: { '': 1, By: 1, bytes: 1, kBy: 1e3, MBy: 1e6, GBy: 1e9, KiBy: 1024, MiBy: 1024 ** 2, GiBy: 1024 ** 3 },
  '1': { '': 1, '1': 1, '%': 0.01 },
  '1/s': { '': 1, '1/s': 1 },
  'By/s': { '': 1, 'By/s': 1 },
};

/** Undefined for a unit of another dimension: a wrong unit is refused, not guessed. Braces are remarks, worth 1. */
export function unitScale(unit: unknown, dimension: Dimension): number | undefined {
  const name = typeof unit === 'string' ? unit.replace(/\{[^{}]*\}/g, '') : '';
  const known = scales[dimension];
  return Object.hasOwn(known, name) ? known[name] : undefined;
}
