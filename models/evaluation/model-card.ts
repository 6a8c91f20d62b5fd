/** The model card, written from the evaluation: no figure in it is typed by hand. */
import { z } from 'zod';
import type { Manifest } from '../../prediction/manifest';
import type { Interval } from './bootstrap';
import type { ChallengerComparison } from './challenger';
import { challengerSection } from './challenger-section';
import type { LeftOut } from './cross-validation';
import type { ModelEvaluation } from './evaluate';
import type { ReportedDetector } from './report';
import { splitSchema } from './split';

const trained = z.object({
  trainedOn: z
    .object({ groups: z.number().optional(), rows: z.number().optional(), trees: z.number().optional() })
    .default({}),
  split: splitSchema.optional(),
  alert: z.object({ threshold: z.number(), persist: z.number() }).optional(),
  dataSha256: z.string().optional(),
});

const number = (value: number | null | undefined, digits = 3): string =>
  value === null || value === undefined || Number.isNaN(value) ? '–' : String(Number(value.toPrecision(digits)));
const percent = (value: number | null | undefined): string =>
  value === null || value === undefined || Number.isNaN(value) ? '–' : `${Math.round(100 * value)} %`;
const range = ({ low, high }: Interval): string =>
  typeof low !== 'number' || Number.isNaN(low) ? '–' : `${percent(low)} to ${percent(high)}`;

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.map((c) => c.replace(/\|/g, '\\|')).join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}

