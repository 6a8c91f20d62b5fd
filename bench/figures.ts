/** Figures of a benchmark: said as a table, written as JSON. */
import { writeFileSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';

export interface Figure {
  name: string;
  value: number;
  unit: string;
  /** As a person reads it, "<= 250"; null for what has none and only explains the others. */
  target: string | null;
  met: boolean | null;
}

const digits = (value: number) => Number(value.toPrecision(4));

export const atMost = (name: string, value: number, unit: string, most: number): Figure => ({
  name,
  value: digits(value),
  unit,
  target: `<= ${most}`,
  met: value <= most,
});

export const atLeast = (name: string, value: number, unit: string, least: number): Figure => ({
  name,
  value: digits(value),
  unit,
  target: `>= ${least}`,
  met: value >= least,
});

export const plain = (name: string, value: number, unit: string): Figure => ({
  name,
  value: digits(value),
  unit,
  target: null,
  met: null,
});

export function say(figures: readonly Figure[]): void {
  const width = Math.max(...figures.map(({ name }) => name.length));
  for (const { name, value, unit, target, met } of figures) {
    const judged = target === null ? '' : `  target ${target}: ${met ? 'met' : 'MISSED'}`;
    process.stdout.write(`${name.padEnd(width)}  ${String(value).padStart(9)} ${unit.padEnd(12)}${judged}\n`);
  }
}

/** Beside the figures: the machine, and how busy it was with other things. */
export function write(file: string, figures: readonly Figure[]): void {
  const machine = { cpus: cpus().length, model: cpus()[0]?.model ?? '', loadAverage: loadavg(), node: process.version };
  writeFileSync(file, `${JSON.stringify({ figures, machine }, null, 1)}\n`);
}

export function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? NaN;
}

/** Milliseconds of CPU that this process has used: on a busy machine the clock also counts what others did. */
export function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}
