/** The demo's report as one self-contained HTML page: charts with uPlot inlined, no network needed to read it. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../package-root';
import { verdictSentence, type DataVerdict } from './recording-callers';
import { reportRows, type ActReport, type DemoReport } from './report';

function asset(name: string): string {
  return readFileSync(join(packageRoot, 'node_modules', 'uplot', 'dist', name), 'utf8');
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}

/** JSON that may stand inside a script element. */
function scriptJson(value: unknown): string {
  return JSON.stringify(value).replace(/</g, '\\u003c');
}

function table(report: DemoReport): string {
  const [head, ...rows] = reportRows(report);
  const th = (head ?? []).map((c) => `<th>${escapeHtml(c)}</th>`).join('');
  const body = rows
    .map(
      (r) =>
        `<tr>${r.map((c, i) => (i === 0 ? `<th scope="row">${escapeHtml(c)}</th>` : `<td>${escapeHtml(c)}</td>`)).join('')}</tr>`,
    )
    .join('\n');
  return `<div class="scroll"><table><thead><tr>${th}</tr></thead><tbody>${body}</tbody></table></div>`;
}

/** Green only if nothing at all is wrong with the data. */
function verdict(data: DataVerdict): string {
  const kind = data.violations.length === 0 ? 'kept' : 'broken';
  const list = data.violations.slice(0, 20).map((text) => `<li>${escapeHtml(text)}</li>`);
  return `
<div class="verdict ${kind}">${escapeHtml(verdictSentence(data))}${list.length > 0 ? `<ul>${list.join('')}</ul>` : ''}</div>`;
}

function actSection(act: ActReport, index: number): string {
  const story = act.series.events
    .map((e) => `<li><time>${e.t.toFixed(1)} s</time> ${escapeHtml(e.text)}</li>`)
    .join('\n');
  return `<section>
<h2>${escapeHtml(act.title)}</h2>
<p>${escapeHtml(act.reason)}</p>${act.data ? verdict(act.data) : ''}
<div class="chart" id="risk-${index}"></div>
<div class="chart" id="split-${index}"></div>
<div class="chart" id="latency-${index}"></div>
<div class="chart" id="errors-${index}"></div>
<details open><summary>What happened, second by second</summary><ol class="story">${story}</ol></details>
</section>`;
}

const style = `
:root { color-scheme: light; --ink: #1b2430; --soft: #5b6675; --line: #dde2e8; --bg: #ffffff; --panel: #f6f8fa; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--bg); margin: 2rem auto; max-width: 1040px; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { margin-top: 2.4rem; font-size: 1.2rem; }
p.lead { color: var(--soft); margin-top: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; vertical-align: top; padding: .45rem .7rem; border-bottom: 1px solid var(--line); }
thead th { background: var(--panel); } th[scope=row] { color: var(--soft); font-weight: 500; white-space: nowrap; }
.chart { margin: .8rem 0; } .uplot .u-title { font-size: 14px; text-align: left; font-weight: 600; }
.u-legend { font-size: 12px; } ol.story { list-style: none; padding: 0; font-size: 14px; }
.verdict { border-left: 4px solid; padding: .5rem .8rem; background: var(--panel); }
.verdict.kept { border-color: #047857; } .verdict.broken { border-color: #b91c1c; }
ol.story time { display: inline-block; width: 5.5em; color: var(--soft); font-variant-numeric: tabular-nums; }
.phases { display: flex; flex-wrap: wrap; gap: .3rem 1rem; font-size: 12px; color: var(--soft); }
`;