/** `challenger`: what `npm run train:challenger` found, if it has been run. */
export function modelCard(
  evaluation: ModelEvaluation,
  manifest: Manifest,
  challenger: ChallengerComparison | null = null,
): string {
  const { data, detector, rules, alerting } = evaluation;
  const { trainedOn, split, dataSha256 } = trained.parse(manifest);
  const all = data.incidents + data.apart;
  return `${[
    `# Model card: ${evaluation.model}`,
    `Written by \`npm run evaluate\` from \`models/evaluation.json\`; every figure below comes from that command unless another one stands beside it.`,
    `**What it says.** The probability that a cell fails (p99 over its objective, errors, or death) within ${manifest.horizonsSteps.join(', ')} ` +
      `sampling steps, if what is now at work in it goes on. Not: whether a new fault will begin.`,
    `**How.** Discrete-time hazard: one gradient-boosted booster per horizon bin (LightGBM${trainedOn.trees ? `, ${trainedOn.trees} trees each` : ''}), monotone where physics ` +
      `says so, Platt-calibrated on predictions out of fold, one ONNX graph of ${manifest.featureNames.length} features. The extractor that computes them in serving ` +
      `computed them for training. \`npm run train\` makes it again.`,
    `**Data.** ${evaluation.trainedOn.recordings.map((r) => `\`${r}\``).join(', ')}, each with its data card. ` +
      `${evaluation.trainedOn.trainingCells} cells were trained on, ${evaluation.trainedOn.heldOutCells} kept out: ` +
      (split
        ? `all of ${split.heldOutServices.length > 0 ? `the services ${split.heldOutServices.join(', ')}` : 'no service as a whole'}, and of the others the episodes whose ` +
          `number leaves ${split.heldOutRemainder} when divided by ${split.heldOutEvery}. `
        : '') +
      `An episode, with all its cells and incidents, is on one side only.`,
    `**An alert** begins when the probability within ${rules.horizonTicks} steps reaches ${number(alerting.threshold)}, ${alerting.persist} steps in a row. ` +
      `The threshold was chosen on scores out of fold for the most incidents caught at no more than 0.1 false alarms per cell-day. ` +
      `An incident is caught only by an alert that begins ${rules.minLeadTicks} to ${rules.horizonTicks} steps before its onset. ` +
      `A cell-day is 8,640 steps; a false alarm that lasts counts again every 360.`,
    `## Figures`,
    `On ${number(data.cellDays)} cell-days of ${data.cells} cells that training has not seen, ${number(data.healthyCellDays)} of them healthy. ` +
      `Intervals are of 95 %, by resampling incidents a thousand times.`,
    table(
      ['figure', 'value', 'unit', 'interval', 'target', ''],
      evaluation.figures.map((f) => [
        f.name,
        number(f.value),
        f.unit,
        f.interval ? `${number(f.interval[0], 2)} to ${number(f.interval[1], 2)}` : '',
        f.target ?? '',
        f.met === null ? (f.target ? 'not measured' : '') : f.met ? 'met' : '**missed**',
      ]),
    ),
    missedOnes(evaluation),
    `## By fault`,
    `The ceiling: ${data.incidents} of ${all} incidents (${percent(data.incidents / all)}) give any warning at all; the others cannot be caught by anybody and are told apart.`,
    faults(detector),
    `## Warning`,
    `Half of the caught were called at least ${number(detector.leadTicks.p50)} steps ahead, nine in ten at least ${number(detector.leadTicks.p10)}; ` +
      `the median alert left ${percent(detector.leadPerIncubation)} of the time from fault to failure. Steps of warning, in tenths of the caught:`,
    leads(detector),
    `## Reliability`,
    reliability(detector),
    `## Comparators`,
    comparators(evaluation),
    `## Recall at other budgets`,
    trades(evaluation),
    `## Challenger`,
    challengerSection(challenger, dataSha256),
    `## Never seen in training`,
    leftOut(evaluation.crossValidation),
    `## With less telemetry`,
    table(
      [
        'replayed',
        'recall',
        'points lost',
        'of faults seen elsewhere',
        'row PR-AUC',
        'false alarms per cell-day',
        'time in alarm',
      ],
      evaluation.ablations.map((a) => [
        a.name,
        percent(a.recall),
        a.lost === null ? '–' : number(100 * a.lost, 2),
        a.elsewhere ? `${a.elsewhere.caught} of ${a.elsewhere.incidents}, with all ${a.elsewhere.caughtWithAll}` : '–',
        number(a.prAuc),
        number(a.falseAlarmsPerCellDay),
        number(a.alarmTimeShare, 2),
      ]),
    ),
    `## Honesty checks`,
    honesty(evaluation),
    `## What it cannot see`,
    blindSpots(evaluation),
  ].join('\n\n')}\n`;
}

function missedOnes({ figures }: ModelEvaluation): string {
  const missed = figures.filter(({ met }) => met === false);
  if (missed.length === 0) return 'No target is missed.';
  return `Missed: ${missed.map(({ name, value, target }) => `${name} (${number(value)}, target ${target ?? ''})`).join('; ')}.`;
}

function faults({ byFault }: ReportedDetector): string {
  return table(
    ['fault', 'incidents', 'caught', 'early', 'detected late', 'missed', 'recall', 'interval', 'median warning'],
    byFault.map((f) =>
      f.kind === 'apart'
        ? [f.fault, String(f.incidents), '', '', '', '', 'not judged', '', '']
        : [
            f.kind === 'gray' ? `${f.fault} (gray)` : f.fault,
            ...[f.incidents, f.caught, f.early, f.detected, f.missed].map(String),
            percent(f.recall.value),
            range(f.recall),
            number(f.leadTicksP50),
          ],
    ),
  );
}

function leads({ leadTicks }: ReportedDetector): string {
  const sorted = [...leadTicks.all].sort((a, b) => a - b);
  if (sorted.length === 0) return 'Nothing was caught.';
  const at = (tenth: number): string =>
    number(sorted[Math.min(sorted.length - 1, Math.floor((tenth * sorted.length) / 10))]);
  const tenths = [1, 2, 3, 4, 5, 6, 7, 8, 9];
  return table(
    tenths.map((t) => `${10 * t} %`),
    [tenths.map(at)],
  );
}

function reliability({ calibration, rows, baseRate }: ReportedDetector): string {
  if (!calibration) return 'Not measured.';
  return [
    `${rows.toLocaleString('en')} rows with a known answer, ${percent(baseRate)} of them before a failure. Expected calibration error ` +
      `${number(calibration.ece)}, Brier score ${number(calibration.brier)}, skill ${number(calibration.brierSkill)}, slope ${number(calibration.slope)}, intercept ${number(calibration.intercept)}.`,
    table(
      ['rows', 'said', 'failed'],
      calibration.bins.map((b) => [String(b.rows), number(b.meanProbability), number(b.observed)]),
    ),
  ].join('\n\n');
}

function comparators({ comparators: others, comparatorsTunedOn, detector }: ModelEvaluation): string {
  if (others.length === 0) return 'Not run.';
  return [
    `Each method of the list is at its best parameters, tuned on ${comparatorsTunedOn ?? 'other data'} to the same budget of false alarms.`,
    table(
      [
        'detector',
        'recall',
        'interval',
        'false alarms per cell-day',
        'time in alarm',
        'row PR-AUC',
        'median warning',
        'model minus it',
      ],
      [{ ...detector, difference: undefined }, ...others].map((d) => [
        d.name,
        percent(d.recall.value),
        range(d.recall),
        number(d.events.falseAlarmsPerCellDay),
        number(d.events.alarmTimeShare, 2),
        number(d.prAuc),
        number(d.leadTicks.p50),
        d.difference ? `${percent(d.difference.value)} (${range(d.difference)})` : '',
      ]),
    ),
  ].join('\n\n');
}

function trades({ comparators: others, detector }: ModelEvaluation): string {
  return [
    `The best recall within each budget of false alarms per cell-day, over thresholds chosen on the judged cells themselves: it shows ` +
      `how well a score ranks, not what a threshold chosen elsewhere does.`,
    table(
      ['detector', ...detector.trade.map(({ budget }) => `at ${budget}`)],
      [detector, ...others].map((d) => [d.name, ...d.trade.map(({ recall }) => percent(recall))]),
    ),
  ].join('\n\n');
}

function leftOut(entries: readonly LeftOut[]): string {
  if (entries.length === 0)
    return 'Not measured: `npm run train` with everything left out once writes `models/cross-validation.json`.';
  return [
    'Trained without a fault or a service, and judged on what was left out (`npm run train`). Service by service, its own incidents; fault by fault, the incidents of that fault.',
    table(
      ['left out', 'incidents', 'caught', 'recall', 'false alarms per cell-day', 'row PR-AUC'],
      entries.map((e) => [
        e.kind === 'out-of-fold' ? 'one fold in five' : `${e.kind} ${e.left_out}`,
        String(e.incidents),
        String(e.caught),
        percent(e.recall),
        number(e.falseAlarmsPerCellDay),
        number(e.prAuc),
      ]),
    ),
  ].join('\n\n');
}

function honesty({ leak, shuffledLabels, smd8 }: ModelEvaluation): string {
  return [
    `- Crashes without precursor: ${leak.inAlarm} of ${leak.crashes} in alarm at the last useful moment; chance allows ${number(leak.atMost)}. ` +
      `Mean probability before them ${number(leak.meanBefore)}, over healthy rows ${number(leak.meanHealthy)}.`,
    shuffledLabels
      ? `- Labels shuffled: PR-AUC ${number(shuffledLabels.prAuc)} at a base rate of ${number(shuffledLabels.baseRate)} (\`npm run train\`).`
      : '- Labels shuffled: not measured.',
    `- Real machines (${smd8.machines} of the Server Machine Dataset, never trained on, ${number(smd8.cellDays)} healthy cell-days): ` +
      `${smd8.falseAlarms} false alarms, ${number(smd8.falseAlarmsPerCellDay)} per cell-day, ${percent(smd8.alarmTimeShare)} of the time in alarm.`,
  ].join('\n');
}

