/**
 * `npm run evaluate`: the shipped model on all that was kept out of its training, beside its comparators; writes
 * models/evaluation.json and models/model-card.md. Run as `node dist/models/evaluation/evaluate.js [--manifest FILE]
 * [--recordings DIR,DIR] [--out DIR] [--html FILE] [--without-comparators]`.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join, relative } from 'node:path';
import { z } from 'zod';
import { readFlags } from '../../lab/arguments';
import { packageRoot } from '../../package-root';
import { Model } from '../../prediction/model';
import { trainingData } from '../training/train';
import { ablations, caughtElsewhere, type AblationResult } from './ablations';
import { readChallenger } from './challenger-section';
import type { LeftOut } from './cross-validation';
import { figuresOf, type DetectorFigures } from './detector-figures';
import { defaultRules, type EventRules } from './events';
import { modelCard } from './model-card';
import { scoreCells } from './model-detector';
import { figure, type Report } from './report';
import { reportHtml } from './report-html';
import { reportText } from './report-text';
import { alertingOf, evaluate, tuneComparators, type Evaluation } from './run';
import { recordedCells } from './recorded-cells';
import { splitSchema } from './split';
import type { RecordedCell } from './series';
import { readSmd8 } from './smd8';
import type { Tuned } from './tuning';

/** What the model card is made of: the report, and what only the shipped model is asked. */
export interface ModelEvaluation extends Omit<Report, 'timelines'> {
  trainedOn: { recordings: string[]; trainingCells: number; heldOutCells: number; heldOutServices: string[] };
  ablations: AblationResult[];
  smd8: {
    machines: number;
    cellDays: number;
    falseAlarms: number;
    falseAlarmsPerCellDay: number;
    alarmTimeShare: number;
  };
  crossValidation: LeftOut[];
  shuffledLabels: { prAuc: number; baseRate: number } | null;
}

const extras = z.object({
  split: splitSchema,
  shuffledLabels: z.object({ prAuc: z.number(), baseRate: z.number() }).optional(),
});

const log = (line: string): void => void process.stderr.write(`${line}\n`);

async function replayed(model: Model, cells: readonly RecordedCell[], rules: EventRules): Promise<DetectorFigures> {
  const alerting = alertingOf(model.manifest);
  const scored = await scoreCells(cells, { model, ...alerting });
  const scores = cells.map(({ cell }) => scored.get(cell)?.probability ?? new Float32Array(0));
  return figuresOf(model.id, cells, scores, { rules, alerting, isProbability: true });
}

async function ablated(model: Model, cells: readonly RecordedCell[], rules: EventRules, base: DetectorFigures) {
  const results: AblationResult[] = [];
  for (const { name, removes, change } of ablations) {
    const less = await replayed(model, cells.map(change), rules);
    const { events, recall, prAuc } = less;
    results.push({
      name,
      recall: orNull(recall.value),
      lost: orNull(base.recall.value - recall.value),
      falseAlarmsPerCellDay: events.falseAlarmsPerCellDay,
      alarmTimeShare: events.alarmTimeShare,
      prAuc: orNull(prAuc),
      elsewhere: removes
        ? { ...caughtElsewhere(removes, less), caughtWithAll: caughtElsewhere(removes, base).caught }
        : null,
    });
    log(`${name}: ${events.caught} of ${events.incidents} caught`);
  }
  return results;
}

const orNull = (value: number): number | null => (Number.isFinite(value) ? value : null);

function addFigures(
  report: Report,
  smd8: ModelEvaluation['smd8'],
  results: readonly AblationResult[],
  shuffled: ModelEvaluation['shuffledLabels'],
): void {
  const missing = results.find(({ name }) => name.startsWith('30 %'));
  report.figures.push(
    figure('recall lost with 30 % of metrics missing', missing?.lost ?? NaN, 'share', { atMost: 0.1 }),
    figure('false alarms on healthy machines (smd8)', smd8.falseAlarmsPerCellDay, 'per cell-day', { atMost: 0.1 }),
    figure('healthy time in alarm on machines (smd8)', smd8.alarmTimeShare, 'share', { atMost: 0.01 }),
  );
  if (shuffled) {
    report.figures.push(
      figure('PR-AUC from shuffled labels / base rate', shuffled.prAuc / shuffled.baseRate, 'times', { atMost: 2 }),
    );
  }
}

