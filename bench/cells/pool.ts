/**
 * What standing by costs over a simulated month, and how many predicted failures find no cell in time. The decision is
 * the real one (cells/pool-economics.ts); failures, lead times and durations are drawn from the rates below.
 */
import { decidePool, type PoolQuestion } from '../../cells/pool-economics';
import { policySchema } from '../../blueprints/schema';
import { atMost, plain, type Figure } from '../figures';

/** Assumed, each with where it is from. */
export const assumed = {
  services: 200,
  cellsPerService: 3,
  monthH: 720,
  /** Predicted failures of a cell: one in 30 days, the base rate that docs and prices assume (`policy.pool`). */
  failuresPerCellMonth: 1,
  /** Weibull shape of the times between failures: Schroeder and Gibson, DSN 2006, say 0.7 to 0.8. */
  shape: 0.7,
  /** The budget of the shipped model (models/model-card.md). */
  falseAlarmsPerCellDay: 0.1,
  /**
   * Seconds from the alert to the failure, in tenths: the steps of warning of the caught incidents in models/model-card.md,
   * at one step a second. An alert counts as a prediction there only from 4 steps on.
   */
  leadS: [4, 6, 10, 14, 15, 19, 28, 34, 51, 90, 120],
  /** Hours that a failover has its cell: until the source is mended, or the alarm turns out false. */
  busyH: { failure: 1, falseAlarm: 1 / 6 },
  /** Seconds until ready, log-normal by median and p99. The p99 are the targets, not measurements. */
  fromNothingS: { median: 4, p99: 10 },
  fromIdleS: { median: 0.7, p99: 2 },
  /** A cell for the pool: how often is looked (cells.poolEveryS), and its warm-up, after it is ready. One at a time. */
  poolEveryS: 60,
  poolWarmS: 15,
} as const;

/** A small generator of its own: the same month for the same seed (mulberry32). */
function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The gamma function at 1 + 1/shape, for the mean of a Weibull distribution of shape 0.7. */
const meanOfScaleOne = 1.2658;

interface Wanted {
  atH: number;
  isFailure: boolean;
}

function monthOf(random: () => number): Wanted[] {
  const { cellsPerService, monthH, failuresPerCellMonth, shape, falseAlarmsPerCellDay } = assumed;
  const wanted: Wanted[] = [];
  for (let cell = 0; cell < cellsPerService; cell += 1) {
    const scaleH = monthH / failuresPerCellMonth / meanOfScaleOne;
    // Begun a month earlier, so that the month does not start just after a failure.
    for (let atH = -monthH; ;) {
      atH += scaleH * (-Math.log(1 - random())) ** (1 / shape);
      if (atH >= monthH) break;
      wanted.push({ atH, isFailure: true });
    }
    for (let atH = -monthH; ;) {
      atH += (-Math.log(1 - random()) * 24) / falseAlarmsPerCellDay;
      if (atH >= monthH) break;
      wanted.push({ atH, isFailure: false });
    }
  }
  return wanted.sort((a, b) => a.atH - b.atH);
}

function logNormal({ median, p99 }: { median: number; p99: number }, random: () => number): number {
  const normal = Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  return median * Math.exp((normal * Math.log(p99 / median)) / 2.3263);
}

function leadOf(random: () => number): number {
  const { leadS } = assumed;
  const at = random() * (leadS.length - 1);
  const low = Math.floor(at);
  return leadS[low]! + (at - low) * (leadS[low + 1]! - leadS[low]!);
}

interface Month {
  failures: number;
  late: number;
  idleH: number;
  busyH: number;
  /** Cells made for the pool alone, in this month and in the one before it, in which the service began. */
  made: number;
  /** In that first month. */
  firstFailures: number;
  firstLate: number;
}