function blindSpots({ detector, crossValidation, data }: ModelEvaluation): string {
  const weak = detector.byFault.filter((f) => f.kind !== 'apart' && f.recall.value < 0.5);
  const strange = crossValidation.filter((e) => e.kind !== 'out-of-fold' && e.recall !== null && e.recall < 0.5);
  const lines = [
    '- Failures without precursor: crashes, sudden bad releases, a machine that goes away. They are the honest floor.',
    '- A fault before it shows in any metric, and faults in what a cell sends no metric of.',
    `- Failures further ahead than its longest horizon, and what happens within the first minutes of a cell's life.`,
    '- The lab is not production: faults are injected into small services on one machine, and time runs faster there. Windows count in steps, but the world may not.',
  ];
  if (weak.length > 0)
    lines.push(
      `- Of its own classes it catches fewer than half of: ${weak.map(({ fault, recall, incidents }) => `${fault} (${percent(recall.value)} of ${incidents})`).join(', ')}.`,
    );
  if (strange.length > 0)
    lines.push(
      `- Never seen in training, it catches fewer than half of: ${strange.map((e) => `${e.kind} ${e.left_out} (${percent(e.recall)} of ${e.incidents})`).join(', ')}.`,
    );
  if (data.healthyCellDays < 20)
    lines.push(
      `- ${number(data.healthyCellDays)} healthy cell-days were kept out: too few to bear out a rate of 0.1 per cell-day; a single false alarm would be ${number(1 / data.healthyCellDays)}.`,
    );
  return lines.join('\n');
}
