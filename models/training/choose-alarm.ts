/**
 * Chooses the alarm thresholds on rows that the model had not seen (out of fold) and sums up what it makes of faults and
 * services it was never trained on. Run as `node dist/models/training/choose-alarm.js --rows DIR --out DIR` after train.py.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { readFlags } from '../../lab/arguments';
import type { CellSeries, Detector, IncidentSpan } from '../evaluation/contracts';
import { alertsOf, defaultRules, judge, summarize, type CellVerdict, type EventRules } from '../evaluation/events';
import { tuneDetector, watchBudget, type FalseAlarmBudget, type Tuned } from '../evaluation/tuning';

interface RowsDescription {
  rows: number;
  labelColumns: number;
  groups: { source: string; number: number; service: string; stepMs: number; faults: string[] }[];
  cells: {
    cell: string;
    group: number;
    fromMs: number;
    toMs: number;
    stepMs: number;
    incidents: (Omit<IncidentSpan, 'recoveredMs'> & { recoveredMs: number | null })[];
  }[];
}

interface Split {
  heldOutServices: string[];
  heldOutEvery: number;
  heldOutRemainder: number;
}

interface Manifest extends Record<string, unknown> {
  horizonsSteps: number[];
  split: Split;
}

/** An alarm begins when P(failure within the horizon) has been at or above the threshold for `persist` steps. */
export interface Alarm {
  threshold: number;
  persist: number;
}

/** What a model makes of cells when it was fitted without what the line names. */
export interface CrossValidationLine {
  /** `fold`: without the cell's own episode; `fault`, `service`: without any episode of that fault or service. */
  kind: 'fold' | 'fault' | 'service';
  left_out: string;
  incidents: number;
  caught: number;
  detected: number;
  falseAlarmsPerCellDay: number;
  cellDays: number;
}

/** Committing traffic on a false alarm costs more than watching: landscape figures ask for a sixth of the alarms. */
const commitBudget: FalseAlarmBudget = { falseAlarmsPerCellDay: 0.017, alarmTimeShare: 0.005 };

class ScoredRows {
  readonly about: RowsDescription;
  readonly series: CellSeries[];
  /** By cell: row of scores.f32 per tick; -1 where there is none. */
  private readonly rowOf: Int32Array[];
  private readonly scores: Float32Array;
  private readonly columns: number;

  constructor(dir: string, horizons: number) {
    this.about = JSON.parse(readFileSync(join(dir, 'rows.json'), 'utf8')) as RowsDescription;
    const { rows, labelColumns, cells } = this.about;
    const bytes = readFileSync(join(dir, 'labels.f64'));
    const labels = new Float64Array(bytes.buffer, bytes.byteOffset, rows * labelColumns);
    const scoreBytes = readFileSync(join(dir, 'scores.f32'));
    this.scores = new Float32Array(scoreBytes.buffer, scoreBytes.byteOffset, scoreBytes.byteLength / 4);
    this.columns = 3 * horizons;
    this.rowOf = cells.map(({ fromMs, toMs, stepMs }) =>
      new Int32Array(Math.floor((toMs - fromMs) / stepMs) + 2).fill(-1),
    );
    let plain = 0;
    for (let row = 0; row < rows; row++) {
      const at = row * labelColumns;
      if (labels[at + 2] !== 0) continue;
      (this.rowOf[labels[at + 1] as number] as Int32Array)[labels[at + 3] as number] = plain++;
    }
    this.series = cells.map(({ cell, fromMs, stepMs, incidents }, i) => ({
      cell,
      service: undefined,
      stepMs,
      startMs: fromMs,
      ticks: (this.rowOf[i] as Int32Array).length,
      values: new Map(),
      sloLatencyS: NaN,
      incidents: incidents.map((incident) => ({ ...incident, recoveredMs: incident.recoveredMs ?? Infinity })),
    }));
  }

  /** One score per tick of the cell; `column`: 0 out of fold, 1 without its fault, 2 without its service. */
  scoresOf(cell: number, column: number, horizon: number): Float32Array {
    const offset = column * (this.columns / 3) + horizon;
    return Float32Array.from(this.rowOf[cell] as Int32Array, (row) =>
      row < 0 ? NaN : (this.scores[row * this.columns + offset] as number),
    );
  }
}

function isHeldOut(group: RowsDescription['groups'][number], split: Split): boolean {
  return split.heldOutServices.includes(group.service) || group.number % split.heldOutEvery === split.heldOutRemainder;
}

