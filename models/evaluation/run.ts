/** One evaluation of one model on given cells: replay, figures, comparators, drift and gate, into a report. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { featureNames } from '../../prediction/feature-spec';
import { ModelRefusedError, type Manifest } from '../../prediction/manifest';
import { Model } from '../../prediction/model';
import { allComparators } from './comparators';
import type { CellSeries, Detector } from './contracts';
import { figuresOf, type Alerting, type DetectorFigures } from './detector-figures';
import { defaultRules, type EventRules } from './events';
import { populationStability } from './figures';
import { decisionsOf, gate, type Decisions, type GateVerdict } from './gate';
import { scoreCells } from './model-detector';
import { buildReport, type Report } from './report';
import type { RecordedCell } from './series';
import { peersOf, tuneFamilies, tuneStack, watchBudget, type Tuned } from './tuning';

export interface EvaluationTask {
  cells: readonly RecordedCell[];
  source: string;
  command: string;
  manifestFile: string;
  /** Default: what the manifest says, else 0.5. */
  threshold?: number | undefined;
  /** Default: the longest horizon of the model. */
  horizonTicks?: number | undefined;
  strictHorizon?: boolean;
  notes?: readonly string[];
  /** Comparators that have been tuned elsewhere, or `here`: on these very cells, to their advantage. */
  comparators?: readonly Tuned[] | 'here';
  comparatorsTunedOn?: string;
  /** Manifest of a model whose decisions are to be compared. */
  against?: string | undefined;
  log: (line: string) => void;
}

export interface Evaluation {
  report: Report;
  figures: DetectorFigures;
  decisions: Decisions;
}

const manifestExtras = z.object({
  alert: z.object({ threshold: z.number().gt(0).max(1), persist: z.number().int().min(1).default(2) }).optional(),
  drift: z
    .array(z.object({ feature: z.string(), edges: z.array(z.number()), shares: z.array(z.number()) }))
    .optional()
    .catch(undefined),
});

/** Where the manifest names no threshold: an even chance, twice in a row. */
const fallback: Alerting = { threshold: 0.5, persist: 2 };
const driftRowEvery = 7;

export function alertingOf(manifest: Manifest, threshold?: number): Alerting {
  const named = manifestExtras.parse(manifest).alert ?? fallback;
  return { threshold: threshold ?? named.threshold, persist: named.persist };
}

export async function evaluate(task: EvaluationTask): Promise<Evaluation> {
  const model = await Model.load(task.manifestFile);
  try {
    const alerting = alertingOf(model.manifest, task.threshold);
    const rules = rulesFor(model.manifest, task);
    const drift = new DriftWatch(model.manifest);
    const scored = await scoreCells(task.cells, {
      model,
      ...alerting,
      onProgress: progress('scored', task.log),
      onRow: (row) => drift.see(row),
    });
    const comparators = compared(task, rules);
    const input = {
      ...task,
      model: model.id,
      scored,
      rules,
      alerting,
      drift: drift.shifts(),
      comparators,
      comparatorsTunedOn: task.comparatorsTunedOn ?? 'this very data, to their advantage',
    };
    const { report, figures } = buildReport(input);
    const decisions = decisionsOf(model.id, task.cells, figures.verdicts, figures.events, figures.calibration?.ece);
    if (task.against !== undefined) report.gate = await gateAgainst(task.against, decisions, task, rules);
    return { report, figures, decisions };
  } finally {
    await model.release();
  }
}

function rulesFor(manifest: Manifest, { horizonTicks, strictHorizon }: EvaluationTask): EventRules {
  const longest = manifest.horizonsSteps[manifest.horizonsSteps.length - 1] as number;
  return {
    ...defaultRules,
    horizonTicks: horizonTicks ?? longest,
    ...(strictHorizon !== undefined && { strictHorizon }),
  };
}

/** A line at most every five seconds. */
function progress(what: string, log: (line: string) => void): (done: number, of: number) => void {
  let saidAt = Date.now();
  return (done, of) => {
    if (Date.now() - saidAt < 5000) return;
    saidAt = Date.now();
    log(
      `${what} ${done.toLocaleString('en')} of ${of.toLocaleString('en')} ticks (${Math.floor((100 * done) / of)} %)`,
    );
  };
}

