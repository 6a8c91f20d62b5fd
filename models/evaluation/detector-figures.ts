/** All figures of one detector on one set of cells, from its scores and a threshold. Pure. */
import type { CellSeries, IncidentSpan } from './contracts';
import {
  alertsOf,
  groundsOf,
  isApart,
  judge,
  summarize,
  unknownCauses,
  type CellVerdict,
  type EventFigures,
  type EventRules,
  type IncidentVerdict,
} from './events';
import { shareInterval, type Interval } from './bootstrap';
import { grayFaults } from './fault-metrics';
import { calibration, labelledRows, precisionRecall, quantile, type Calibration, type LabelledRows } from './figures';
import { labelOf } from '../training/labels';
import { tradeOf, type TradePoint } from './trade';

export interface Alerting {
  threshold: number;
  persist: number;
}

export type FaultKind = 'predictable' | 'gray' | 'apart';

export interface FaultFigures {
  fault: string;
  kind: FaultKind;
  incidents: number;
  caught: number;
  early: number;
  detected: number;
  missed: number;
  recall: Interval;
  leadTicksP50: number;
}

export interface DetectorFigures {
  name: string;
  alerting: Alerting;
  events: EventFigures;
  recall: Interval;
  /** Over faults that degrade openly, and those that do not. */
  recallPredictable: Interval;
  recallGray: Interval;
  byFault: FaultFigures[];
  /** What it would catch at other budgets. */
  trade: TradePoint[];
  /** Ticks of warning of the caught. */
  leadTicks: { p10: number; p50: number; all: number[] };
  /** Median of warning / incubation of the caught. */
  leadPerIncubation: number;
  /** Rows with a known answer, and the figures of the score on them. */
  rows: number;
  prAuc: number;
  baseRate: number;
  prCurve: { threshold: number; recall: number; precision: number }[];
  /** Unset for scores that are no probabilities. */
  calibration?: Calibration;
  verdicts: CellVerdict[];
}

export interface FigureOptions {
  rules: EventRules;
  alerting: Alerting;
  isProbability: boolean;
}

export function figuresOf(
  name: string,
  cells: readonly CellSeries[],
  scores: readonly Float32Array[],
  { rules, alerting, isProbability }: FigureOptions,
): DetectorFigures {
  const verdicts = cells.map((cell, i) => {
    const alerts = alertsOf(scores[i] as Float32Array, alerting.threshold, alerting.persist);
    return judge(cell, alerts, rules, groundsOf(cell, rules));
  });
  const incidents = verdicts.flatMap((v) => v.incidents);
  const caught = incidents.filter(({ outcome }) => outcome === 'caught');
  const leads = caught.map(({ leadTicks }) => leadTicks);
  // A detector that is silent where it is hard must not be better for it: silence ranks below everything.
  const rows = rowsOf(cells, scores, rules.horizonTicks, -Infinity);
  const spoken = isProbability ? rowsOf(cells, scores, rules.horizonTicks) : rows;
  const { area, baseRate, curve } = precisionRecall(rows);
  return {
    name,
    alerting,
    events: summarize(verdicts),
    recall: recallOf(incidents),
    recallPredictable: recallOf(incidents.filter(({ incident }) => kindOf(incident) === 'predictable')),
    recallGray: recallOf(incidents.filter(({ incident }) => kindOf(incident) === 'gray')),
    byFault: byFault(verdicts),
    trade: tradeOf(cells, scores, rules, alerting.persist),
    leadTicks: { p10: quantile(leads, 0.1), p50: quantile(leads, 0.5), all: leads },
    leadPerIncubation: quantile(
      // A step fault has no incubation to be ahead of.
      caught.filter((c) => c.incubationTicks >= 1).map((c) => c.leadTicks / c.incubationTicks),
      0.5,
    ),
    rows: rows.failed.length,
    prAuc: area,
    baseRate,
    prCurve: curve,
    ...(isProbability && spoken.failed.length > 0 && { calibration: calibration(spoken) }),
    verdicts,
  };
}

export function kindOf(incident: IncidentSpan): FaultKind {
  if (isApart(incident)) return 'apart';
  return grayFaults.has(incident.fault) ? 'gray' : 'predictable';
}

const recallOf = (incidents: readonly IncidentVerdict[]): Interval =>
  shareInterval(incidents.map(({ outcome }) => outcome === 'caught'));

function byFault(verdicts: readonly CellVerdict[]): FaultFigures[] {
  const groups = new Map<string, IncidentVerdict[]>();
  for (const verdict of [...verdicts.flatMap((v) => v.incidents), ...verdicts.flatMap((v) => v.apart)]) {
    const { incident } = verdict;
    const name =
      isApart(incident) && incident.fault !== 'uncertain' ? `${incident.fault} (no warning)` : incident.fault;
    const group = groups.get(name);
    if (group) group.push(verdict);
    else groups.set(name, [verdict]);
  }
  const figures = [...groups].map(([fault, group]): FaultFigures => {
    const count = (outcome: string): number => group.filter((v) => v.outcome === outcome).length;
    return {
      fault,
      kind: kindOf((group[0] as IncidentVerdict).incident),
      incidents: group.length,
      caught: count('caught'),
      early: count('early'),
      detected: count('detected'),
      missed: count('missed'),
      recall: recallOf(group),
      leadTicksP50: quantile(
        group.filter((v) => v.outcome === 'caught').map((v) => v.leadTicks),
        0.5,
      ),
    };
  });
  const rank: Record<FaultKind, number> = { predictable: 0, gray: 1, apart: 2 };
  return figures.sort((a, b) => rank[a.kind] - rank[b.kind] || (a.fault < b.fault ? -1 : 1));
}

