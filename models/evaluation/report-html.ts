/** The report as one self-contained HTML page: tables and plots that need no network and no script. */
import type { Interval } from './bootstrap';
import type { GateVerdict } from './gate';
import type { Figure, Report, ReportedDetector, ReportedIncident, Timeline } from './report';
import { escapeHtml as e, evenTicks, Plot } from './svg';

const number = (value: number | null | undefined, digits = 3): string =>
  value === null || value === undefined || Number.isNaN(value) ? '–' : String(Number(value.toPrecision(digits)));
const percent = (value: number): string => (Number.isNaN(value) ? '–' : `${Math.round(100 * value)} %`);
const intervalText = ({ low, high }: Interval): string =>
  Number.isNaN(low) ? '–' : `${Math.round(100 * low)}\u00a0to\u00a0${Math.round(100 * high)}\u00a0%`;
const shortened = (name: string): string => (name.length > 60 ? `${name.slice(0, 57)}...` : name);

type Cell = string | { html: string };
const cell = (content: Cell): string => (typeof content === 'string' ? e(content) : content.html);

function table(caption: string, head: readonly string[], rows: readonly (readonly Cell[])[]): string {
  const th = head.map((h) => `<th scope="col">${e(h)}</th>`).join('');
  const body = rows
    .map((row) => {
      const cells = row.map((c, i) => (i === 0 ? `<th scope="row">${cell(c)}</th>` : `<td>${cell(c)}</td>`));
      return `<tr>${cells.join('')}</tr>`;
    })
    .join('\n');
  return `<div class="scroll"><table><caption>${e(caption)}</caption><thead><tr>${th}</tr></thead><tbody>${body}</tbody></table></div>`;
}

function verdictOf({ met, target }: Figure): Cell {
  if (target === null) return '';
  if (met === null) return 'not measured';
  return { html: met ? '<span class="met">met</span>' : '<span class="missed">missed</span>' };
}

function figureTable(figures: readonly Figure[]): string {
  return table(
    'Figures and their targets',
    ['figure', 'value', 'unit', '95 % interval', 'target', ''],
    figures.map((f) => [
      f.name,
      number(f.value),
      f.unit,
      f.interval ? `${number(f.interval[0], 2)} to ${number(f.interval[1], 2)}` : '',
      f.target ?? '',
      verdictOf(f),
    ]),
  );
}

function faultTable({ byFault }: ReportedDetector): string {
  return table(
    'Incidents by fault. Those without warning are told, not judged.',
    [
      'fault',
      'incidents',
      'caught',
      'early',
      'detected late',
      'missed',
      'recall',
      '95 % interval',
      'median warning, ticks',
    ],
    byFault.map((f) =>
      f.kind === 'apart'
        ? [f.fault, String(f.incidents), '', '', '', '', 'not judged', '', '']
        : [
            f.fault,
            String(f.incidents),
            String(f.caught),
            String(f.early),
            String(f.detected),
            String(f.missed),
            percent(f.recall.value),
            intervalText(f.recall),
            number(f.leadTicksP50),
          ],
    ),
  );
}

function recallPlot({ byFault }: ReportedDetector): string {
  const judged = byFault.filter(({ kind }) => kind !== 'apart');
  if (judged.length === 0) return '';
  const left = 150;
  const width = 460;
  const row = 24;
  const x = (share: number): number => left + share * (width - left - 24);
  const rows = judged.map(({ fault, recall, incidents, kind }, i) => {
    const y = 18 + i * row;
    const range = Number.isNaN(recall.low)
      ? ''
      : `<line class="whisker" x1="${x(recall.low)}" x2="${x(recall.high)}" y1="${y}" y2="${y}"/>`;
    const title = `${fault}: ${percent(recall.value)} of ${incidents}, ${intervalText(recall)}`;
    return (
      `<text class="tick" x="${left - 8}" y="${y + 4}" text-anchor="end">${e(fault)} (${incidents})</text>${range}` +
      `<circle class="${kind === 'gray' ? 'dot second' : 'dot'}" cx="${x(recall.value)}" cy="${y}" r="5"><title>${e(title)}</title></circle>`
    );
  });
  const height = 18 + judged.length * row + 24;
  const grid = [0, 0.25, 0.5, 0.75, 1].map(
    (s) =>
      `<line class="grid" x1="${x(s)}" x2="${x(s)}" y1="6" y2="${height - 30}"/>` +
      `<text class="tick" x="${x(s)}" y="${height - 14}" text-anchor="middle">${percent(s)}</text>`,
  );
  return figureOf(
    'Recall by fault with 95 % intervals',
    `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="Recall by fault; the figures are in the table above">${grid.join('')}${rows.join('')}</svg>`,
  );
}

function figureOf(caption: string, content: string): string {
  return `<figure><figcaption>${e(caption)}</figcaption>${content}</figure>`;
}

