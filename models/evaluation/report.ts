/** What an evaluation found, as plain data: the JSON that is written, and all that its HTML page and the model card show. */
import type { Driver } from '../../prediction/contracts';
import type { CellSeries } from './contracts';
import {
  figuresOf,
  kindOf,
  leakAlarm,
  type Alerting,
  type DetectorFigures,
  type FaultKind,
  type LeakAlarm,
} from './detector-figures';
import { ticksPerCellDay, type EventRules, type FalseAlarm, type IncidentVerdict } from './events';
import { pairedDifference, shareInterval, type Interval } from './bootstrap';
import { hitAt } from './fault-metrics';
import type { GateVerdict } from './gate';
import type { ScoredCell } from './model-detector';

/** One figure, with what it should be where there is a target. */
export interface Figure {
  name: string;
  /** null where there was nothing to measure it on. */
  value: number | null;
  unit: string;
  /** `>= 0.85`; null for a figure that is only told. */
  target: string | null;
  met: boolean | null;
  /** 95 % interval by resampling incidents. */
  interval?: [number, number];
}

export interface ReportedIncident {
  cell: string;
  service: string | null;
  fault: string;
  kind: FaultKind;
  faultStart: string;
  onset: string;
  outcome: IncidentVerdict['outcome'];
  leadTicks: number | null;
  incubationTicks: number;
  beforeFault: boolean;
  drivers: Driver[];
}

export interface ReportedFalseAlarm {
  cell: string;
  at: string;
  ticks: number;
  count: number;
  highest: number;
  drivers: Driver[];
}

/** Probability over time around an incident or a false alarm. */
export interface Timeline {
  title: string;
  cell: string;
  outcome: string;
  stepMs: number;
  /** Seconds relative to the onset (or the alarm) and probability; null: no word. Thinned, peaks kept. */
  points: [number, number | null][];
  faultStartS: number | null;
  onsetS: number | null;
  recoveredS: number | null;
  /** Seconds, from and to. */
  alerts: [number, number][];
}

export interface DataSummary {
  source: string;
  cells: number;
  services: number;
  stepsMs: number[];
  cellDays: number;
  healthyCellDays: number;
  incidents: number;
  apart: number;
  notes: string[];
}

export type ReportedDetector = Omit<DetectorFigures, 'verdicts'>;

export interface Report {
  kind: 'understudy.evaluation/v1';
  made: string;
  command: string;
  model: string;
  horizonTicks: number;
  rules: EventRules;
  alerting: Alerting;
  data: DataSummary;
  figures: Figure[];
  detector: ReportedDetector;
  comparators: (ReportedDetector & { difference: Interval })[];
  /** How the comparators came to their thresholds. */
  comparatorsTunedOn: string | null;
  hitAt2: Interval;
  leak: LeakAlarm;
  drift: { feature: string; psi: number }[];
  incidents: ReportedIncident[];
  falseAlarms: ReportedFalseAlarm[];
  timelines: Timeline[];
  gate: GateVerdict | null;
}

export interface ReportInput {
  command: string;
  model: string;
  source: string;
  cells: readonly CellSeries[];
  scored: ReadonlyMap<string, ScoredCell>;
  rules: EventRules;
  alerting: Alerting;
  notes?: readonly string[];
  comparators?: readonly DetectorFigures[];
  comparatorsTunedOn?: string;
  drift?: Report['drift'];
  gate?: GateVerdict;
  made?: Date;
}

const mostTimelines = 14;
const mostFalseAlarms = 20;