/** Runs in the reader's browser; `report` is put in front of it as data. */
const script = `
const phaseColours = { assessing: '#e8eaed', provisioning: '#dbe9ff', warming: '#ffe9d6', armed: '#fff6c7', canary: '#e2f4dd',
  shifting: '#c9ead0', 'failed-over': '#d5d9f7', draining: '#e9def3', cooldown: '#eef0f2' };
const lineColours = ['#c2410c', '#1d4ed8', '#047857', '#7c3aed', '#be123c'];
function bands(act) {
  return { hooks: { drawClear: [u => {
    const ctx = u.ctx, phases = act.series.phases;
    ctx.save();
    phases.forEach((p, i) => {
      const end = i + 1 < phases.length ? phases[i + 1].t : u.scales.x.max;
      const x0 = Math.max(u.valToPos(p.t, 'x', true), u.bbox.left), x1 = Math.min(u.valToPos(end, 'x', true), u.bbox.left + u.bbox.width);
      if (x1 <= x0) return;
      ctx.fillStyle = phaseColours[p.phase] || '#eee';
      ctx.fillRect(x0, u.bbox.top, x1 - x0, u.bbox.height);
    });
    ctx.restore();
  }], draw: [u => {
    const death = act.series.events.find(e => /died/.test(e.text));
    if (!death) return;
    const x = u.valToPos(death.t, 'x', true), ctx = u.ctx;
    ctx.save(); ctx.strokeStyle = '#111'; ctx.setLineDash([6, 4]); ctx.beginPath();
    ctx.moveTo(x, u.bbox.top); ctx.lineTo(x, u.bbox.top + u.bbox.height); ctx.stroke();
    ctx.fillStyle = '#111'; ctx.textAlign = 'left'; ctx.textBaseline = 'alphabetic'; ctx.font = (11 * devicePixelRatio) + 'px system-ui'; ctx.fillText('first death', x + 4, u.bbox.top + 14 * devicePixelRatio);
    ctx.restore();
  }] } };
}
function draw(id, act, title, rows, series, yRange, unit, step) {
  const xs = rows.map(r => r.t);
  const el = document.getElementById(id);
  const end = act.series.load.length ? act.series.load[act.series.load.length - 1].t : 1;
  new uPlot({ title, width: Math.min(1000, el.clientWidth || 1000), height: 190, plugins: [bands(act)],
    cursor: { sync: { key: 'act-' + act.name } },
    scales: { x: { time: false, range: [0, Math.max(end, 1)] }, y: yRange ? { range: yRange } : {} },
    axes: [{ values: (u, v) => v.map(x => x + ' s') }, { values: (u, v) => v.map(x => x + unit), size: 70 }],
    series: [{ label: 't', value: (u, v) => v == null ? '' : v.toFixed(1) + ' s' }].concat(series.map((s, i) => ({ label: s.label, stroke: s.colour || lineColours[i % 5],
      width: s.width || 2, dash: s.dash, points: { show: false }, spanGaps: true, paths: step ? uPlot.paths.stepped({ align: 1 }) : undefined })))
  }, [xs].concat(series.map(s => rows.map(s.value))), el);
}
report.acts.forEach((act, i) => {
  const s = act.series, load = s.load;
  draw('risk-' + i, act, 'Failure probability of the primary within the horizon', s.risk, [
    { label: 'probability', value: r => r.probability },
    { label: 'prepare', value: () => act.thresholds.prepare, dash: [4, 4], width: 1, colour: '#a16207' },
    { label: 'shift', value: () => act.thresholds.shift, dash: [4, 4], width: 1, colour: '#b91c1c' }], [0, 1], '');
  const cells = [...new Set(s.split.flatMap(x => Object.keys(x.shares)))];
  const closing = s.split.length && load.length ? [{ t: Math.max(load[load.length - 1].t, s.split[s.split.length - 1].t), shares: s.split[s.split.length - 1].shares }] : [];
  draw('split-' + i, act, 'Share of the traffic per cell, as commanded', s.split.concat(closing), cells.map(c => ({ label: c, value: r => (r.shares[c] || 0) / 100 })), [0, 100], ' %', true);
  draw('latency-' + i, act, 'Latency callers saw (from the intended send time)', load, [
    { label: 'p50', value: r => r.p50Ms }, { label: 'p99', value: r => r.p99Ms },
    { label: 'SLO', value: () => act.sloMs, dash: [4, 4], width: 1, colour: '#b91c1c' }], null, ' ms');
  draw('errors-' + i, act, 'Requests a second: all, failed, over the SLO', load, [
    { label: 'all', value: r => r.requests, colour: '#64748b' }, { label: 'failed', value: r => r.failed, colour: '#b91c1c' }, { label: 'over SLO', value: r => r.overSlo, colour: '#d97706' }], null, '');
});
const used = new Set(report.acts.flatMap(a => a.series.phases.map(p => p.phase)));
document.getElementById('legend').innerHTML = [...used].map(p => '<span><span style="display:inline-block;width:.9em;height:.9em;background:' + phaseColours[p] + ';border:1px solid #ccc"></span> ' + p + '</span>').join('');
`;

export function renderReport(report: DemoReport): string {
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Understudy: the demo's report</title>
<style>${asset('uPlot.min.css')}${style}</style></head>
<body>
<h1>Understudy: what the demo measured</h1>
<p class="lead">${report.load.ratePerSecond} requests a second on two cells of ${report.load.cellCapacityRps} each (the act with data: callers that record each answer), SLO ${report.load.sloMs} ms, model ${escapeHtml(report.load.model)}.
Started ${escapeHtml(report.startedAt)}, took ${report.tookS.toFixed(0)} s. Shaded bands are the phases of the failover:</p>
<div class="phases" id="legend"></div>
${table(report)}
${report.acts.map(actSection).join('\n')}
<script>${asset('uPlot.iife.min.js')}</script>
<script>const report = ${scriptJson(report)};${script}</script>
</body></html>
`;
}
