/**
 * Judges alerts by events: which failures were called early enough, and how often an alarm was raised for nothing.
 * Nothing is adjusted to the benefit of the detector; an alarm that is always on catches no failure.
 */
import type { CellSeries, IncidentSpan } from './contracts';

/** A stretch in alarm. */
export interface Alert {
  /** Tick at which it begins. */
  start: number;
  /** First tick that is no longer in alarm. */
  end: number;
}

export interface EventRules {
  /** How far ahead of an onset an alert may begin, in ticks. */
  horizonTicks: number;
  /** How far ahead it must begin to be of use, in ticks. */
  minLeadTicks: number;
  /** Ticks left out after a recovery: queues and windows remember the failure. */
  settleTicks: number;
  /**
   * Whether an alert that begins after the fault did but earlier than `horizonTicks` before the onset is a false alarm
   * (true, as the definition has it) or counts as caught (false). It is reported apart in both cases.
   */
  strictHorizon: boolean;
}

/** A minute and ten minutes at an interval of 10 s. The horizon is the detector's own longest one. */
export const defaultRules = { minLeadTicks: 4, settleTicks: 60, strictHorizon: true } as const;

/** Samples of one cell in a day at the default interval of 10 s. */
export const ticksPerCellDay = 8640;
/** An alarm that lasts is counted again every hour of 10-second samples. */
export const recountTicks = 360;
/** For so many ticks without a score an alarm stays as it is; then it ends. */
export const heldTicks = 5;
/** Ticks without telemetry that still count as time watched: a collector's outage must not improve the figures. */
export const longestOutage = 60;

/**
 * Alerts in a row of scores. One begins at the `persist`-th consecutive tick at or above the threshold and ends at the
 * `persist`-th consecutive tick below it. NaN is neither: it holds the state for up to 5 ticks and then ends it.
 */
export function alertsOf(scores: Float32Array, threshold: number, persist: number): Alert[] {
  const alerts: Alert[] = [];
  const needed = Math.max(1, persist);
  let start = -1;
  let above = 0;
  let below = 0;
  let silent = 0;
  for (let i = 0; i < scores.length; i++) {
    const score = scores[i] as number;
    if (score !== score) {
      silent += 1;
      if (silent <= heldTicks) continue;
      above = 0;
      below = needed;
    } else {
      silent = 0;
      if (score >= threshold) {
        above += 1;
        below = 0;
      } else {
        above = 0;
        below += 1;
      }
    }
    if (start < 0 && above >= needed) start = i;
    else if (start >= 0 && below >= needed) {
      alerts.push({ start, end: i });
      start = -1;
    }
  }
  if (start >= 0) alerts.push({ start, end: scores.length });
  return alerts;
}

/** `early`: only alerts that began after the fault but more than a horizon ahead; see `strictHorizon`. */
export type Outcome = 'caught' | 'early' | 'detected' | 'missed';

export interface IncidentVerdict {
  incident: IncidentSpan;
  outcome: Outcome;
  /** Ticks from the alert that caught (or was early, or detected) to the onset; NaN if there was none. */
  leadTicks: number;
  /** Ticks from the fault's start to the onset. */
  incubationTicks: number;
  /** Tick at which that alert began; -1 if there was none. */
  alertTick: number;
  /** An alert began after the fault's start, but more than a horizon before the onset. */
  earlierThanHorizon: boolean;
  /** The alert that caught it began before the fault did: luck, as far as that fault goes. */
  beforeFault: boolean;
  /** An alert was in force at the last useful moment, whenever it began. */
  inAlarmAtMinLead: boolean;
}

export interface FalseAlarm {
  alert: Alert;
  /** How often it counts: once where it begins for nothing, and again for every hour it lasts on healthy ground. */
  count: number;
}

export interface CellVerdict {
  cell: string;
  /** Predictable incidents: what detectors are judged by. */
  incidents: IncidentVerdict[];
  /** Incidents without warning or of uncertain cause. None of them is caught; the fields say how they look beside alarms. */
  apart: IncidentVerdict[];
  falseAlarms: FalseAlarm[];
  /** Ticks without failure at hand: what false alarms and alarm time are counted on. */
  healthyTicks: number;
  /** Those of them in alarm. */
  alarmTicks: number;
}