export function buildReport(input: ReportInput): { report: Report; figures: DetectorFigures } {
  const { cells, scored, rules, alerting } = input;
  const scores = cells.map(({ cell }) => scoredOf(scored, cell).probability);
  const figures = figuresOf(input.model, cells, scores, { rules, alerting, isProbability: true });
  const hits = figures.verdicts.flatMap(({ cell, incidents }) =>
    incidents.flatMap(({ incident, outcome, alertTick }) => {
      const drivers = scoredOf(scored, cell).drivers.get(alertTick);
      const hit = outcome === 'caught' && drivers ? hitAt(2, drivers, incident.fault) : undefined;
      return hit === undefined ? [] : [hit];
    }),
  );
  const hitAt2 = shareInterval(hits);
  const leak = leakAlarm(cells, scores, figures, rules);
  const comparators = (input.comparators ?? []).map((other) => ({
    ...withoutVerdicts(other),
    difference: differenceOf(figures, other),
  }));
  const report: Report = {
    kind: 'understudy.evaluation/v1',
    made: (input.made ?? new Date()).toISOString(),
    command: input.command,
    model: input.model,
    horizonTicks: rules.horizonTicks,
    rules,
    alerting,
    data: summaryOf(input, figures),
    figures: targets(figures, hitAt2, leak, comparators),
    detector: withoutVerdicts(figures),
    comparators,
    comparatorsTunedOn: input.comparatorsTunedOn ?? null,
    hitAt2,
    leak,
    drift: input.drift ?? [],
    incidents: incidentsOf(cells, scored, figures),
    falseAlarms: falseAlarmsOf(cells, scored, figures),
    timelines: timelinesOf(cells, scored, figures),
    gate: input.gate ?? null,
  };
  return { report, figures };
}

function scoredOf(scored: ReadonlyMap<string, ScoredCell>, cell: string): ScoredCell {
  const known = scored.get(cell);
  if (!known) throw new Error(`the cell ${cell} has no scores`);
  return known;
}

function withoutVerdicts(figures: DetectorFigures): ReportedDetector {
  const { verdicts: _, ...rest } = figures;
  return rest;
}

const caughtOf = (figures: DetectorFigures): boolean[] =>
  figures.verdicts.flatMap((v) => v.incidents.map(({ outcome }) => outcome === 'caught'));

/** How much more the first catches of the same incidents. */
export function differenceOf(first: DetectorFigures, second: DetectorFigures): Interval {
  return pairedDifference(caughtOf(first), caughtOf(second));
}

function summaryOf({ source, cells, notes }: ReportInput, { events, verdicts }: DetectorFigures): DataSummary {
  return {
    source,
    cells: cells.length,
    services: new Set(cells.flatMap(({ service }) => (service === undefined ? [] : [service]))).size,
    stepsMs: [...new Set(cells.map(({ stepMs }) => stepMs))].sort((a, b) => a - b),
    cellDays: cells.reduce((sum, { ticks }) => sum + ticks, 0) / ticksPerCellDay,
    healthyCellDays: events.cellDays,
    incidents: events.incidents,
    apart: verdicts.reduce((sum, { apart }) => sum + apart.length, 0),
    notes: [...(notes ?? [])],
  };
}

const finite = (value: number): number | null => (Number.isFinite(value) ? value : null);

/** A figure with its target; `atLeast` and `atMost` are exclusive of each other. */
export function figure(
  name: string,
  value: number,
  unit: string,
  target: { atLeast?: number; atMost?: number } = {},
  interval?: Interval,
): Figure {
  const { atLeast, atMost } = target;
  const known = finite(value);
  const met = atLeast !== undefined ? value >= atLeast : atMost !== undefined ? value <= atMost : undefined;
  return {
    name,
    value: known,
    unit,
    target: atLeast !== undefined ? `>= ${atLeast}` : atMost !== undefined ? `<= ${atMost}` : null,
    met: known === null || met === undefined ? null : met,
    ...(interval && Number.isFinite(interval.low) && { interval: [interval.low, interval.high] as [number, number] }),
  };
}

