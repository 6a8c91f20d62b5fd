/**
 * Judges the scores that training gave rows its models had not seen: out of fold, without their fault, without their
 * service. From the first of these comes the alert threshold that goes into the manifest. Run as
 * `node dist/models/evaluation/cross-validation.js --rows DIR --manifest FILE --out FILE`.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { readFlags } from '../../lab/arguments';
import type { CellSeries, Detector, IncidentSpan } from './contracts';
import { figuresOf, type Alerting, type DetectorFigures } from './detector-figures';
import { defaultRules, type EventRules } from './events';
import { isHeldOut, type Split } from './split';
import { tuneDetector, watchBudget } from './tuning';

export interface LeftOut {
  kind: 'out-of-fold' | 'fault' | 'service';
  /** The fault or service that the model had never seen; empty for out of fold. */
  left_out: string;
  incidents: number;
  caught: number;
  recall: number | null;
  falseAlarmsPerCellDay: number | null;
  alarmTimeShare: number | null;
  prAuc: number | null;
  ece: number | null;
}

interface RowsDescription {
  rows: number;
  labelColumns: number;
  groups: { source: string; number: number; service: string; stepMs: number; faults: string[] }[];
  cells: { cell: string; group: number; fromMs: number; toMs: number; stepMs: number; incidents: IncidentSpan[] }[];
}

export interface ScoredRows {
  cells: CellSeries[];
  about: RowsDescription;
  /** By kind of score, a row per cell. */
  scores: Record<LeftOut['kind'], Float32Array[]>;
}

const kinds = ['out-of-fold', 'fault', 'service'] as const;

/** Puts the rows' scores back on the ticks of their cells. */
export function readScoredRows(dir: string, horizons: number): ScoredRows {
  const about = JSON.parse(readFileSync(join(dir, 'rows.json'), 'utf8'), (key, value: unknown) =>
    // JSON has no Infinity: a failure that lasted was written as null.
    key === 'recoveredMs' && value === null ? Infinity : value,
  ) as RowsDescription;
  const labels = readFileSync(join(dir, 'labels.f64'));
  const scored = readFileSync(join(dir, 'scores.f32'));
  const cells = about.cells.map((c): CellSeries => {
    const ticks = Math.round((c.toMs - c.fromMs) / c.stepMs) + 1;
    return {
      cell: c.cell,
      service: about.groups[c.group]?.service,
      stepMs: c.stepMs,
      startMs: c.fromMs,
      ticks,
      values: new Map(),
      sloLatencyS: NaN,
      incidents: c.incidents,
    };
  });
  const empty = (): Float32Array[] => cells.map(({ ticks }) => new Float32Array(ticks).fill(NaN));
  const scores = { 'out-of-fold': empty(), fault: empty(), service: empty() };
  let plain = 0;
  for (let row = 0; row < about.rows; row++) {
    const label = (column: number): number => labels.readDoubleLE(8 * (row * about.labelColumns + column));
    if (label(2) !== 0) continue;
    kinds.forEach((kind, k) => {
      // The last horizon of each kind: the longest.
      const at = plain * kinds.length * horizons + (k + 1) * horizons - 1;
      const ofCell = scores[kind][label(1)];
      if (ofCell && label(3) < ofCell.length) ofCell[label(3)] = scored.readFloatLE(4 * at);
    });
    plain += 1;
  }
  if (scored.length !== 4 * plain * kinds.length * horizons) {
    throw new Error(
      `${dir}/scores.f32 has ${scored.length} bytes for ${plain} rows: train again, it is of other rows.`,
    );
  }
  return { cells, about, scores };
}

/** The threshold with the most incidents caught within the budget of false alarms, on scores out of fold. */
export function tuneAlert(cells: readonly CellSeries[], scores: readonly Float32Array[], rules: EventRules): Alerting {
  const byCell = new Map(cells.map((cell, i) => [cell, scores[i] as Float32Array]));
  const detector: Detector = {
    name: 'model',
    family: 'model',
    score: (cell) => byCell.get(cell) as Float32Array,
  };
  const { threshold, persist } = tuneDetector(detector, { training: cells, rules, budget: watchBudget });
  return { threshold: Number.isFinite(threshold) ? threshold : 1, persist };
}