function reliabilityPlot({ calibration }: ReportedDetector): string {
  if (!calibration) return '';
  const plot = new Plot({
    description: `Reliability diagram: expected calibration error ${number(calibration.ece)}, slope ${number(calibration.slope)}`,
    x: { from: 0, to: 1, label: 'probability that was said' },
    y: { from: 0, to: 1, label: 'share that failed' },
  });
  plot.line(
    [
      [0, 0],
      [1, 1],
    ],
    'ideal',
  );
  plot.line(
    calibration.bins.map((b) => [b.meanProbability, b.observed] as const),
    'series',
  );
  plot.dots(
    calibration.bins.map((b) => ({
      x: b.meanProbability,
      y: b.observed,
      title: `${b.rows} rows: said ${number(b.meanProbability)}, failed ${number(b.observed)}`,
    })),
    'dot',
  );
  return figureOf('Reliability: bins of equal size; on the dashed line said and seen agree', String(plot));
}

function precisionRecallPlot(
  { prCurve, prAuc, baseRate, name }: ReportedDetector,
  others: readonly ReportedDetector[],
): string {
  if (prCurve.length === 0) return '';
  const plot = new Plot({
    description: `Precision over recall of rows: area ${number(prAuc)} at a base rate of ${number(baseRate)}`,
    x: { from: 0, to: 1, label: 'recall of rows' },
    y: { from: 0, to: 1, label: 'precision' },
  });
  plot.level(baseRate, 'ideal');
  const best = others.reduce<ReportedDetector | undefined>(
    (top, d) => (top && top.prAuc >= d.prAuc ? top : d),
    undefined,
  );
  if (best)
    plot.line(
      best.prCurve.map((p) => [p.recall, p.precision] as const),
      'series second',
    );
  plot.line(
    prCurve.map((p) => [p.recall, p.precision] as const),
    'series',
  );
  const legend = best
    ? `<p class="legend"><span class="key"></span>${e(name)} ${number(prAuc)} <span class="key second"></span>${e(shortened(best.name))} ${number(best.prAuc)}</p>`
    : '';
  return figureOf(`Precision and recall of rows: area ${number(prAuc)}; dashed is chance`, `${String(plot)}${legend}`);
}

function leadPlot({ leadTicks }: ReportedDetector, least: number, horizon: number): string {
  if (leadTicks.all.length === 0) return '';
  const longest = Math.max(horizon, ...leadTicks.all);
  const bins = 12;
  const width = longest / bins;
  const counts = Array.from(
    { length: bins },
    (_, i) => leadTicks.all.filter((lead) => Math.min(bins - 1, Math.floor(lead / width)) === i).length,
  );
  const most = Math.max(...counts);
  const plot = new Plot({
    description: `Warning before the onset: median ${number(leadTicks.p50)} ticks, one in ten at most ${number(leadTicks.p10)}`,
    x: { from: 0, to: longest, label: 'ticks of warning' },
    y: { from: 0, to: most, label: 'incidents', ticks: evenTicks(0, most, 4).filter(Number.isInteger) },
  });
  counts.forEach((count, i) => {
    if (count > 0)
      plot.bar(
        i * width,
        (i + 1) * width,
        count,
        'bars',
        `${number(i * width)} to ${number((i + 1) * width)} ticks: ${count}`,
      );
  });
  plot.mark(least, 'least', 'fault').mark(leadTicks.p50, 'median', 'onset', 1);
  return figureOf('How long before the onset the alert began', String(plot));
}

function timelinePlot(timeline: Timeline, threshold: number): string {
  const { points } = timeline;
  const first = points[0]?.[0] ?? 0;
  const last = points[points.length - 1]?.[0] ?? 1;
  const plot = new Plot({
    description: `${timeline.title}, cell ${timeline.cell}: probability of failure before and after the onset`,
    x: { from: first, to: last, label: 'seconds from the onset' },
    y: { from: 0, to: 1, label: 'probability', ticks: [0, 0.5, 1] },
    width: 460,
    height: 210,
  });
  for (const [from, to] of timeline.alerts) plot.band(from, to, 'alert');
  plot.level(threshold, 'threshold').line(points, 'series');
  if (timeline.faultStartS !== null) plot.mark(timeline.faultStartS, 'fault', 'fault');
  if (timeline.onsetS !== null) plot.mark(timeline.onsetS, 'onset', 'onset', 1);
  if (timeline.recoveredS !== null) plot.mark(timeline.recoveredS, 'well again', 'recovered', 2);
  return figureOf(`${timeline.title} – ${timeline.cell}`, String(plot));
}

function sentences(drivers: readonly { text: string }[]): string {
  return drivers.length === 0 ? 'no reasons recorded' : drivers.map(({ text }) => text).join('; ');
}