function targets(
  model: DetectorFigures,
  hitAt2: Interval,
  leak: LeakAlarm,
  comparators: readonly (ReportedDetector & { difference: Interval })[],
): Figure[] {
  const { events, calibration } = model;
  const figures = [
    figure(
      'event recall, predictable faults',
      model.recallPredictable.value,
      'share',
      { atLeast: 0.85 },
      model.recallPredictable,
    ),
    figure('event recall, gray faults', model.recallGray.value, 'share', { atLeast: 0.6 }, model.recallGray),
    figure('event recall, all that can be foretold', model.recall.value, 'share', {}, model.recall),
    figure('false alarms', events.falseAlarmsPerCellDay, 'per cell-day', { atMost: 0.1 }),
    figure('healthy time in alarm', events.alarmTimeShare, 'share', { atMost: 0.01 }),
    figure('median warning', model.leadTicks.p50, 'ticks'),
    figure('median warning / incubation', model.leadPerIncubation, 'share', { atLeast: 0.5 }),
    figure('row PR-AUC', model.prAuc, '1'),
    figure('base rate of rows', model.baseRate, 'share'),
    figure('calibration error (ECE)', calibration?.ece ?? NaN, '1', { atMost: 0.03 }),
    figure('Brier skill', calibration?.brierSkill ?? NaN, '1', { atLeast: 0.4 }),
    figure('reliability slope', calibration?.slope ?? NaN, '1'),
    figure('drivers hit@2', hitAt2.value, 'share', { atLeast: 0.85 }, hitAt2),
    figure('no-precursor crashes in alarm', leak.inAlarm, 'crashes', {
      atMost: leak.crashes > 0 ? round(leak.atMost) : 0,
    }),
    figure('mean score before such crashes / healthy', leak.meanBefore / leak.meanHealthy, 'times', { atMost: 2 }),
  ];
  const stack = comparators.find(({ name }) => name.startsWith('any of'));
  const singles = comparators.filter((c) => c !== stack);
  const best = singles.reduce<(typeof singles)[number] | undefined>(
    (top, c) => (top === undefined || c.recall.value > top.recall.value ? c : top),
    undefined,
  );
  const bestArea = Math.max(...singles.map(({ prAuc }) => prAuc).filter((a) => !Number.isNaN(a)));
  if (best)
    figures.push(
      figure(
        `recall over the best comparator (${best.name})`,
        best.difference.value,
        'share',
        { atLeast: 0.2 },
        best.difference,
      ),
    );
  if (stack)
    figures.push(
      figure(
        'recall over all comparators together',
        stack.difference.value,
        'share',
        { atLeast: 0.1 },
        stack.difference,
      ),
    );
  if (best && bestArea > 0)
    figures.push(figure("row PR-AUC / best comparator's", model.prAuc / bestArea, 'times', { atLeast: 1.5 }));
  return figures;
}

const round = (value: number): number => Number(value.toPrecision(3));
const iso = (ms: number): string => (Number.isFinite(ms) ? new Date(ms).toISOString() : 'never');

function incidentsOf(
  cells: readonly CellSeries[],
  scored: ReadonlyMap<string, ScoredCell>,
  { verdicts }: DetectorFigures,
): ReportedIncident[] {
  return verdicts.flatMap(({ cell, incidents, apart }, i) =>
    [...incidents, ...apart].map(({ incident, outcome, leadTicks, incubationTicks, alertTick, beforeFault }) => ({
      cell,
      service: cells[i]?.service ?? null,
      fault: incident.fault,
      kind: kindOf(incident),
      faultStart: iso(incident.faultStartMs),
      onset: iso(incident.onsetMs),
      outcome,
      leadTicks: finite(leadTicks),
      incubationTicks,
      beforeFault,
      drivers: scoredOf(scored, cell).drivers.get(alertTick) ?? [],
    })),
  );
}