export function crossValidate({ cells, about, scores }: ScoredRows, split: Split, rules: EventRules) {
  const inTraining = cells.flatMap((_, i) => (isHeldOut(split, groupOf(about, i)) ? [] : [i]));
  const pick = <T>(from: readonly T[], indexes: readonly number[]): T[] => indexes.map((i) => from[i] as T);
  const outOfFold = pick(scores['out-of-fold'], inTraining);
  const alert = tuneAlert(pick(cells, inTraining), outOfFold, rules);
  const figures = (of: readonly CellSeries[], row: readonly Float32Array[]): DetectorFigures =>
    figuresOf('left out', of, row, { rules, alerting: alert, isProbability: true });
  const entries = [entryOf('out-of-fold', '', figures(pick(cells, inTraining), outOfFold))];
  const names = {
    fault: [...new Set(about.groups.flatMap(({ faults }) => faults))].sort(),
    service: [...new Set(about.groups.map(({ service }) => service))].sort(),
  };
  for (const kind of ['fault', 'service'] as const) {
    for (const name of names[kind]) {
      const indexes = cells.flatMap((_, i) => {
        const { faults, service } = groupOf(about, i);
        const isIts = kind === 'fault' ? faults.includes(name) : service === name;
        return isIts && scores[kind][i]?.some((score) => !Number.isNaN(score)) ? [i] : [];
      });
      if (indexes.length === 0) continue;
      const found = figures(pick(cells, indexes), pick(scores[kind], indexes));
      entries.push(entryOf(kind, name, found, kind === 'fault' ? name : undefined));
    }
  }
  return { alert, horizonTicks: rules.horizonTicks, entries };
}

const groupOf = (about: RowsDescription, cell: number) =>
  about.groups[about.cells[cell]?.group ?? -1] as RowsDescription['groups'][number];

const finite = (value: number | undefined): number | null =>
  value === undefined || !Number.isFinite(value) ? null : Number(value.toPrecision(5));

/** With `fault`, only its incidents count: others in the same episode had been seen in training. */
function entryOf(kind: LeftOut['kind'], leftOut: string, figures: DetectorFigures, fault?: string): LeftOut {
  const incidents = figures.verdicts
    .flatMap((v) => v.incidents)
    .filter(({ incident }) => fault === undefined || incident.fault === fault);
  const caught = incidents.filter(({ outcome }) => outcome === 'caught').length;
  return {
    kind,
    left_out: leftOut,
    incidents: incidents.length,
    caught,
    recall: finite(caught / incidents.length),
    falseAlarmsPerCellDay: finite(figures.events.falseAlarmsPerCellDay),
    alarmTimeShare: finite(figures.events.alarmTimeShare),
    prAuc: finite(figures.prAuc),
    ece: finite(figures.calibration?.ece),
  };
}

function main(): void {
  const flags = readFlags({ rows: 'string', manifest: 'string', out: 'string' });
  if (!flags.rows || !flags.manifest || !flags.out)
    throw new Error('--rows DIR, --manifest FILE and --out FILE are needed.');
  const manifest = JSON.parse(readFileSync(flags.manifest, 'utf8')) as { horizonsSteps: number[]; split: Split };
  const { horizonsSteps, split } = manifest;
  const rules: EventRules = { ...defaultRules, horizonTicks: horizonsSteps[horizonsSteps.length - 1] as number };
  const result = crossValidate(readScoredRows(flags.rows, horizonsSteps.length), split, rules);
  writeFileSync(flags.out, `${JSON.stringify(result, null, 1)}\n`);
  writeFileSync(flags.manifest, `${JSON.stringify({ ...manifest, alert: result.alert }, null, 1)}\n`);
  for (const { kind, left_out, incidents, caught, falseAlarmsPerCellDay } of result.entries) {
    process.stdout.write(
      `${kind} ${left_out}: ${caught} of ${incidents} caught, ${falseAlarmsPerCellDay ?? '-'} false alarms per cell-day\n`,
    );
  }
}

if (require.main === module) {
  try {
    main();
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n`);
    process.exit(1);
  }
}
