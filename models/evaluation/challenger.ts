/**
 * Compares the challenger with the shipped model on the rows that neither has seen, by the same code, and says whether it
 * is to be adopted. Run as `node dist/models/evaluation/challenger.js --champion ROWS --challenger ROWS --manifest FILE
 * --out FILE`; the folders hold rows.json, labels.f64 and scores.f32 of one set of recordings.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { readFlags } from '../../lab/arguments';
import { pairedDifference, type Interval } from './bootstrap';
import { readScoredRows, tuneAlert, type ScoredRows } from './cross-validation';
import { isHeldOut, type Split } from './split';
import { figuresOf, type Alerting, type DetectorFigures } from './detector-figures';
import { defaultRules, type EventRules } from './events';
import { watchBudget } from './tuning';

/** What is told of one model on one part of the cells. */
export interface PartFigures {
  cells: number;
  healthyCellDays: number;
  incidents: number;
  caught: number;
  recall: Interval;
  recallPredictable: Interval;
  recallGray: Interval;
  falseAlarms: number;
  falseAlarmsPerCellDay: number;
  alarmTimeShare: number;
  prAuc: number;
  baseRate: number;
  ece: number | null;
  leadTicksP50: number;
  leadPerIncubation: number;
}

export interface JudgedModel {
  alert: Alerting;
  /** All that was kept out of training. */
  heldOut: PartFigures;
  /** Of that, the services of which nothing was in training: what the rule looks at. */
  unseenServices: PartFigures;
  /** The training groups, each scored by a model that had not seen it; the alert was tuned here. */
  outOfFold: PartFigures;
}

export interface Verdict {
  decision: 'adopt' | 'keep';
  /** Recall of the challenger less the champion's on unseen services, the same incidents drawn for both. */
  difference: Interval;
  sentence: string;
}

/** Less than so many points of recall are not worth a second way of scoring. */
export const pointsToAdopt = 3;

const parts = ['heldOut', 'unseenServices', 'outOfFold'] as const;
type Part = (typeof parts)[number];

export interface Judged {
  model: JudgedModel;
  /** Per incident of the unseen services, in one order for all models: whether it was caught. */
  caughtUnseen: boolean[];
}

/** Tunes the alert on scores out of fold, then measures with it what was kept out. */
export function judgeScores({ cells, about, scores }: ScoredRows, split: Split, rules: EventRules): Judged {
  const indexes: Record<Part, number[]> = { heldOut: [], unseenServices: [], outOfFold: [] };
  for (const i of cells.keys()) {
    const group = about.groups[about.cells[i]?.group ?? -1];
    if (!group) throw new Error(`rows.json says nothing of the group of its cell ${cells[i]?.cell}.`);
    if (!isHeldOut(split, group)) indexes.outOfFold.push(i);
    else indexes.heldOut.push(i);
    if (split.heldOutServices.includes(group.service)) indexes.unseenServices.push(i);
  }
  const cellsOf = (part: Part) => indexes[part].map((i) => cells[i]!);
  const scoresOf = (part: Part) => indexes[part].map((i) => scores['out-of-fold'][i]!);
  const alert = tuneAlert(cellsOf('outOfFold'), scoresOf('outOfFold'), rules);
  const figures = (part: Part): DetectorFigures =>
    figuresOf(part, cellsOf(part), scoresOf(part), { rules, alerting: alert, isProbability: true });
  const [heldOut, unseen, outOfFold] = parts.map(figures) as [DetectorFigures, DetectorFigures, DetectorFigures];
  return {
    model: { alert, heldOut: told(heldOut), unseenServices: told(unseen), outOfFold: told(outOfFold) },
    caughtUnseen: unseen.verdicts.flatMap((v) => v.incidents).map(({ outcome }) => outcome === 'caught'),
  };
}

function told(figures: DetectorFigures): PartFigures {
  const { verdicts, events, recall, recallPredictable, recallGray } = figures;
  return {
    cells: verdicts.length,
    healthyCellDays: events.cellDays,
    incidents: events.incidents,
    caught: events.caught,
    recall,
    recallPredictable,
    recallGray,
    falseAlarms: events.falseAlarms,
    falseAlarmsPerCellDay: events.falseAlarmsPerCellDay,
    alarmTimeShare: events.alarmTimeShare,
    prAuc: figures.prAuc,
    baseRate: figures.baseRate,
    ece: figures.calibration?.ece ?? null,
    leadTicksP50: figures.leadTicks.p50,
    leadPerIncubation: figures.leadPerIncubation,
  };
}

/**
 * The rule: a challenger is adopted for at least three points more of recall on services nobody trained on, at no more
 * false alarms than the budget allows, or than the champion raises there.
 */