function falseAlarmsOf(
  cells: readonly CellSeries[],
  scored: ReadonlyMap<string, ScoredCell>,
  { verdicts }: DetectorFigures,
): ReportedFalseAlarm[] {
  const all = verdicts.flatMap(({ cell, falseAlarms }, i) =>
    falseAlarms.map(({ alert, count }: FalseAlarm) => {
      const { startMs, stepMs } = cells[i] as CellSeries;
      const { probability, drivers } = scoredOf(scored, cell);
      return {
        cell,
        at: iso(startMs + alert.start * stepMs),
        ticks: alert.end - alert.start,
        count,
        highest: probability.subarray(alert.start, alert.end).reduce((most, p) => (p > most ? p : most), 0),
        drivers: drivers.get(alert.start) ?? [],
      };
    }),
  );
  return all.sort((a, b) => b.count - a.count || b.ticks - a.ticks).slice(0, mostFalseAlarms);
}

/** A handful to look at: of each fault first what was missed, then what was caught; then the longest false alarms. */
function timelinesOf(
  cells: readonly CellSeries[],
  scored: ReadonlyMap<string, ScoredCell>,
  figures: DetectorFigures,
): Timeline[] {
  const chosen: Timeline[] = [];
  const shown = new Set<string>();
  const ranked = figures.verdicts
    .flatMap((verdict, i) => verdict.incidents.map((one) => ({ one, verdict, cell: cells[i] as CellSeries })))
    .sort((a, b) => (a.one.outcome === 'missed' ? 0 : 1) - (b.one.outcome === 'missed' ? 0 : 1));
  for (const { one, cell } of ranked) {
    const key = `${one.incident.fault} ${one.outcome === 'caught'}`;
    if (shown.has(key) || chosen.length >= mostTimelines) continue;
    shown.add(key);
    chosen.push(timelineOf(cell, scoredOf(scored, cell.cell), figures, one));
  }
  return chosen.sort((a, b) => (a.title < b.title ? -1 : 1));
}

function timelineOf(
  cell: CellSeries,
  { probability }: ScoredCell,
  { alerting, name: _ }: DetectorFigures,
  { incident, outcome, incubationTicks }: IncidentVerdict,
): Timeline {
  const secondsOf = (ms: number): number => (ms - incident.onsetMs) / 1000;
  const onset = Math.round((incident.onsetMs - cell.startMs) / cell.stepMs);
  const before = Math.min(1500, Math.max(120, Math.ceil(1.5 * incubationTicks)));
  const from = Math.max(0, onset - before);
  const to = Math.min(cell.ticks, onset + 60);
  const points: [number, number | null][] = [];
  const stride = Math.max(1, Math.ceil((to - from) / 400));
  for (let tick = from; tick < to; tick += stride) {
    let highest = NaN;
    for (let i = tick; i < Math.min(to, tick + stride); i++) {
      const p = probability[i] as number;
      if (!(highest >= p)) highest = Number.isNaN(p) ? highest : p;
    }
    points.push([secondsOf(cell.startMs + tick * cell.stepMs), Number.isNaN(highest) ? null : round(highest)]);
  }
  const inAlert: [number, number][] = [];
  let above = 0;
  let start: number | undefined;
  for (let tick = from; tick < to; tick++) {
    above = (probability[tick] as number) >= alerting.threshold ? above + 1 : 0;
    if (above >= alerting.persist && start === undefined) start = tick;
    if (above === 0 && start !== undefined) {
      inAlert.push([secondsOf(cell.startMs + start * cell.stepMs), secondsOf(cell.startMs + tick * cell.stepMs)]);
      start = undefined;
    }
  }
  if (start !== undefined) {
    inAlert.push([secondsOf(cell.startMs + start * cell.stepMs), secondsOf(cell.startMs + to * cell.stepMs)]);
  }
  return {
    title: `${incident.fault}: ${outcome}`,
    cell: cell.cell,
    outcome,
    stepMs: cell.stepMs,
    points,
    faultStartS: secondsOf(incident.faultStartMs),
    onsetS: 0,
    recoveredS: Number.isFinite(incident.recoveredMs) ? secondsOf(incident.recoveredMs) : null,
    alerts: inAlert,
  };
}