function compared({ comparators, cells, log }: EvaluationTask, rules: EventRules): DetectorFigures[] {
  if (comparators === undefined) return [];
  const tuned = comparators === 'here' ? tuneComparators(cells, rules, log) : comparators;
  return tuned.map((one) => figuresOfTuned(one, cells, rules));
}

/** Each family at its best, and last the stack of them. */
export function tuneComparators(
  training: readonly CellSeries[],
  rules: EventRules,
  log: (line: string) => void,
  detectors: readonly Detector[] = allComparators(),
): Tuned[] {
  let saidAt = Date.now();
  const task = {
    training,
    rules,
    budget: watchBudget,
    onTuned: (_: Tuned, done: number, of: number) => {
      if (Date.now() - saidAt < 5000) return;
      saidAt = Date.now();
      log(`tuned ${done} of ${of} comparators`);
    },
  };
  const families = tuneFamilies(detectors, task);
  return [...families, tuneStack(families, task)];
}

function figuresOfTuned(tuned: Tuned, cells: readonly CellSeries[], rules: EventRules): DetectorFigures {
  const scores = cells.map((cell) => tuned.detector.score(cell, peersOf(cell, cells)));
  return figuresOf(tuned.detector.name, cells, scores, {
    rules,
    alerting: { threshold: tuned.threshold, persist: tuned.persist },
    isProbability: false,
  });
}

/** Where an old model leaves its decisions for the time when the program can no longer run it. */
export const decisionsFileOf = (manifestFile: string): string => join(dirname(manifestFile), 'decisions.json');

async function gateAgainst(
  manifestFile: string,
  next: Decisions,
  task: EvaluationTask,
  rules: EventRules,
): Promise<GateVerdict> {
  let old: Model;
  try {
    old = await Model.load(manifestFile);
  } catch (error) {
    if (!(error instanceof ModelRefusedError)) throw error;
    const kept = decisionsFileOf(manifestFile);
    if (existsSync(kept)) return gate(JSON.parse(readFileSync(kept, 'utf8')) as Decisions, next);
    return {
      ...gate(next, next),
      accepted: false,
      old: manifestFile,
      reasons: [
        `The old model cannot be run by this program, and ${kept} with its decisions is not there: ${error.message}`,
      ],
    };
  }
  try {
    const alerting = alertingOf(old.manifest, task.threshold);
    const scored = await scoreCells(task.cells, {
      model: old,
      ...alerting,
      onProgress: progress('scored by the old model', task.log),
    });
    const scores = task.cells.map(({ cell }) => scored.get(cell)?.probability ?? new Float32Array(0));
    const figures = figuresOf(old.id, task.cells, scores, { rules, alerting, isProbability: true });
    return gate(decisionsOf(old.id, task.cells, figures.verdicts, figures.events, figures.calibration?.ece), next);
  } finally {
    await old.release();
  }
}

/** How far the features have moved from the bins they had in training. */
class DriftWatch {
  private readonly bins: { feature: string; column: number; edges: number[]; shares: number[]; values: number[] }[];
  private rows = 0;

  constructor(manifest: Manifest) {
    this.bins = (manifestExtras.parse(manifest).drift ?? []).flatMap((bin) => {
      const column = featureNames.indexOf(bin.feature);
      return column < 0 ? [] : [{ ...bin, column, values: [] }];
    });
  }

  see(row: Float32Array): void {
    this.rows += 1;
    if (this.rows % driftRowEvery !== 0 || this.rows > 2_000_000) return;
    for (const { column, values } of this.bins) {
      const value = row[column] as number;
      if (value === value && values.length < 20_000) values.push(value);
    }
  }

  shifts(): { feature: string; psi: number }[] {
    return this.bins
      .map(({ feature, values, edges, shares }) => ({ feature, psi: populationStability(values, edges, shares) }))
      .filter(({ psi }) => !Number.isNaN(psi))
      .sort((a, b) => b.psi - a.psi);
  }
}