async function main(): Promise<void> {
  const flags = readFlags({
    manifest: 'string',
    recordings: 'string',
    out: 'string',
    html: 'string',
    smd8: 'string',
    'without-comparators': 'boolean',
  });
  const models = join(packageRoot, 'models');
  const manifestFile = flags.manifest ?? join(models, 'manifest.json');
  const out = flags.out ?? models;
  const dirs = flags.recordings?.split(',') ?? trainingData();
  const model = await Model.load(manifestFile);
  try {
    const { split, shuffledLabels = null } = extras.parse(model.manifest);
    const { training, heldOut } = await recordedCells(dirs, split, log);
    if (heldOut.length === 0)
      throw new Error(`no group of ${dirs.join(', ')} was kept out of training by ${manifestFile}`);
    const longest = model.manifest.horizonsSteps[model.manifest.horizonsSteps.length - 1] as number;
    const rules = { ...defaultRules, horizonTicks: longest };
    const comparators: Tuned[] = flags['without-comparators'] ? [] : tuneComparators(training, rules, log);
    const { report, figures, decisions } = await evaluateHeldOut(heldOut, manifestFile, dirs, comparators);
    const results = await ablated(model, heldOut, rules, figures);
    const machines = await readSmd8(flags.smd8 ?? join(models, 'data', 'smd8'));
    const { events } = await replayed(model, machines, rules);
    const smd8 = {
      machines: machines.length,
      cellDays: events.cellDays,
      falseAlarms: events.falseAlarms,
      falseAlarmsPerCellDay: events.falseAlarmsPerCellDay,
      alarmTimeShare: events.alarmTimeShare,
    };
    addFigures(report, smd8, results, shuffledLabels);
    if (flags.html) writeFileSync(flags.html, reportHtml(report));
    const { timelines: _, ...kept } = report;
    const evaluation: ModelEvaluation = {
      ...kept,
      trainedOn: {
        recordings: dirs.map((dir) => relative(packageRoot, dir)),
        trainingCells: training.length,
        heldOutCells: heldOut.length,
        heldOutServices: split.heldOutServices,
      },
      ablations: results,
      smd8,
      crossValidation: readCrossValidation(join(out, 'cross-validation.json')),
      shuffledLabels,
    };
    writeFileSync(join(out, 'evaluation.json'), `${JSON.stringify(evaluation, rounded, 1)}\n`);
    writeFileSync(join(out, 'decisions.json'), `${JSON.stringify(decisions, null, 1)}\n`);
    writeFileSync(
      join(out, 'model-card.md'),
      modelCard(evaluation, model.manifest, readChallenger(join(out, 'challenger.json'))),
    );
    process.stdout.write(reportText(report));
  } finally {
    await model.release();
  }
}

function evaluateHeldOut(
  cells: readonly RecordedCell[],
  manifestFile: string,
  dirs: readonly string[],
  comparators: Tuned[],
): Promise<Evaluation> {
  return evaluate({
    cells,
    source: `what was kept out of training of ${dirs.map((dir) => basename(dir)).join(', ')}`,
    command: 'npm run evaluate',
    manifestFile,
    comparators,
    comparatorsTunedOn: 'the training part of the same recordings',
    log,
  });
}

function readCrossValidation(file: string): LeftOut[] {
  if (!existsSync(file)) return [];
  return (JSON.parse(readFileSync(file, 'utf8')) as { entries: LeftOut[] }).entries;
}

/** Five digits are more than any of these figures carries. */
const rounded = (_key: string, value: unknown): unknown =>
  typeof value === 'number' && !Number.isInteger(value) ? Number(value.toPrecision(5)) : value;

main().catch((error: unknown) => {
  process.stderr.write(`${(error as Error).message}\n`);
  process.exit(1);
});
