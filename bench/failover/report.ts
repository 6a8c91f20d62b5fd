/** The table as Markdown: for the terminal, for docs/failover-table.md and, in short, for the README. Pure. */
import { armTitles, type ArmName } from './arms';
import { faultNames, type FaultName } from './cases';
import { rowsOf, type ArmRow, type FaultRows, type Spread } from './statistics';
import { overallVerdicts, percent, verdictsOf, type Verdict } from './verdict';
import { rates, ratesSource, spareHoursOfWeek, standbyHoursOfWeek } from './week';
import type { RunResult } from './result';

export const faultTitles: Readonly<Record<FaultName, string>> = {
  'leak-to-death': 'Leak to death',
  'cpu-saturation': 'CPU saturation',
  'pool-exhaustion': 'Pool exhaustion',
  'disk-full': 'Disk full',
  'slow-dependency': 'Slow dependency (it follows whatever is made from the cell)',
  'cache-loss': 'Cache loss',
  'gray-failure': 'Gray failure',
  'abrupt-crash': 'Abrupt crash',
  'look-alikes': 'Look-alikes that pass',
};

const dash = '–';

function spread(of: Spread | null, say: (value: number) => string): string {
  if (!of) return dash;
  if (of.min === of.max) return say(of.median);
  return `${say(of.median)} (${say(of.min)} to ${say(of.max)})`;
}

const whole = (value: number): string => Math.round(value).toLocaleString('en');
const seconds = (value: number): string => `${value.toFixed(0)} s`;
const hours = (value: number): string => (value / 3600).toFixed(3);

function armLine(row: ArmRow): string {
  const warned = row.foreseen ? `${spread(row.warningS, seconds)}; ${row.foreseen.in} of ${row.foreseen.of}` : dash;
  const cells = [
    `(${row.arm}) ${armTitles[row.arm]}`,
    spread(row.badShare, percent),
    spread(row.failed, whole),
    spread(row.overSlo, whole),
    `${spread(row.p99Ms, whole)} ms`,
    spread(row.standbyS, hours),
    row.foreseen ? String(row.falseShifts) : dash,
    warned,
  ];
  return `| ${cells.join(' | ')} |`;
}

export function verdictLine({ what, figure, met, note }: Verdict): string {
  const word = met === null ? 'not judged' : met ? 'met' : '**missed**';
  return `| ${what} | ${figure} | ${word}${note ? `, ${note}` : ''} |`;
}

/** What foresight itself could not do: then no model can. */
export function boundOf(fault: FaultRows): string | null {
  const missed = verdictsOf(fault, 'f').filter(({ met }) => met === false);
  if (missed.length === 0) return null;
  const first = missed.map(({ what, figure }) => `${what.split(': ')[1]} (${figure})`).join('; ');
  return `Perfect foresight (f) did not reach it here either: ${first}.`;
}

function faultSection(fault: FaultRows): string[] {
  const bound = boundOf(fault);
  return [
    `### ${faultTitles[fault.fault]}`,
    '',
    `${fault.seeds === 1 ? 'One seed' : `${fault.seeds} seeds`}: ${[...new Set(fault.mechanisms)].join('; ')}.`,
    '',
    '| arm | failed or late | failed | late | p99 | standby cell-hours | false shifts | warning; foreseen |',
    '|---|---|---|---|---|---|---|---|',
    ...fault.rows.map(armLine),
    '',
    ...(bound ? [bound, ''] : []),
    ...(fault.sharedBad > 0
      ? [
          `${percent(fault.sharedBad)} of the requests were bad in every arm in the same second: the machine, or a fault that follows to all.`,
          '',
        ]
      : []),
  ];
}