/** An incident whose cause a person could not settle (an action intervened, for instance): neither for nor against. */
export const isApart = (incident: IncidentSpan): boolean => !incident.predictable || incident.fault === 'uncertain';

/** What the rules make of a cell's ticks, before any detector is asked. */
export interface Grounds {
  /** 1 for a healthy tick; 0 ahead of, in and shortly after a failure. */
  healthy: Uint8Array;
  /** Healthy ticks before each tick; one entry more than ticks. */
  healthyBefore: Int32Array;
  /** Incidents that begin within the telemetry, in order of onset. */
  incidents: readonly IncidentSpan[];
}

export function groundsOf(cell: CellSeries, rules: EventRules): Grounds {
  const healthy = new Uint8Array(cell.ticks).fill(1);
  // An onset after the last tick is judged all the same: the last telemetry may be older than the failure.
  const fromMs = cell.watched?.fromMs ?? cell.startMs;
  const incidents = cell.incidents.filter((i) => i.onsetMs > fromMs).sort((a, b) => a.onsetMs - b.onsetMs);
  for (const incident of cell.incidents) {
    const from = Math.max(0, firstTickAt(cell, warningStartMs(cell, incident, rules)));
    const to = Math.min(cell.ticks, firstTickAt(cell, incident.recoveredMs + rules.settleTicks * cell.stepMs));
    if (to > from) healthy.fill(0, from, to);
  }
  leaveOutSilence(cell, healthy);
  if (cell.watched) {
    healthy.fill(0, 0, Math.max(0, firstTickAt(cell, cell.watched.fromMs)));
    healthy.fill(0, Math.max(0, Math.min(cell.ticks, firstTickAt(cell, cell.watched.toMs + cell.stepMs))));
  }
  const healthyBefore = new Int32Array(cell.ticks + 1);
  for (let i = 0; i < cell.ticks; i++) healthyBefore[i + 1] = (healthyBefore[i] as number) + (healthy[i] as number);
  return { healthy, healthyBefore, incidents };
}

/** Long silence is no healthy time: where nothing is heard, nothing could be raised falsely either. */
function leaveOutSilence({ values, ticks }: CellSeries, healthy: Uint8Array): void {
  if (values.size === 0) return;
  const rows = [...values.values()];
  let silent = 0;
  for (let tick = 0; tick < ticks; tick++) {
    silent = rows.every((row) => Number.isNaN(row[tick])) ? silent + 1 : 0;
    if (silent > longestOutage) healthy[tick] = 0;
  }
}

/** Judges the alerts of one cell. `grounds` may be handed in where many alerts are judged on one cell. */
export function judge(
  cell: CellSeries,
  alerts: readonly Alert[],
  rules: EventRules,
  grounds: Grounds = groundsOf(cell, rules),
): CellVerdict {
  const verdict: CellVerdict = {
    cell: cell.cell,
    incidents: [],
    apart: [],
    falseAlarms: [],
    healthyTicks: grounds.healthyBefore[cell.ticks] as number,
    alarmTicks: 0,
  };
  for (const incident of grounds.incidents) {
    const judged = judgeIncident(cell, incident, alerts, rules);
    (isApart(incident) ? verdict.apart : verdict.incidents).push(judged);
  }
  for (const alert of alerts) {
    const { start, end } = alert;
    verdict.alarmTicks += (grounds.healthyBefore[end] as number) - (grounds.healthyBefore[start] as number);
    let count = 0;
    for (let tick = start; tick < end; tick += recountTicks) count += grounds.healthy[tick] as number;
    if (count > 0) verdict.falseAlarms.push({ alert, count });
  }
  return verdict;
}

/** Failures that users felt and nobody can put down to a fault: nor can anybody say when what caused them began. */
export const unknownCauses: ReadonlySet<string> = new Set(['load', 'unexplained']);
/** For so many ticks before such a failure an alert is neither right nor false. */
const unknownStartTicks = 30;