/** One service. `keep` decides how many wait idle, once an hour and after each prediction. */
function simulate(seed: number, keep: (question: PoolQuestion) => number, prices: PoolQuestion['prices']): Month {
  const random = generator(seed);
  const month: Month = { failures: 0, late: 0, idleH: 0, busyH: 0, made: 0, firstFailures: 0, firstLate: 0 };
  const seen: number[] = [];
  let back: number[] = [];
  let idle = 0;
  let mostIdle = 0;
  /** When the cell lies idle that is being made for the pool. */
  let madeAtH: number | null = null;
  const decide = (nowH: number) => {
    const last = seen.at(-1);
    mostIdle = keep({
      service: 'x',
      cells: assumed.cellsPerService,
      predictions: seen.filter((atH) => atH > nowH - assumed.monthH).length,
      observedH: Math.min(assumed.monthH, nowH + assumed.monthH),
      quietH: last === undefined ? null : nowH - last,
      outageMinutes: 15,
      prices,
      budgetHours: 48,
    });
    idle = Math.min(idle, mostIdle);
  };
  /** As the product does: what is with a failover counts as about to be idle, and none is begun beyond. */
  const makeWhatLacks = (nowH: number) => {
    if (madeAtH !== null || idle + back.length >= mostIdle) return;
    const { fromNothingS, poolEveryS, poolWarmS } = assumed;
    const tookS = random() * poolEveryS + logNormal(fromNothingS, random) + poolWarmS;
    madeAtH = nowH + tookS / 3600;
  };
  let nowH = -assumed.monthH;
  const wanted = monthOf(random);
  const pass = (toH: number) => {
    while (nowH < toH) {
      const nextH = Math.min(toH, Math.floor(nowH) + 1, madeAtH ?? Infinity, ...back);
      if (nowH >= 0) {
        month.idleH += idle * (nextH - nowH);
        // While it is made it costs what a running one does; so, to be careful, does the wait for the next look.
        if (madeAtH !== null) month.busyH += nextH - nowH;
      }
      nowH = nextH;
      if (madeAtH !== null && madeAtH <= nowH) {
        idle = Math.min(mostIdle, idle + 1);
        madeAtH = null;
        month.made += 1;
      }
      // A failover that has ended leaves its cell idle, as far as it is worth it.
      const ended = back.filter((endH) => endH <= nowH).length;
      back = back.filter((endH) => endH > nowH);
      idle = Math.min(mostIdle, idle + ended);
      if (Number.isInteger(nowH)) decide(nowH);
      makeWhatLacks(nowH);
    }
  };
  decide(nowH);
  for (const { atH, isFailure } of wanted) {
    pass(atH);
    const isFromIdle = idle > 0;
    if (isFromIdle) idle -= 1;
    // One that is being made for the pool is taken as it is: the failover begins a new one in the worst case, no later.
    else madeAtH = null;
    const readyS = logNormal(isFromIdle ? assumed.fromIdleS : assumed.fromNothingS, random);
    const leadS = leadOf(random);
    const busyH = isFailure ? assumed.busyH.failure : assumed.busyH.falseAlarm;
    if (atH < 0 && isFailure) {
      month.firstFailures += 1;
      if (readyS > leadS) month.firstLate += 1;
    }
    if (atH >= 0) {
      month.busyH += busyH;
      if (isFailure) {
        month.failures += 1;
        if (readyS > leadS) month.late += 1;
      }
    }
    back.push(atH + busyH);
    seen.push(atH);
    decide(atH);
  }
  pass(assumed.monthH);
  return month;
}

export async function poolFigures(): Promise<Figure[]> {
  const { services, monthH } = assumed;
  const run = (keep: (question: PoolQuestion) => number, prices: PoolQuestion['prices']) => {
    const months = Array.from({ length: services }, (_, i) => simulate(1000 + i, keep, prices));
    const sum = (of: (month: Month) => number) => months.reduce((total, month) => total + of(month), 0);
    const alwaysOnH = services * monthH;
    return {
      failures: sum(({ failures }) => failures),
      cost: (sum(({ busyH }) => busyH) + sum(({ idleH }) => idleH) * prices.idleCostShare) / alwaysOnH,
      late: sum(({ late }) => late) / sum(({ failures }) => failures),
      idle: sum(({ idleH }) => idleH) / alwaysOnH,
      made: sum(({ made }) => made) / services,
      firstLate: sum(({ firstLate }) => firstLate) / sum(({ firstFailures }) => firstFailures),
    };
  };
  const price = (idleCostShare: number) => policySchema.parse({ pool: { idleCostShare } }).pool;
  const decided = run((question) => decidePool(question).keep, price(0.055));
  const figures = [
    plain('pool: predicted failures in the month', decided.failures, '1'),
    plain('pool: idle cells, on average per service', decided.idle, '1'),
    plain('pool: cells made for the pool alone, per service and two months', decided.made, '1'),
    atMost('pool: standby cost / an always-on spare, idle at 5.5 %', decided.cost, 'share', 0.1),
    atMost('pool: predicted failures without a cell in time', decided.late, 'share', 0.01),
    plain("pool: the same in a service's first month", decided.firstLate, 'share'),
  ];
  // What hangs on the price of an idle cell, and what the two extremes would cost.
  const dear = run((question) => decidePool(question).keep, price(0.1));
  const none = run(() => 0, price(0.055));
  return [
    ...figures,
    plain('pool: standby cost, idle at 10 %', dear.cost, 'share'),
    plain('pool: without a cell in time, idle at 10 %', dear.late, 'share'),
    plain('pool: standby cost, none idle', none.cost, 'share'),
    plain('pool: without a cell in time, none idle', none.late, 'share'),
  ];
}