export function verdictOn(champion: Judged, challenger: Judged): Verdict {
  const difference = pairedDifference(challenger.caughtUnseen, champion.caughtUnseen);
  const [theirs, ours] = [challenger.model.unseenServices, champion.model.unseenServices];
  const allowed = Math.max(watchBudget.falseAlarmsPerCellDay, ours.falseAlarmsPerCellDay);
  // A sum of thirds and the like: 0.03 itself must count.
  const isBetter = difference.value >= pointsToAdopt / 100 - 1e-9;
  const isQuiet = theirs.falseAlarmsPerCellDay <= allowed;
  const rule = `A challenger is adopted for at least ${pointsToAdopt} points of event recall on unseen services at an equal budget of false alarms`;
  const found =
    theirs.incidents === 0
      ? 'no failure of an unseen service was recorded'
      : `it has ${points(difference.value)} (95 % interval ${points(difference.low)} to ${points(difference.high)}) on ` +
        `${theirs.incidents} incidents, at ${theirs.falseAlarmsPerCellDay.toPrecision(2)} false alarms per cell-day ` +
        `beside ${ours.falseAlarmsPerCellDay.toPrecision(2)}`;
  return {
    decision: isBetter && isQuiet ? 'adopt' : 'keep',
    difference,
    sentence: `${rule}; ${found}${isBetter && !isQuiet ? ', which is more than is allowed' : ''}.`,
  };
}

const points = (share: number): string => `${share >= 0 ? '+' : ''}${(100 * share).toFixed(1)} points`;

/** models/challenger.json. */
export interface ChallengerComparison extends JudgedModel {
  model: string;
  parameters: Record<string, unknown>;
  budget: typeof watchBudget;
  horizonTicks: number;
  dataSha256: string;
  champion: JudgedModel & { model: string; version: string };
  verdict: Verdict;
}

interface Manifest {
  model: string;
  version: string;
  dataSha256: string;
  horizonsSteps: number[];
  split: Split;
}

/** Refuses scores of other recordings, and cells that were read from them by other rules. */
function sameRows(champion: string, challenger: string, { dataSha256 }: Manifest): void {
  const read = (dir: string) =>
    JSON.parse(readFileSync(join(dir, 'rows.json'), 'utf8')) as { dataSha256: string; cells: object[] };
  const [ours, theirs] = [read(champion), read(challenger)];
  for (const [dir, { dataSha256: of }] of [[champion, ours] as const, [challenger, theirs] as const]) {
    if (of !== dataSha256)
      throw new Error(`${dir} holds rows of other recordings than the model was trained on: run npm run train first.`);
  }
  // Times of watch and incidents included: else the two would not be asked the same.
  const differing = ours.cells.filter((cell, i) => JSON.stringify(cell) !== JSON.stringify(theirs.cells[i]));
  if (differing.length > 0 || ours.cells.length !== theirs.cells.length) {
    throw new Error(
      `${champion} and ${challenger} differ in ${differing.length} of ${ours.cells.length} cells (${theirs.cells.length} there), ` +
        'in their watch or their incidents: one was made by older code. Run npm run train and npm run train:challenger again.',
    );
  }
}

function main(): void {
  const flags = readFlags({ champion: 'string', challenger: 'string', manifest: 'string', out: 'string' });
  if (!flags.champion || !flags.challenger || !flags.manifest || !flags.out)
    throw new Error('--champion DIR, --challenger DIR, --manifest FILE and --out FILE are needed.');
  const manifest = JSON.parse(readFileSync(flags.manifest, 'utf8')) as Manifest;
  sameRows(flags.champion, flags.challenger, manifest);
  const { horizonsSteps, split } = manifest;
  const rules: EventRules = { ...defaultRules, horizonTicks: horizonsSteps[horizonsSteps.length - 1]! };
  const judged = (dir: string): Judged => judgeScores(readScoredRows(dir, horizonsSteps.length), split, rules);
  const [champion, challenger] = [judged(flags.champion), judged(flags.challenger)];
  const { kind, ...parameters } = JSON.parse(readFileSync(join(flags.challenger, 'challenger.json'), 'utf8')) as {
    kind: string;
  };
  const comparison: ChallengerComparison = {
    model: kind,
    parameters,
    budget: watchBudget,
    horizonTicks: rules.horizonTicks,
    dataSha256: manifest.dataSha256,
    ...challenger.model,
    champion: { model: manifest.model, version: manifest.version, ...champion.model },
    verdict: verdictOn(champion, challenger),
  };
  writeFileSync(flags.out, `${JSON.stringify(comparison, rounded, 1)}\n`);
  process.stdout.write(`${comparison.verdict.decision}: ${comparison.verdict.sentence}\n`);
}

const rounded = (_key: string, value: unknown): unknown =>
  typeof value === 'number' && !Number.isInteger(value) ? Number(value.toPrecision(5)) : value;

if (require.main === module) {
  try {
    main();
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n`);
    process.exit(1);
  }
}