/** From here to the onset an alert is not false. */
function warningStartMs(cell: CellSeries, incident: IncidentSpan, rules: EventRules): number {
  if (unknownCauses.has(incident.fault)) return incident.onsetMs - unknownStartTicks * cell.stepMs;
  if (isApart(incident)) return Math.min(incident.faultStartMs, incident.onsetMs);
  const windowMs = incident.onsetMs - rules.horizonTicks * cell.stepMs;
  return rules.strictHorizon ? windowMs : Math.min(windowMs, incident.faultStartMs);
}

function firstTickAt(cell: CellSeries, ms: number): number {
  return ms === Infinity ? cell.ticks : Math.ceil((ms - cell.startMs) / cell.stepMs);
}

function judgeIncident(
  cell: CellSeries,
  incident: IncidentSpan,
  alerts: readonly Alert[],
  rules: EventRules,
): IncidentVerdict {
  const tickOf = (ms: number): number => (ms - cell.startMs) / cell.stepMs;
  const onset = tickOf(incident.onsetMs);
  const faultStart = tickOf(incident.faultStartMs);
  const latest = onset - rules.minLeadTicks;
  const earliest = onset - rules.horizonTicks;
  const inWindow = alerts.find(({ start }) => start >= earliest && start <= latest);
  const early = alerts.find(({ start }) => start >= faultStart && start < earliest);
  const late = alerts.find(({ start }) => start > latest && start <= tickOf(incident.recoveredMs));
  let outcome: Outcome = 'missed';
  let alert = inWindow;
  if (isApart(incident)) alert = inWindow ?? late;
  else if (early && !rules.strictHorizon) [outcome, alert] = ['caught', early];
  else if (inWindow) outcome = 'caught';
  else if (early) [outcome, alert] = ['early', early];
  else if (late) [outcome, alert] = ['detected', late];
  return {
    incident,
    outcome,
    leadTicks: alert ? onset - alert.start : NaN,
    incubationTicks: onset - faultStart,
    alertTick: alert ? alert.start : -1,
    earlierThanHorizon: early !== undefined,
    beforeFault: outcome === 'caught' && alert !== undefined && alert.start < faultStart,
    inAlarmAtMinLead: alerts.some(({ start, end }) => start <= latest && end > latest),
  };
}

export interface EventFigures {
  incidents: number;
  caught: number;
  early: number;
  detected: number;
  missed: number;
  /** Caught by an alert that began before the fault did. */
  beforeFault: number;
  /** Caught of all predictable incidents, 0 to 1; NaN without any. */
  recall: number;
  falseAlarms: number;
  cellDays: number;
  falseAlarmsPerCellDay: number;
  /** Share of healthy ticks in alarm. */
  alarmTimeShare: number;
}

/** Sums the verdicts of several cells. */
export function summarize(verdicts: readonly CellVerdict[]): EventFigures {
  const count: Record<Outcome, number> = { caught: 0, early: 0, detected: 0, missed: 0 };
  let beforeFault = 0;
  let falseAlarms = 0;
  let healthyTicks = 0;
  let alarmTicks = 0;
  for (const verdict of verdicts) {
    for (const { outcome, beforeFault: lucky } of verdict.incidents) {
      count[outcome] += 1;
      if (lucky) beforeFault += 1;
    }
    for (const { count: times } of verdict.falseAlarms) falseAlarms += times;
    healthyTicks += verdict.healthyTicks;
    alarmTicks += verdict.alarmTicks;
  }
  const incidents = count.caught + count.early + count.detected + count.missed;
  const cellDays = healthyTicks / ticksPerCellDay;
  return {
    incidents,
    ...count,
    beforeFault,
    recall: incidents === 0 ? NaN : count.caught / incidents,
    falseAlarms,
    cellDays,
    falseAlarmsPerCellDay: falseAlarms === 0 ? 0 : falseAlarms / cellDays,
    alarmTimeShare: healthyTicks === 0 ? NaN : alarmTicks / healthyTicks,
  };
}