function incidentTable(incidents: readonly ReportedIncident[]): string {
  const judged = incidents.filter(({ kind }) => kind !== 'apart');
  const shown = judged.slice(0, 300);
  return `<details><summary>All ${judged.length} incidents${shown.length < judged.length ? `, the first ${shown.length}` : ''}</summary>${table(
    'Incident by incident, with the reasons given when the alert began',
    ['cell', 'fault', 'onset', 'outcome', 'warning, ticks', 'incubation, ticks', 'reasons'],
    shown.map((i) => [
      i.cell,
      i.fault,
      i.onset,
      i.beforeFault ? `${i.outcome} (before the fault began)` : i.outcome,
      number(i.leadTicks),
      number(i.incubationTicks),
      i.leadTicks === null ? '' : sentences(i.drivers),
    ]),
  )}</details>`;
}

function falseAlarmSection({ falseAlarms, detector }: Report): string {
  if (falseAlarms.length === 0) return '<p>None.</p>';
  return table(
    `The worst of ${detector.events.falseAlarms}, and the reasons given when they began`,
    ['cell', 'began', 'ticks', 'counted', 'highest', 'reasons'],
    falseAlarms.map((f) => [
      f.cell,
      f.at,
      String(f.ticks),
      String(f.count),
      number(f.highest, 2),
      sentences(f.drivers),
    ]),
  );
}

function comparatorSection({ comparators, detector, comparatorsTunedOn }: Report): string {
  if (comparators.length === 0) return '';
  return `<h2>Comparators</h2>${table(
    `Each tuned to the same budget of false alarms on ${comparatorsTunedOn ?? 'other data'}; the difference is on the same incidents`,
    [
      'detector',
      'recall',
      '95 % interval',
      'false alarms per cell-day',
      'time in alarm',
      'row PR-AUC',
      'median warning',
      'model minus it',
    ],
    [{ ...detector, difference: undefined }, ...comparators].map((d) => [
      d.name,
      percent(d.recall.value),
      intervalText(d.recall),
      number(d.events.falseAlarmsPerCellDay),
      number(d.events.alarmTimeShare, 2),
      number(d.prAuc),
      number(d.leadTicks.p50),
      d.difference ? `${percent(d.difference.value)} (${intervalText(d.difference)})` : '',
    ]),
  )}${table(
    'The best recall within each budget of false alarms per cell-day, over thresholds chosen on these very cells',
    ['detector', ...detector.trade.map(({ budget }) => `at ${budget}`)],
    [detector, ...comparators].map((d) => [d.name, ...d.trade.map(({ recall }) => percent(recall))]),
  )}`;
}

function gateSection(gate: GateVerdict | null): string {
  if (!gate) return '';
  const changes = (['lost', 'gained', 'later', 'earlier'] as const).flatMap((kind) =>
    gate[kind].map((c) => [c.cell, kind, c.fault, c.onset, number(c.leadBefore), number(c.leadAfter)]),
  );
  const rows =
    changes.length === 0
      ? '<p>No decision on an incident changes.</p>'
      : table(
          'Past decisions that change',
          ['cell', 'change', 'fault', 'onset', 'warning before', 'warning after'],
          changes,
        );
  return `<h2>Promotion: <span class="${gate.accepted ? 'met' : 'missed'}">${gate.accepted ? 'accepted' : 'refused'}</span></h2>
<p>${e(gate.new)} in place of ${e(gate.old)}. ${gate.reasons.map(e).join(' ')} False alarms ${gate.falseAlarms.before} before, ${gate.falseAlarms.after} after.</p>${rows}`;
}

function driftSection({ drift }: Report): string {
  const shifted = drift.filter(({ psi }) => psi > 0.1).slice(0, 15);
  if (drift.length === 0) return '';
  if (shifted.length === 0)
    return `<h2>Drift</h2><p>All ${drift.length} features are distributed as in training (population stability index at most 0.1).</p>`;
  return `<h2>Drift</h2><p>Features whose distribution is not that of training. Failures recorded on purpose shift them, too.</p>${table(
    'Population stability index, highest first; above 0.2 is a shift',
    ['feature', 'index'],
    shifted.map(({ feature, psi }) => [feature, number(psi)]),
  )}`;
}

