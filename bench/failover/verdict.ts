/** What was to be reached, and whether it was: each target with its figure. Pure. */
import type { ArmName } from './arms';
import type { ArmRow, FaultRows } from './statistics';
import { standbyHoursOfWeek, type Rates } from './week';
import type { RunResult } from './result';

export interface Verdict {
  what: string;
  figure: string;
  /** Null where the arms it compares were not run. */
  met: boolean | null;
  /** Why it is missed, where that can be said. */
  note?: string;
}

/** Of (a)'s, of (b)'s, of (c)'s hours. */
export const targets = { ofUsual: 0.01, ofBest: 0.05, ofSpareHours: 0.1 } as const;

const row = ({ rows }: FaultRows, arm: ArmName): ArmRow | undefined => rows.find((r) => r.arm === arm);

const share = (r: ArmRow): number => r.bad / Math.max(1, r.requests);

/** A part of nothing is nothing, or without measure. */
export function ratio(part: number, whole: number): number {
  if (whole === 0) return part === 0 ? 0 : Infinity;
  return part / whole;
}

export function percent(value: number): string {
  if (!Number.isFinite(value)) return 'more than nothing';
  const digits = value === 0 ? 0 : value < 0.001 ? 3 : value < 0.1 ? 2 : 1;
  return `${(100 * value).toFixed(digits)} %`;
}

/** The targets of one fault, for the arm that is judged: (e), or (f) to see what foresight itself could do. */
export function verdictsOf(fault: FaultRows, judged: 'e' | 'f' = 'e'): Verdict[] {
  const own = row(fault, judged);
  if (!own) return [];
  const name = fault.fault;
  if (!fault.predictable) return [noWorse(fault, own, 'b', name)];
  return [
    part(fault, own, 'a', targets.ofUsual, name),
    part(fault, own, 'b', targets.ofBest, name),
    noWorse(fault, own, 'c', name),
  ];
}

function part(fault: FaultRows, own: ArmRow, arm: ArmName, most: number, name: string): Verdict {
  const other = row(fault, arm);
  const what = `${name}: at most ${percent(most)} of the bad requests of (${arm})`;
  if (!other) return { what, figure: 'not run', met: null };
  const value = ratio(share(own), share(other));
  const isMet = value <= most;
  const noteworthy = other.bad === 0 ? `nothing was bad in (${arm})` : undefined;
  return { what, figure: percent(value), met: isMet, ...(noteworthy && { note: noteworthy }) };
}

function noWorse(fault: FaultRows, own: ArmRow, arm: ArmName, name: string): Verdict {
  const other = row(fault, arm);
  const what = `${name}: no worse than (${arm})`;
  if (!other) return { what, figure: 'not run', met: null };
  const isMet = share(own) <= share(other);
  const figure = `${percent(share(own))} beside ${percent(share(other))}`;
  const isNoise = !isMet && share(own) - share(other) <= fault.machineNoise;
  return { what, figure, met: isMet, ...(isNoise && { note: 'by less than was bad in all arms before the fault' }) };
}

/** The same over all predictable faults together, and the week's hours. */
export function overallVerdicts(faults: readonly FaultRows[], runs: readonly RunResult[], at: Rates): Verdict[] {
  const predictable = faults.filter((fault) => fault.predictable);
  const together = predictable.length > 0 ? [sumOf(predictable)] : [];
  const hours = standbyHoursOfWeek('e', runs, at);
  const spare = standbyHoursOfWeek('c', runs, at) ?? 24 * 7;
  const what = `standby hours of a week: at most ${percent(targets.ofSpareHours)} of (c)'s`;
  // Most events of a week are harmless ones: without them the hours say little.
  const isWhole = faults.some(({ fault }) => fault === 'look-alikes');
  return [
    ...together.flatMap((fault) => verdictsOf(fault)),
    hours === null
      ? { what, figure: 'not run', met: null }
      : {
          what,
          figure: `${hours.toFixed(1)} h of ${spare.toFixed(0)} h, ${percent(hours / spare)}`,
          met: isWhole ? hours <= targets.ofSpareHours * spare : null,
          ...(!isWhole && { note: 'look-alikes were not run' }),
        },
  ];
}

/** All faults as one: sums of what callers saw. */
function sumOf(faults: readonly FaultRows[]): FaultRows & { fault: FaultRows['fault'] } {
  const arms = [...new Set(faults.flatMap(({ rows }) => rows.map(({ arm }) => arm)))];
  const rows = arms.map((arm): ArmRow => {
    const own = faults.flatMap((fault) => row(fault, arm) ?? []);
    const sum = (of: (r: ArmRow) => number): number => own.reduce((total, r) => total + of(r), 0);
    return { ...own[0]!, arm, runs: sum((r) => r.runs), requests: sum((r) => r.requests), bad: sum((r) => r.bad) };
  });
  const name = 'predictable faults that were run, together' as FaultRows['fault'];
  const machineNoise = Math.max(...faults.map((fault) => fault.machineNoise));
  return { ...faults[0]!, fault: name, predictable: true, rows, machineNoise };
}
