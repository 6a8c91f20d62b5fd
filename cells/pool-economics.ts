/** How many synthetic cells of a service are worth waiting idle: expected cost of an outage against that of standing by. Pure. */
import type { CellRest } from '../blueprints/records';
import type { Policy } from '../blueprints/schema';

export interface PoolQuestion {
  service: string;
  /** Declared cells: each may be predicted to fail. */
  cells: number;
  /** Predictions that wanted a synthetic cell, within `observedH`. */
  predictions: number;
  observedH: number;
  /** Hours since the newest of them; null: there was none. */
  quietH: number | null;
  /** What a prediction costs that finds no cell in time. */
  outageMinutes: number;
  /** `idleCostShare` is that of the way in which the cells rest. */
  prices: Omit<Policy['pool'], 'stoppedCostShare'>;
  /** In which way, and why so; left out where that is not asked. */
  rest?: CellRest;
  /** Cell-hours that the budget of this day still allows. */
  budgetHours: number;
}

/** One candidate: what it costs to keep so many, per hour. */
export interface PoolSum {
  keep: number;
  /** Predictions per hour that find no idle cell and come too late to make one. */
  latePerHour: number;
  standbyCost: number;
  outageCost: number;
  totalCost: number;
}

export interface PoolDecision {
  service: string;
  keep: number;
  /** What decided: the cheapest sum, or a bound that forbids it. */
  boundBy: 'cost' | 'mostIdle' | 'budget';
  /** Predictions expected per hour, now. */
  predictionsPerHour: number;
  /** Of keeping none, one, two, ... */
  sums: PoolSum[];
  /** The sum in words. */
  why: string;
}

/**
 * Times between failures of one system are spread like a Weibull distribution of shape 0.7 to 0.8: after one failure the
 * next is likelier than after a quiet month (Schroeder and Gibson, "A large-scale study of failures in high-performance
 * computing systems", DSN 2006).
 */
const shape = 0.7;
/** Gamma(1 + 1/shape): the mean of a Weibull distribution of scale 1. */
const meanOfScaleOne = 1.2658;
/** A failover has its cell for about so long; more predictions within it want more cells. */
const busyH = 1;
/** How much the declared rate counts beside what was seen: as much as one month of watching. */
const priorH = 720;
/** Beyond this the sum is not worth writing out. */
const mostCandidates = 4;

export function decidePool(question: PoolQuestion): PoolDecision {
  const { service, prices, outageMinutes, budgetHours } = question;
  const perHour = predictionsPerHour(question);
  const expected = perHour * busyH;
  const costOfOne = outageMinutes * prices.outageCostPerMinute;
  const sums = Array.from({ length: mostCandidates + 1 }, (_, keep): PoolSum => {
    const latePerHour = (beyond(expected, keep) / busyH) * prices.lateShare;
    const standbyCost = keep * prices.cellCostPerHour * prices.idleCostShare;
    const outageCost = latePerHour * costOfOne;
    return { keep, latePerHour, standbyCost, outageCost, totalCost: standbyCost + outageCost };
  });
  const cheapest = sums.reduce((best, sum) => (sum.totalCost < best.totalCost ? sum : best)).keep;
  const affordable = Math.floor(Math.max(0, budgetHours) / 24);
  const keep = Math.min(cheapest, prices.mostIdle, affordable);
  const boundBy = keep === cheapest ? 'cost' : keep === prices.mostIdle ? 'mostIdle' : 'budget';
  return { service, keep, boundBy, predictionsPerHour: perHour, sums, why: whyOf(question, sums, keep, boundBy) };
}

/** Predictions in the next hour: the service's rate over the month, higher soon after the last one. */
function predictionsPerHour({ cells, predictions, observedH, quietH, prices }: PoolQuestion): number {
  const declaredPerHour = (cells * prices.failuresPerCellMonth) / 720;
  const rate = (predictions + declaredPerHour * priorH) / (observedH + priorH);
  if (rate === 0) return 0;
  const scaleH = 1 / rate / meanOfScaleOne;
  const cumulative = (atH: number) => (atH / scaleH) ** shape;
  // Nobody knows what was before the watch began: quiet for at least as long.
  const sinceH = quietH ?? Math.max(1, observedH);
  return cumulative(sinceH + 1) - cumulative(sinceH);
}

/** Expected number beyond the first `n` of a Poisson number of that mean. */
function beyond(mean: number, n: number): number {
  let probability = Math.exp(-mean);
  let covered = 0;
  let cumulative = 0;
  for (let i = 0; i < n; i += 1) {
    covered += i * probability;
    cumulative += probability;
    probability *= mean / (i + 1);
  }
  return Math.max(0, mean - covered - n * (1 - cumulative));
}

function whyOf({ prices }: PoolQuestion, sums: PoolSum[], keep: number, boundBy: PoolDecision['boundBy']): string {
  const at = sums[keep]!;
  const next = sums[keep + 1];
  if (boundBy === 'mostIdle') return `one more would be worth its cost, but no more than ${prices.mostIdle} may wait`;
  if (boundBy === 'budget') return 'one more would be worth its cost, but the budget of cell-hours does not allow it';
  const saved = (from: PoolSum, to: PoolSum) => (from.outageCost - to.outageCost).toPrecision(2);
  const price = (prices.cellCostPerHour * prices.idleCostShare).toPrecision(2);
  if (keep === 0) return `the first would save ${saved(at, next!)} an hour and cost ${price}`;
  const before = sums[keep - 1]!;
  const more = next ? `; one more would save ${saved(at, next)}` : '';
  return `the last one saves ${saved(before, at)} an hour and costs ${price}${more}`;
}

/** The decision and its sum, for a person. */
export function poolText(question: PoolQuestion, decision: PoolDecision): string {
  const { cells, predictions, observedH, quietH, outageMinutes, prices, budgetHours } = question;
  const figure = (value: number) => (value === 0 ? '0' : value.toPrecision(3));
  const rows = decision.sums.map((sum) => {
    const costs = [sum.standbyCost, sum.outageCost, sum.totalCost].map((cost) => figure(cost).padStart(9));
    return `  ${sum.keep === decision.keep ? '▶' : ' '} ${sum.keep}  ${figure(sum.latePerHour * 720).padStart(9)} ${costs.join(' ')}`;
  });
  const quiet = quietH === null ? 'none seen' : `the last ${quietH.toFixed(1)} h ago`;
  return [
    `${decision.service}: keep ${decision.keep} idle: ${decision.why}`,
    `  ${cells} cells, ${predictions} predictions in ${(observedH / 24).toFixed(1)} days (${quiet}), declared ${prices.failuresPerCellMonth} per cell and month`,
    `  expected now: ${figure(decision.predictionsPerHour * 24)} predictions a day; without an idle cell ${figure(prices.lateShare * 100)} % come too late to make one`,
    `  one too late costs ${outageMinutes} min x ${prices.outageCostPerMinute} = ${figure(outageMinutes * prices.outageCostPerMinute)}; an idle cell ${prices.cellCostPerHour} x ${prices.idleCostShare} = ${figure(prices.cellCostPerHour * prices.idleCostShare)} an hour; ${budgetHours.toFixed(1)} cell-hours of today's budget are left`,
    ...(question.rest ? [`  idle cells rest ${question.rest.how}: ${question.rest.why}`] : []),
    `  idle  late/month   standby    outage     total   (cost per hour)`,
    ...rows,
  ].join('\n');
}