const style = `
:root { color-scheme: light dark; --ink: #1b2430; --soft: #5b6675; --line: #dde2e8; --bg: #ffffff; --panel: #f6f8fa;
  --first: #1d4ed8; --second: #b45309; --bad: #b91c1c; --good: #047857; --alert: #fca5a5; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --soft: #9aa5b4; --line: #323a45; --bg: #14181e; --panel: #1d232b;
  --first: #7aa2ff; --second: #f0a34a; --bad: #ff8a80; --good: #5fd3a4; --alert: #7f1d1d; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--bg); margin: 2rem auto; max-width: 1040px; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { margin-top: 2.4rem; font-size: 1.2rem; }
p.lead { color: var(--soft); margin-top: 0; } code { background: var(--panel); padding: .1rem .3rem; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: .8rem 0; } table { border-collapse: collapse; width: 100%; font-size: 14px; }
caption { text-align: left; color: var(--soft); padding-bottom: .4rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .7rem; border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums; }
thead th { background: var(--panel); font-weight: 600; } th[scope=row] { font-weight: 500; }
.met { color: var(--good); font-weight: 600; } .missed { color: var(--bad); font-weight: 600; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 1.2rem; }
figure { margin: 0; } figcaption { font-size: 14px; font-weight: 600; margin-bottom: .3rem; }
svg { width: 100%; height: auto; display: block; } svg text { font: 11px system-ui, sans-serif; fill: var(--soft); } svg text.label { fill: var(--ink); }
.grid { stroke: var(--line); stroke-width: 1; } .axis { stroke: var(--soft); stroke-width: 1; }
.series { fill: none; stroke: var(--first); stroke-width: 1.8; stroke-linejoin: round; } .series.second { stroke: var(--second); }
.ideal, .threshold { fill: none; stroke: var(--soft); stroke-width: 1; stroke-dasharray: 4 4; }
.dot { fill: var(--first); } .dot.second { fill: var(--second); } .whisker { stroke: var(--soft); stroke-width: 2; }
.bars { fill: var(--first); opacity: .75; } .alert { fill: var(--alert); opacity: .45; }
line.onset { stroke: var(--bad); stroke-width: 1.5; } svg text.onset { fill: var(--bad); }
line.fault { stroke: var(--second); stroke-width: 1.5; stroke-dasharray: 5 3; } svg text.fault { fill: var(--second); }
line.recovered { stroke: var(--good); stroke-width: 1.5; } svg text.recovered { fill: var(--good); }
.legend { font-size: 13px; color: var(--soft); margin: .2rem 0 0; } .key { display: inline-block; width: 1.2em; height: .25em; background: var(--first); vertical-align: middle; margin: 0 .3em 0 .8em; }
.key.second { background: var(--second); } .key.area { height: .8em; background: var(--alert); opacity: .45; }
summary { cursor: pointer; font-weight: 600; }
`;

export function reportHtml(report: Report): string {
  const { data, detector, rules, alerting } = report;
  const missed = report.figures.filter(({ met }) => met === false).length;
  const met = report.figures.filter((f) => f.met).length;
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"/><meta name="viewport" content="width=device-width, initial-scale=1"/>
<title>${e(report.model)}: evaluation</title>
<style>${style}</style></head>
<body>
<h1>How well ${e(report.model)} foretells failures</h1>
<p class="lead">On ${e(data.source)}, ${e(report.made.slice(0, 16).replace('T', ' '))} UTC. ${met} targets met, ${missed} missed.</p>
<p>${data.cells} cells${data.services > 0 ? ` of ${data.services} services` : ''} at ${e(data.stepsMs.map((ms) => `${ms / 1000} s`).join(', '))} per tick;
${number(data.cellDays)} cell-days of 8,640 ticks, ${number(data.healthyCellDays)} of them healthy; ${data.incidents} incidents that can be foretold, ${data.apart} that cannot.
An alert begins when the probability of failure within ${rules.horizonTicks} ticks reaches ${number(alerting.threshold)} at ${alerting.persist} ticks in a row.
An incident is caught only by an alert that <em>begins</em> ${rules.minLeadTicks} to ${rules.horizonTicks} ticks before its onset; an alert that begins later is a detection.
A false alarm that lasts is counted again every hour of 10-second ticks.</p>
${data.notes.map((note) => `<p><strong>Note.</strong> ${e(note)}</p>`).join('\n')}
${gateSection(report.gate)}
<h2>Figures</h2>
${figureTable(report.figures)}
<h2>Faults</h2>
${faultTable(detector)}
<div class="plots">
${recallPlot(detector)}
${leadPlot(detector, rules.minLeadTicks, rules.horizonTicks)}
${reliabilityPlot(detector)}
${precisionRecallPlot(detector, report.comparators)}
</div>
${comparatorSection(report)}
<h2>A few incidents</h2>
<p class="legend"><span class="key"></span>probability <span class="key area"></span>alert; of each fault one that was caught and one that was not, where there are both</p>
<div class="plots">
${report.timelines.map((t) => timelinePlot(t, alerting.threshold)).join('\n')}
</div>
${incidentTable(report.incidents)}
<h2>False alarms</h2>
${falseAlarmSection(report)}
${driftSection(report)}
<p class="lead">Made by <code>${e(report.command)}</code></p>
</body></html>
`;
}
