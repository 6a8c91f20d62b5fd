/** The report as a table for a terminal. */
import type { Interval } from './bootstrap';
import type { GateVerdict } from './gate';
import type { Figure, Report } from './report';

const number = (value: number | null, digits = 3): string =>
  value === null || Number.isNaN(value) ? '-' : String(Number(value.toPrecision(digits)));
const share = (value: number): string => (Number.isNaN(value) ? '-' : value.toFixed(2));
const intervalText = ({ low, high }: Interval): string =>
  Number.isNaN(low) ? '' : `${low.toFixed(2)}..${high.toFixed(2)}`;

export function tableOf(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return rows
    .map((row) =>
      row
        .map((text, column) => (column === 0 ? text.padEnd(widths[column] ?? 0) : text.padStart(widths[column] ?? 0)))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

function figureRow({ name, value, unit, target, met, interval }: Figure): string[] {
  const range = interval ? `${number(interval[0], 2)}..${number(interval[1], 2)}` : '';
  return [name, number(value), unit, range, target ?? '', met === null ? '' : met ? 'met' : 'MISSED'];
}

export function reportText(report: Report): string {
  const { data, detector, alerting, rules } = report;
  const steps = data.stepsMs.map((ms) => `${ms / 1000} s`).join(', ');
  const sections = [
    `${report.model} on ${data.source}\n` +
      `${data.cells} cells of ${data.services || 'unnamed'} services at ${steps}; ${number(data.cellDays)} cell-days, ` +
      `${number(data.healthyCellDays)} of them healthy; ${data.incidents} incidents, ${data.apart} more without warning.\n` +
      `An alert begins at a probability of ${number(alerting.threshold)} within ${rules.horizonTicks} ticks, ${alerting.persist} in a row; ` +
      `it catches if it begins ${rules.minLeadTicks} to ${rules.horizonTicks} ticks ahead.`,
    ...data.notes.map((note) => `Note: ${note}`),
    tableOf([
      ['fault', 'incidents', 'caught', 'early', 'detected', 'missed', 'recall', '95 %', 'lead p50'],
      ...detector.byFault.map((f) => [
        f.fault,
        String(f.incidents),
        ...(f.kind === 'apart'
          ? ['', '', '', '', 'not judged', '']
          : [
              String(f.caught),
              String(f.early),
              String(f.detected),
              String(f.missed),
              share(f.recall.value),
              intervalText(f.recall),
            ]),
        f.kind === 'apart' ? '' : number(f.leadTicksP50),
      ]),
    ]),
    tableOf([['figure', 'value', 'unit', '95 %', 'target', ''], ...report.figures.map(figureRow)]),
  ];
  if (report.comparators.length > 0) {
    sections.push(
      `Comparators, tuned on ${report.comparatorsTunedOn ?? 'other data'}:\n` +
        tableOf([
          ['detector', 'recall', '95 %', 'false alarms', 'alarm time', 'PR-AUC', 'lead p50', 'model minus it'],
          ...[{ ...detector, difference: undefined }, ...report.comparators].map((d) => [
            d.name.length > 60 ? `${d.name.slice(0, 57)}...` : d.name,
            share(d.recall.value),
            intervalText(d.recall),
            number(d.events.falseAlarmsPerCellDay),
            number(d.events.alarmTimeShare),
            number(d.prAuc),
            number(d.leadTicks.p50),
            d.difference ? `${share(d.difference.value)} (${intervalText(d.difference)})` : '',
          ]),
        ]),
    );
  }
  const shifted = report.drift.filter(({ psi }) => psi > 0.2);
  if (shifted.length > 0) {
    const worst = shifted.slice(0, 5).map(({ feature, psi }) => `${feature} ${psi.toFixed(2)}`);
    sections.push(
      `${shifted.length} features differ from training (PSI > 0.2): ${worst.join(', ')}${shifted.length > 5 ? ', ...' : ''}`,
    );
  }
  if (report.gate) sections.push(gateText(report.gate));
  return `${sections.join('\n\n')}\n`;
}

export function gateText(verdict: GateVerdict): string {
  const lines = [
    `${verdict.accepted ? 'ACCEPTED' : 'REFUSED'}: ${verdict.new} in place of ${verdict.old}`,
    ...verdict.reasons.map((reason) => `  ${reason}`),
    `  false alarms ${verdict.falseAlarms.before} -> ${verdict.falseAlarms.after}; incidents gained ${verdict.gained.length}, ` +
      `lost ${verdict.lost.length}, earlier ${verdict.earlier.length}, later ${verdict.later.length}`,
  ];
  for (const kind of ['lost', 'gained'] as const) {
    for (const { cell, fault, onset, leadBefore, leadAfter } of verdict[kind]) {
      lines.push(
        `  ${kind}: ${fault} of ${cell} at ${onset}, warning ${number(leadBefore)} -> ${number(leadAfter)} ticks`,
      );
    }
  }
  return lines.join('\n');
}
