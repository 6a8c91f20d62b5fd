/** The closing table of a run: every row with its outcome and seconds, group by group. */
import type { Row, Verdict } from './row';

export function closingTable(rows: readonly Row[], verdicts: ReadonlyMap<Row, Verdict>): string {
  const groups = [...new Set(rows.map(({ group }) => group))];
  const lines = groups.flatMap((group) => {
    const of = rows.filter((row) => row.group === group);
    const kept = of.filter((row) => verdicts.get(row)?.broken.length === 0).length;
    return [
      '',
      `${group}: ${kept} of ${of.length} kept every promise`,
      ...of.map((row) => line(row, verdicts.get(row))),
    ];
  });
  return lines.join('\n');
}

function line({ title }: Row, verdict: Verdict | undefined): string {
  if (!verdict) return `  ✗ not run                            ${title}`;
  const { outcome, seconds, recoveredMs, broken } = verdict;
  const recovered = recoveredMs === null ? '' : `  (work again after ${(recoveredMs / 1000).toFixed(1)} s)`;
  const mark = broken.length === 0 ? '✓' : '✗';
  return `  ${mark} ${outcome.padEnd(24)} ${seconds.toFixed(1).padStart(6)} s  ${title}${recovered}`;
}
