/** The promotion gate: whether a new model may take the old one's place, by the past decisions that it would change. Pure. */
import { pairedDifference } from './bootstrap';
import type { CellVerdict, EventFigures } from './events';

/** What a model decided on a recording: enough to compare it with another one long after it can no longer be run. */
export interface Decisions {
  model: string;
  incidents: DecidedIncident[];
  falseAlarms: { cell: string; atMs: number; count: number }[];
  falseAlarmsPerCellDay: number;
  alarmTimeShare: number;
  /** null for a model without calibrated probabilities. */
  ece: number | null;
}

export interface DecidedIncident {
  cell: string;
  fault: string;
  onsetMs: number;
  caught: boolean;
  leadTicks: number | null;
}

export interface GateRules {
  falseAlarmsPerCellDay: number;
  alarmTimeShare: number;
  /** By how much the calibration error may grow. */
  eceMargin: number;
  /** Classes with fewer incidents than this are told, not judged. */
  fewestIncidents: number;
}

export const gateRules: GateRules = {
  falseAlarmsPerCellDay: 0.1,
  alarmTimeShare: 0.01,
  eceMargin: 0.01,
  fewestIncidents: 5,
};

export interface ChangedDecision {
  cell: string;
  fault: string;
  onset: string;
  /** In ticks; null where there was no warning. */
  leadBefore: number | null;
  leadAfter: number | null;
}

export interface GateVerdict {
  accepted: boolean;
  /** Why, one sentence each; of an accepted model, what was found in order. */
  reasons: string[];
  old: string;
  new: string;
  gained: ChangedDecision[];
  lost: ChangedDecision[];
  earlier: ChangedDecision[];
  later: ChangedDecision[];
  falseAlarms: { before: number; after: number };
}

/** Leads that differ by less than this are the same. */
const sameLeadTicks = 2;

export function decisionsOf(
  model: string,
  cells: readonly { startMs: number; stepMs: number }[],
  verdicts: readonly CellVerdict[],
  events: EventFigures,
  ece: number | undefined,
): Decisions {
  return {
    model,
    incidents: verdicts.flatMap(({ cell, incidents }) =>
      incidents.map(({ incident, outcome, leadTicks }) => ({
        cell,
        fault: incident.fault,
        onsetMs: incident.onsetMs,
        caught: outcome === 'caught',
        leadTicks: outcome === 'caught' ? leadTicks : null,
      })),
    ),
    falseAlarms: verdicts.flatMap(({ cell, falseAlarms }, i) =>
      falseAlarms.map(({ alert, count }) => {
        const { startMs, stepMs } = cells[i] as { startMs: number; stepMs: number };
        return { cell, atMs: startMs + alert.start * stepMs, count };
      }),
    ),
    falseAlarmsPerCellDay: events.falseAlarmsPerCellDay,
    alarmTimeShare: events.alarmTimeShare,
    ece: ece === undefined || Number.isNaN(ece) ? null : ece,
  };
}

/** The verdict on `next` taking the place of `old`. Both must have decided on the same incidents. */
export function gate(old: Decisions, next: Decisions, rules: GateRules = gateRules): GateVerdict {
  const verdict: GateVerdict = {
    accepted: false,
    reasons: [],
    old: old.model,
    new: next.model,
    gained: [],
    lost: [],
    earlier: [],
    later: [],
    falseAlarms: {
      before: old.falseAlarms.reduce((sum, { count }) => sum + count, 0),
      after: next.falseAlarms.reduce((sum, { count }) => sum + count, 0),
    },
  };
  const before = new Map(old.incidents.map((i) => [keyOf(i), i]));
  const pairs = next.incidents.flatMap((after) => {
    const known = before.get(keyOf(after));
    return known ? [{ before: known, after }] : [];
  });
  if (pairs.length !== next.incidents.length || pairs.length !== old.incidents.length) {
    verdict.reasons.push(
      `The old model decided on ${old.incidents.length} incidents, the new one on ${next.incidents.length}, and ` +
        `${pairs.length} of them are the same: decisions on different recordings say nothing about each other.`,
    );
    return verdict;
  }
  for (const { before: b, after: a } of pairs) {
    const change = {
      cell: a.cell,
      fault: a.fault,
      onset: new Date(a.onsetMs).toISOString(),
      leadBefore: b.leadTicks,
      leadAfter: a.leadTicks,
    };
    if (a.caught && !b.caught) verdict.gained.push(change);
    else if (b.caught && !a.caught) verdict.lost.push(change);
    else if (a.caught && (a.leadTicks ?? 0) - (b.leadTicks ?? 0) > sameLeadTicks) verdict.earlier.push(change);
    else if (a.caught && (b.leadTicks ?? 0) - (a.leadTicks ?? 0) > sameLeadTicks) verdict.later.push(change);
  }
  const refusals = [
    ...lossOf('of all', pairs),
    ...[...new Set(pairs.map(({ after }) => after.fault))].sort().flatMap((fault) => {
      const own = pairs.filter(({ after }) => after.fault === fault);
      return own.length < rules.fewestIncidents ? [] : lossOf(`of ${fault}`, own);
    }),
    ...budgetOf(
      'false alarms per cell-day',
      old.falseAlarmsPerCellDay,
      next.falseAlarmsPerCellDay,
      rules.falseAlarmsPerCellDay,
    ),
    ...budgetOf('share of healthy time in alarm', old.alarmTimeShare, next.alarmTimeShare, rules.alarmTimeShare),
    ...calibrationOf(old.ece, next.ece, rules.eceMargin),
  ];
  verdict.accepted = refusals.length === 0;
  verdict.reasons = verdict.accepted
    ? [
        `No class of faults is caught significantly less, the false alarms are within the budget or fewer than before, ` +
          `and the calibration is no worse (${pairs.length} incidents replayed).`,
      ]
    : refusals;
  return verdict;
}

const keyOf = ({ cell, onsetMs }: DecidedIncident): string => `${cell}\u0000${onsetMs}`;
const percent = (share: number): string => `${(100 * share).toFixed(0)} %`;
const small = (value: number): string => String(Number(value.toPrecision(3)));

function lossOf(which: string, pairs: readonly { before: DecidedIncident; after: DecidedIncident }[]): string[] {
  if (pairs.length === 0) return [];
  const difference = pairedDifference(
    pairs.map(({ after }) => after.caught),
    pairs.map(({ before }) => before.caught),
  );
  // The interval lies below zero as a whole: more than chance among the incidents.
  if (!(difference.high < 0)) return [];
  const share = (side: 'before' | 'after'): string =>
    percent(pairs.filter((p) => p[side].caught).length / pairs.length);
  return [
    `It catches ${share('after')} ${which} ${pairs.length} incidents where the old model caught ${share('before')}; ` +
      `the 95 % interval of the loss is ${percent(-difference.high)} to ${percent(-difference.low)}.`,
  ];
}

/** Above the budget is no reason if the old model was above it by more. */
function budgetOf(what: string, before: number, after: number, budget: number): string[] {
  if (!(after > budget && after > before)) return [];
  return [`It has ${small(after)} ${what}; the budget is ${small(budget)}, the old model had ${small(before)}.`];
}

function calibrationOf(before: number | null, after: number | null, margin: number): string[] {
  if (after === null && before !== null)
    return ['Its probabilities cannot be checked against outcomes; the old model’s could.'];
  if (before === null || after === null || !(after > before + margin)) return [];
  return [
    `Its calibration error is ${small(after)}, that of the old model ${small(before)}; at most ${small(margin)} more is allowed.`,
  ];
}
