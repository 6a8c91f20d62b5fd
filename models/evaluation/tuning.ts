/**
 * Chooses, for each family of detectors, the member, threshold and persistence that catch the most failures of the
 * training cells within one budget of false alarms, so that what is compared later is each method at its best.
 */
import { orOf, type StackMember } from './comparators';
import type { CellSeries, Detector } from './contracts';
import { alertsOf, groundsOf, judge, summarize, type EventFigures, type EventRules, type Grounds } from './events';

export interface FalseAlarmBudget {
  /** Per 8,640 healthy ticks; one that lasts is counted again every 360 ticks. */
  falseAlarmsPerCellDay: number;
  /** Share of healthy ticks in alarm. */
  alarmTimeShare: number;
}

export const watchBudget: FalseAlarmBudget = { falseAlarmsPerCellDay: 0.1, alarmTimeShare: 0.01 };

export interface Tuned {
  family: string;
  detector: Detector;
  /** Infinity if it cannot say anything within the budget: it then never alerts. */
  threshold: number;
  persist: number;
  /** On the training cells, at that threshold. */
  figures: EventFigures;
}

export interface TuningTask {
  training: readonly CellSeries[];
  rules: EventRules;
  budget: FalseAlarmBudget;
  /** Told of each detector that has been tuned, for a person who waits. */
  onTuned?: (tuned: Tuned, done: number, of: number) => void;
}

const persistences = [1, 3, 5];
/** Thresholds are tried that this share of healthy ticks would reach; persistence may make up for five times the budget. */
const deepestShare = 5;
/**
 * Ratio of the numbers of healthy ticks that two neighbouring candidate thresholds let through: a first look at each
 * member of a grid is coarse, and the most promising of each family are then tuned finely.
 */
const coarse = 3;
const fine = 1.25;
const promising = 3;
/** Thresholds tried between the best of them and the next lower one. */
const refinements = 6;
/** Lower thresholds are not tried once the budget is exceeded this many times. */
const hopeless = 5;

/** The other cells of the same service, which may be compared with it. */
export function peersOf(cell: CellSeries, cells: readonly CellSeries[]): CellSeries[] {
  return cell.service === undefined ? [] : cells.filter((other) => other !== cell && other.service === cell.service);
}

/** The best member of each family, in the order in which the families come. */
export function tuneFamilies(detectors: readonly Detector[], task: TuningTask): Tuned[] {
  const grounds = task.training.map((cell) => groundsOf(cell, task.rules));
  const families = new Map<string, Tuned[]>();
  for (const [index, detector] of detectors.entries()) {
    const tuned = tuneOn(detector, task, grounds, coarse);
    task.onTuned?.(tuned, index + 1, detectors.length);
    families.set(detector.family, [...(families.get(detector.family) ?? []), tuned]);
  }
  return [...families.values()].map((members) => {
    members.sort((a, b) => (isBetter(a.figures, b.figures) ? -1 : isBetter(b.figures, a.figures) ? 1 : 0));
    return members
      .slice(0, promising)
      .map(({ detector }) => tuneOn(detector, task, grounds, fine))
      .reduce((best, tuned) => (isBetter(tuned.figures, best.figures) ? tuned : best));
  });
}

export function tuneDetector(detector: Detector, task: TuningTask): Tuned {
  return tuneOn(
    detector,
    task,
    task.training.map((cell) => groundsOf(cell, task.rules)),
    fine,
  );
}

/**
 * The practitioner's stack at its best: families are added one by one as long as that catches more within the budget
 * that all of them share, and the stack of all of them is tried too.
 */
export function tuneStack(families: readonly Tuned[], task: TuningTask): Tuned {
  const grounds = task.training.map((cell) => groundsOf(cell, task.rules));
  const useful = families.filter(({ threshold, figures }) => Number.isFinite(threshold) && figures.caught > 0);
  const tuneAll = (members: readonly Tuned[]): Tuned => tuneOn(orOf(members.map(asMember)), task, grounds, fine);
  const remembered = useful.map((tuned) => ({ ...tuned, detector: remembering(tuned.detector) }));

  let chosen: Tuned[] = [];
  let best = tuneAll(remembered);
  let bestMembers = remembered;
  let bestOfChosen: Tuned | undefined;
  for (;;) {
    let step: { tuned: Tuned; members: Tuned[] } | undefined;
    for (const candidate of remembered.filter((tuned) => !chosen.includes(tuned))) {
      const members = [...chosen, candidate];
      const tuned = tuneAll(members);
      if (!step || isBetter(tuned.figures, step.tuned.figures)) step = { tuned, members };
    }
    if (!step || (bestOfChosen && step.tuned.figures.caught <= bestOfChosen.figures.caught)) break;
    chosen = step.members;
    bestOfChosen = step.tuned;
    if (isBetter(step.tuned.figures, best.figures)) [best, bestMembers] = [step.tuned, step.members];
  }
  // Handed out with the detectors themselves, so that the remembered scores can go.
  const names = new Set(bestMembers.map(({ family }) => family));
  return { ...best, detector: orOf(useful.filter(({ family }) => names.has(family)).map(asMember)) };
}