/** A row whose answer is known stands for at most so many others. */
const mostWeight = 20;

/**
 * Rows whose answer is known, by the labels of training: a row counts as failing if a failure at work in it comes within
 * the horizon, as living on if it was watched for a whole horizon without. The others were lost from sight (an episode
 * ended, a fault began). Failures are seen sooner than survival, so that leaving rows out would make failures look more
 * frequent than they are: known rows are weighted by the inverse of the chance to be watched that long
 * (inverse-probability-of-censoring weights, Graf et al. 1999). A row without a score is left out, or has the score `silentAs`.
 */
export function rowsOf(
  cells: readonly CellSeries[],
  scores: readonly Float32Array[],
  horizonTicks: number,
  silentAs = NaN,
): LabelledRows {
  const rows: { score: number; watched: number; fails: boolean }[] = [];
  for (const [c, cell] of cells.entries()) {
    const row = scores[c] as Float32Array;
    const endMs = cell.watched?.toMs ?? cell.startMs + cell.ticks * cell.stepMs;
    for (let tick = 0; tick < cell.ticks; tick++) {
      const said = row[tick] as number;
      const score = said === said ? said : silentAs;
      const atMs = cell.startMs + tick * cell.stepMs;
      if (score !== score || atMs < (cell.watched?.fromMs ?? -Infinity) || atMs > endMs) continue;
      const { stepsToFailure, stepsWatched } = labelOf(atMs, cell.incidents, endMs, cell.stepMs);
      if (stepsWatched !== stepsWatched) continue;
      const fails = stepsToFailure <= horizonTicks;
      rows.push({ score, watched: Math.min(horizonTicks, fails ? stepsToFailure : stepsWatched), fails });
    }
  }
  const stillWatched = watchedShare(rows, horizonTicks);
  const known = rows.filter(({ watched, fails }) => fails || watched >= horizonTicks);
  return labelledRows(
    known.map(({ score, watched, fails }) => {
      const share = stillWatched[Math.floor(watched)] as number;
      return [score, fails, Math.min(mostWeight, 1 / share)] as const;
    }),
  );
}

/** Share of rows that are still watched after so many ticks, had none failed (Kaplan-Meier). */
function watchedShare(rows: readonly { watched: number; fails: boolean }[], horizonTicks: number): number[] {
  const ended = new Array<number>(Math.floor(horizonTicks) + 1).fill(0);
  const lost = [...ended];
  for (const { watched, fails } of rows) {
    const at = Math.floor(watched);
    ended[at] = (ended[at] ?? 0) + 1;
    if (!fails && watched < horizonTicks) lost[at] = (lost[at] ?? 0) + 1;
  }
  const shares: number[] = [];
  let atRisk = rows.length;
  let share = 1;
  for (let t = 0; t < ended.length; t++) {
    shares.push(share);
    if (atRisk > 0) share *= 1 - (lost[t] as number) / atRisk;
    atRisk -= ended[t] as number;
  }
  return shares;
}

/** Of the incidents that give no warning: alerts beside them must be at chance, or something leaks. */
export interface LeakAlarm {
  crashes: number;
  /** In alarm at the last useful moment before the onset. */
  inAlarm: number;
  /** What the share of alarm time lets expect, plus two standard deviations. */
  atMost: number;
  /** Mean score in the last horizon before such crashes, and over healthy rows. */
  meanBefore: number;
  meanHealthy: number;
}

export function leakAlarm(
  cells: readonly CellSeries[],
  scores: readonly Float32Array[],
  figures: DetectorFigures,
  rules: EventRules,
): LeakAlarm {
  let inAlarm = 0;
  let crashes = 0;
  const before = { sum: 0, n: 0 };
  const healthy = { sum: 0, n: 0 };
  for (const [i, cell] of cells.entries()) {
    const row = scores[i] as Float32Array;
    const grounds = groundsOf(cell, rules);
    const verdict = figures.verdicts[i] as CellVerdict;
    for (let tick = 0; tick < cell.ticks; tick++) {
      if (grounds.healthy[tick] && !Number.isNaN(row[tick])) add(healthy, row[tick] as number);
    }
    for (const { incident, incubationTicks, inAlarmAtMinLead } of verdict.apart) {
      // One that smouldered for longer than a warning takes is no crash out of the blue.
      if (incident.fault === 'uncertain' || unknownCauses.has(incident.fault)) continue;
      if (incubationTicks > rules.minLeadTicks) continue;
      // Nor is one that came while another fault was at work.
      const atWork = (other: IncidentSpan): boolean =>
        other !== incident && other.faultStartMs < incident.onsetMs && other.recoveredMs > incident.onsetMs;
      if (cell.incidents.some(atWork)) continue;
      crashes += 1;
      if (inAlarmAtMinLead) inAlarm += 1;
      const faultTick = Math.ceil((incident.faultStartMs - cell.startMs) / cell.stepMs);
      for (let tick = Math.max(0, faultTick - rules.horizonTicks); tick < Math.min(faultTick, cell.ticks); tick++) {
        if (grounds.healthy[tick] && !Number.isNaN(row[tick])) add(before, row[tick] as number);
      }
    }
  }
  const share = figures.events.alarmTimeShare;
  return {
    crashes,
    inAlarm,
    atMost: crashes * share + 2 * Math.sqrt(crashes * share * (1 - share)),
    meanBefore: before.sum / before.n,
    meanHealthy: healthy.sum / healthy.n,
  };
}

function add(mean: { sum: number; n: number }, value: number): void {
  mean.sum += value;
  mean.n += 1;
}