/** The whole page. `command` made the runs; `sections` of words around it are the writer's. */
export function fullReport(runs: readonly RunResult[]): string {
  const faults = rowsOf(runs);
  return [
    ...provenance(runs),
    '',
    '## In short',
    '',
    ...shortTable(faults),
    '',
    '## Targets',
    '',
    '| target | figure | |',
    '|---|---|---|',
    ...overallVerdicts(faults, runs, rates).map(verdictLine),
    ...faults.flatMap((fault) => verdictsOf(fault)).map(verdictLine),
    '',
    ...weekSection(runs),
    '',
    '## By fault',
    '',
    'Median over the seeds, with the smallest and the largest. *Failed*: no good answer in time; *late*: a good one, later than the objective. Both count from the end of the quiet time on.',
    '*Warning*: from the first word of a risk until the failure that came where nobody helped, (b); *foreseen*: in how many of the runs in which it came.',
    '',
    ...faults.flatMap(faultSection),
  ].join('\n');
}

/** How many runs, when, and on how busy a machine. */
export function provenance(runs: readonly RunResult[]): string[] {
  const busy = runs.map(({ machine }) => machine.busy).sort((a, b) => a - b);
  const waits = runs.map(({ machine }) => machine.pressure ?? 0).sort((a, b) => a - b);
  const seeds = new Set(runs.map(({ seed }) => seed)).size;
  const kinds = new Set(runs.map(({ fault }) => fault)).size;
  const [first, last] = [runs[0]?.startedAt ?? '', runs.at(-1)?.startedAt ?? ''];
  const middle = (values: number[]): string => percent(values[Math.floor(values.length / 2)] ?? 0);
  return [
    `${runs.length} ${runs.length === 1 ? 'run' : 'runs'} over ${kinds} of ${faultNames.length} kinds of fault, ${seeds} ${seeds === 1 ? 'seed' : 'seeds'}, every arm of a fault and seed at the same time on one machine of ${runs[0]?.machine.cpus ?? 0} CPUs`,
    `(${first.slice(0, 16)} to ${last.slice(0, 16)} UTC). The machine, which others used too, was ${middle(busy)} busy (median of the runs; at most ${percent(busy.at(-1) ?? 0)}),`,
    `and in ${middle(waits)} of the time (at most ${percent(waits.at(-1) ?? 0)}) some process waited for a CPU.`,
  ];
}

/** One line per fault: what part of the requests failed or came late. */
export function shortTable(faults: readonly FaultRows[]): string[] {
  const arms = [...new Set(faults.flatMap(({ rows }) => rows.map(({ arm }) => arm)))].sort();
  const cell = (fault: FaultRows, arm: ArmName): string => {
    const row = fault.rows.find((r) => r.arm === arm);
    return row ? spread(row.badShare, percent) : dash;
  };
  return [
    `| failed or late, of all requests | ${arms.map((arm) => `(${arm}) ${armTitles[arm]}`).join(' | ')} |`,
    `|---|${arms.map(() => '---').join('|')}|`,
    ...faults.map(
      (fault) =>
        `| ${faultTitles[fault.fault].replace(/ \(.*/, '')} | ${arms.map((arm) => cell(fault, arm)).join(' | ')} |`,
    ),
  ];
}

function weekSection(runs: readonly RunResult[]): string[] {
  const line = (arm: ArmName): string | null => {
    const value = standbyHoursOfWeek(arm, runs, rates);
    return value === null
      ? null
      : `| (${arm}) ${armTitles[arm]} | ${value.toFixed(1)} | ${percent(value / spareHoursOfWeek)} |`;
  };
  const often = { ...rates, failuresPerCellDay: 10 * rates.failuresPerCellDay };
  const e = standbyHoursOfWeek('e', runs, often);
  return [
    '## A week of standby',
    '',
    `Of a service of two cells, at ${ratesSource[0]}`,
    ...ratesSource.slice(1),
    '',
    '| arm | standby cell-hours a week | of an always-on spare |',
    '|---|---|---|',
    ...(['c', 'd', 'e', 'f'] as const).flatMap((arm) => line(arm) ?? []),
    '',
    ...(e === null ? [] : [`With ten times as many failures (e) would need ${e.toFixed(1)} h.`]),
  ];
}