const asMember = ({ detector, threshold, persist }: Tuned): StackMember => ({ detector, threshold, persist });

/** Many stacks are tried of few members, whose scores do not change meanwhile. */
function remembering(detector: Detector): Detector {
  const known = new Map<CellSeries, Float32Array>();
  return {
    name: detector.name,
    family: detector.family,
    score(cell, peers) {
      const scores = known.get(cell) ?? detector.score(cell, peers);
      known.set(cell, scores);
      return scores;
    },
  };
}

function tuneOn(detector: Detector, task: TuningTask, grounds: readonly Grounds[], rankGrowth: number): Tuned {
  const { training, budget } = task;
  detector.fit?.(training);
  const scores = training.map((cell) => detector.score(cell, peersOf(cell, training)));
  const figuresAt = (threshold: number, persist: number): EventFigures =>
    summarize(training.map((cell, i) => judge(cell, alertsOf(scores[i]!, threshold, persist), task.rules, grounds[i])));
  const healthy = healthyScoresDescending(scores, grounds);
  const candidates = candidateThresholds(scores, healthy, deepestShare * budget.alarmTimeShare, rankGrowth);

  let best: Tuned = {
    family: detector.family,
    detector,
    threshold: Infinity,
    persist: 1,
    figures: figuresAt(Infinity, 1),
  };
  const consider = (threshold: number, persist: number): EventFigures => {
    const figures = figuresAt(threshold, persist);
    const better = isBetter(figures, best.figures);
    if (isWithin(figures, budget) && better) best = { ...best, threshold, persist, figures };
    return figures;
  };
  for (const persist of persistences) {
    for (const { threshold } of candidates) {
      const figures = consider(threshold, persist);
      if (!isWithin(figures, times(budget, hopeless))) break;
    }
  }
  const chosen = candidates.findIndex(({ threshold }) => threshold === best.threshold);
  const next = candidates[chosen + 1];
  if (chosen < 0 || !next) return best;
  const { persist } = best;
  const from = Math.max(1, candidates[chosen]!.rank);
  for (let part = 1; part <= refinements; part++) {
    const rank = Math.round(from * (next.rank / from) ** (part / (refinements + 1)));
    const between = healthy[rank]!;
    if (between < best.threshold) consider(between, persist);
  }
  return best;
}

const isWithin = (figures: EventFigures, budget: FalseAlarmBudget): boolean =>
  figures.falseAlarmsPerCellDay <= budget.falseAlarmsPerCellDay &&
  // Without any healthy tick there is no share, and nothing to exceed.
  !(figures.alarmTimeShare > budget.alarmTimeShare);

const times = (budget: FalseAlarmBudget, factor: number): FalseAlarmBudget => ({
  // A few false alarms may go away again further down, where two alarms become one.
  falseAlarmsPerCellDay: budget.falseAlarmsPerCellDay * factor,
  alarmTimeShare: budget.alarmTimeShare * factor,
});

/** More failures caught; of equally many, fewer false alarms, then less time in alarm. */
function isBetter(a: EventFigures, b: EventFigures): boolean {
  if (a.caught !== b.caught) return a.caught > b.caught;
  if (a.falseAlarms !== b.falseAlarms) return a.falseAlarms < b.falseAlarms;
  return a.alarmTimeShare < b.alarmTimeShare;
}

function healthyScoresDescending(scores: readonly Float32Array[], grounds: readonly Grounds[]): Float32Array {
  const all = new Float32Array(scores.reduce((sum, row) => sum + row.length, 0));
  let count = 0;
  for (const [i, row] of scores.entries()) {
    const { healthy } = grounds[i]!;
    for (let tick = 0; tick < row.length; tick++) {
      const score = row[tick]!;
      if (healthy[tick] && score === score) all[count++] = score;
    }
  }
  return all.slice(0, count).sort().reverse();
}

interface Candidate {
  threshold: number;
  /** How many healthy ticks have a higher score, at least. */
  rank: number;
}

/** Descending, each once: first what no healthy tick reaches, then what ever more of them do. */
function candidateThresholds(
  scores: readonly Float32Array[],
  healthy: Float32Array,
  deepest: number,
  rankGrowth: number,
): Candidate[] {
  const top = healthy[0] ?? -Infinity;
  let above = Infinity;
  for (const row of scores) for (const score of row) if (score > top && score < above) above = score;
  const candidates: Candidate[] = Number.isFinite(above) ? [{ threshold: above, rank: 0 }] : [];
  const last = Math.min(healthy.length - 1, Math.ceil(deepest * healthy.length));
  for (let rank = 0; rank <= last; rank = Math.max(rank + 1, Math.floor(rank * rankGrowth))) {
    const threshold = healthy[rank]!;
    if (threshold !== candidates.at(-1)?.threshold) candidates.push({ threshold, rank });
  }
  return candidates;
}
