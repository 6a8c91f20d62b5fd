/** The model card's section on the challenger: a sequence model beside the one that ships, and whether it should replace it. */
import { existsSync, readFileSync } from 'node:fs';
import type { Interval } from './bootstrap';
import type { ChallengerComparison, JudgedModel, PartFigures } from './challenger';

/** What `npm run train:challenger` wrote, or null if it has not been run. */
export function readChallenger(file: string): ChallengerComparison | null {
  return existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as ChallengerComparison) : null;
}

/** `dataSha256`: of the data that the shipped model was trained on; a comparison on other data says nothing about it. */
export function challengerSection(challenger: ChallengerComparison | null, dataSha256: string | undefined): string {
  if (!challenger || challenger.dataSha256 !== dataSha256)
    return 'Not measured on this data: `npm run train:challenger` writes `models/challenger.json`.';
  const { model, parameters, champion, verdict } = challenger;
  const rows = (['unseenServices', 'heldOut', 'outOfFold'] as const).flatMap((part) => [
    row(`${part === 'outOfFold' ? 'training, out of fold' : names[part]}: the model`, champion, part),
    row(`the challenger`, challenger, part),
  ]);
  return [
    `A ${model} of ${String(parameters.weights)} weights that finds trends in the sequences by itself, trained on the same cells and labels and judged by the ` +
      `same rules, its threshold tuned to the same budget (\`npm run train:challenger\`). Verdict: **${verdict.decision}${verdict.decision === 'keep' ? ' the model' : ' the challenger'}**. ${verdict.sentence}`,
    [
      '| cells | recall | interval | false alarms per cell-day | time in alarm | row PR-AUC | ECE | median warning |',
      `|${' --- |'.repeat(8)}`,
      ...rows,
    ].join('\n'),
  ].join('\n\n');
}

const names = { unseenServices: 'unseen services', heldOut: 'all kept out' } as const;

function row(label: string, judged: JudgedModel, part: keyof Omit<JudgedModel, 'alert'>): string {
  const f: PartFigures = judged[part];
  const cells = [label, percent(f.recall.value), range(f.recall), number(f.falseAlarmsPerCellDay)];
  return `| ${[...cells, number(f.alarmTimeShare), number(f.prAuc), number(f.ece), number(f.leadTicksP50)].join(' | ')} |`;
}

// A figure that cannot be formed is NaN before it is written and null after.
const isNumber = (value: number | null): value is number => value !== null && Number.isFinite(value);
const number = (value: number | null): string => (isNumber(value) ? String(Number(value.toPrecision(3))) : '–');
const percent = (value: number | null): string => (isNumber(value) ? `${Math.round(100 * value)} %` : '–');
const range = ({ low, high }: Interval): string => (isNumber(low) ? `${percent(low)} to ${percent(high)}` : '–');