function main(): void {
  const flags = readFlags({ rows: 'string', out: 'string' });
  if (!flags.rows || !flags.out) throw new Error('--rows DIR and --out DIR are needed.');
  const manifestFile = join(flags.out, 'manifest.json');
  const manifest = JSON.parse(readFileSync(manifestFile, 'utf8')) as Manifest;
  const { horizonsSteps, split } = manifest;
  const rows = new ScoredRows(flags.rows, horizonsSteps.length);
  const { groups, cells } = rows.about;
  const groupOf = (i: number) => groups[(cells[i] as (typeof cells)[number]).group] as (typeof groups)[number];
  const training = rows.series.flatMap((_, i) => (isHeldOut(groupOf(i), split) ? [] : [i]));
  const rules: EventRules = { ...defaultRules, horizonTicks: horizonsSteps.at(-1) as number };

  const tuneAt = (horizon: number, budget: FalseAlarmBudget): Tuned => {
    const scores = new Map(training.map((i) => [rows.series[i], rows.scoresOf(i, 0, horizon)]));
    const detector: Detector = {
      name: `F(${horizonsSteps[horizon]})`,
      family: 'model',
      score: (cell) => scores.get(cell) as Float32Array,
    };
    return tuneDetector(detector, { training: training.map((i) => rows.series[i] as CellSeries), rules, budget });
  };
  let best: { horizon: number; tuned: Tuned } | undefined;
  for (const horizon of horizonsSteps.keys()) {
    const tuned = tuneAt(horizon, watchBudget);
    const { caught, incidents, falseAlarmsPerCellDay, alarmTimeShare } = tuned.figures;
    process.stdout.write(
      `F(${horizonsSteps[horizon]}) >= ${tuned.threshold.toFixed(4)} for ${tuned.persist}: ${caught} of ${incidents} caught, ` +
        `${falseAlarmsPerCellDay.toFixed(3)} false alarms per cell-day, ${(100 * alarmTimeShare).toFixed(2)} % of time\n`,
    );
    if (!best || tuned.figures.caught > best.tuned.figures.caught) best = { horizon, tuned };
  }
  if (!best) throw new Error('The model has no horizon.');
  const { horizon } = best;
  const commit = tuneAt(horizon, commitBudget);
  const alarm = { horizonSteps: horizonsSteps[horizon], watch: asAlarm(best.tuned), commit: asAlarm(commit) };
  writeFileSync(manifestFile, `${JSON.stringify({ ...manifest, alarm }, null, 1)}\n`);

  const lines: CrossValidationLine[] = [];
  const verdictsOf = (column: number, of: readonly number[]): CellVerdict[] =>
    of.map((i) => {
      const series = rows.series[i] as CellSeries;
      const { threshold, persist } = alarm.watch;
      return judge(series, alertsOf(rows.scoresOf(i, column, horizon), threshold, persist), rules);
    });
  const add = (kind: CrossValidationLine['kind'], left_out: string, column: number, of: number[], fault?: string) => {
    const verdicts = verdictsOf(column, of);
    const own = verdicts.flatMap((v) => v.incidents).filter((v) => fault === undefined || v.incident.fault === fault);
    const { falseAlarmsPerCellDay, cellDays } = summarize(verdicts);
    const count = (outcome: string) => own.filter((v) => v.outcome === outcome).length;
    lines.push({
      kind,
      left_out,
      incidents: own.length,
      caught: count('caught'),
      detected: count('detected'),
      falseAlarmsPerCellDay,
      cellDays,
    });
  };
  for (const fault of new Set(training.flatMap((i) => groupOf(i).faults))) {
    const of = training.filter((i) => groupOf(i).faults.includes(fault));
    add('fold', fault, 0, of, fault);
    add('fault', fault, 1, of, fault);
  }
  for (const service of new Set(training.map((i) => groupOf(i).service))) {
    const of = training.filter((i) => groupOf(i).service === service);
    add('fold', service, 0, of);
    add('service', service, 2, of);
  }
  writeFileSync(join(flags.out, 'cross-validation.json'), `${JSON.stringify(lines, null, 1)}\n`);
  for (const line of lines) {
    process.stdout.write(
      `${line.kind.padEnd(8)} ${line.left_out.padEnd(18)} ${line.caught}/${line.incidents} caught, ` +
        `${line.falseAlarmsPerCellDay.toFixed(3)} false alarms per cell-day\n`,
    );
  }
}

const asAlarm = ({ threshold, persist }: Tuned): Alarm => ({ threshold: Number(threshold.toPrecision(6)), persist });

main();
