/** What a detector would catch at other budgets of false alarms: how well it ranks, whatever its threshold. Pure. */
import type { CellSeries } from './contracts';
import { alertsOf, groundsOf, judge, summarize, type EventFigures, type EventRules } from './events';

/** False alarms per cell-day for which the best recall is sought. */
export const tradeBudgets = [0.1, 0.3, 1, 3, 10] as const;

export interface TradePoint {
  /** At most so many false alarms per cell-day. */
  budget: number;
  /** 0 to 1; NaN without incidents. */
  recall: number;
  falseAlarmsPerCellDay: number;
  /** null: no threshold keeps the budget, so that nothing is caught. */
  threshold: number | null;
}

/** Shares of all scores that lie above the thresholds that are tried: ten per decade. */
const triedShares = Array.from({ length: 45 }, (_, i) => 10 ** (-5 + i / 10)).filter((share) => share <= 0.3);

/**
 * The best recall within each budget over thresholds chosen on these very cells: an upper bound of what tuning can reach
 * on them, good for comparing detectors and no promise of what a threshold chosen elsewhere does.
 */
export function tradeOf(
  cells: readonly CellSeries[],
  scores: readonly Float32Array[],
  rules: EventRules,
  persist: number,
): TradePoint[] {
  const grounds = cells.map((cell) => groundsOf(cell, rules));
  const thresholds = thresholdsFor(scores);
  const tried = thresholds.map((threshold) => {
    const verdicts = cells.map((cell, i) =>
      judge(cell, alertsOf(scores[i] as Float32Array, threshold, persist), rules, grounds[i]),
    );
    return { threshold, events: summarize(verdicts) };
  });
  const none: EventFigures = summarize(cells.map((cell, i) => judge(cell, [], rules, grounds[i])));
  return tradeBudgets.map((budget) => {
    const within = tried.filter(({ events }) => events.falseAlarmsPerCellDay <= budget);
    const best = within.reduce<(typeof tried)[number] | undefined>(
      (top, point) => (top === undefined || point.events.caught > top.events.caught ? point : top),
      undefined,
    );
    const { recall, falseAlarmsPerCellDay } = best?.events ?? none;
    return { budget, recall, falseAlarmsPerCellDay, threshold: best?.threshold ?? null };
  });
}

function thresholdsFor(scores: readonly Float32Array[]): number[] {
  const all = new Float32Array(scores.reduce((sum, row) => sum + row.length, 0));
  let count = 0;
  for (const row of scores) for (const score of row) if (score === score) all[count++] = score;
  const ascending = all.subarray(0, count).sort();
  return [...new Set(triedShares.map((share) => ascending[Math.max(0, Math.floor((1 - share) * count) - 1)]))].filter(
    (threshold) => threshold !== undefined,
  );
}
