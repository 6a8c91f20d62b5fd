/** A failover's dossier as one self-contained HTML page: no script, no network, printable. */
import type { Dossier } from '../../workflows/messages';
import { warmUpSteps } from '../../workflows/warm-up-steps';
import type { Story } from './story';
import { clock } from './text';
import { escapeXml as escape, timelineSvg } from './timeline';

const style = `
:root { --ink: #1b2430; --soft: #5b6675; --line: #dde2e8; --panel: #f6f8fa; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); margin: 2rem auto; max-width: 1040px; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.lead { color: var(--soft); margin: .2rem 0 1rem; }
.badge { display: inline-block; padding: .1rem .6rem; border-radius: 1rem; background: var(--panel); border: 1px solid var(--line); font-size: .9rem; }
.drill { background: #fff6c7; border-color: #d6b800; font-weight: 600; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid var(--line); }
th[scope=row] { color: var(--soft); font-weight: 500; white-space: nowrap; width: 1%; }
thead th { background: var(--panel); }
td.n, td.t { font-variant-numeric: tabular-nums; white-space: nowrap; color: var(--soft); }
.picture { overflow-x: auto; } .picture svg { width: 100%; min-width: 760px; height: auto; }
pre { background: var(--panel); padding: .6rem; overflow-x: auto; font-size: 12px; margin: .3rem 0; }
summary { cursor: pointer; color: var(--soft); font-size: 13px; }
`;

export function storyPage({ dossier: d, risks, from }: Story): string {
  const title = `${d.service} / ${d.cell}: ${d.outcome ?? d.phase}`;
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escape(title)}</title><style>${style}</style></head>
<body>
<h1>${escape(title)} ${d.drill ? '<span class="badge drill">drill: a practice, no real prediction</span>' : ''}</h1>
<p class="lead">${escape(d.reason ?? 'It is under way.')}</p>
<div class="picture">${timelineSvg(d, risks)}</div>
<p class="lead">Solid: the source ${escape(d.cell)}. Dashed: ${escape(d.syntheticCell ?? 'its synthetic cell')}. Numbers: the decisions below. Times are UTC.</p>
${facts(d, from)}
<h2>What happened, and why</h2>
${decisions(d)}
<h2>Changes of the split</h2>
${changes(d)}
<h2>The whole dossier</h2>
<details><summary>JSON</summary><pre>${escape(JSON.stringify(d, null, 2))}</pre></details>
</body></html>
`;
}

function facts(d: Dossier, from: Story['from']): string {
  const { firstRisk, lastRisk } = d;
  const risk = (r: typeof firstRisk) =>
    r
      ? `${r.level}, ${r.probability.toFixed(2)} within ${r.horizonS} s, at ${clock(r.at)} (trust ${r.trust}, model ${r.model})`
      : 'none';
  const drivers = (lastRisk?.drivers ?? []).slice(0, 5).map((driver) => driver.text);
  const rows: [string, string][] = [
    ['failover', `${d.failover}, run ${d.runId}`],
    ['synthetic cell', d.syntheticCell ?? 'none'],
    ['from, to', `${d.startedAt}, ${d.endedAt ?? 'under way'}`],
    ['first risk', risk(firstRisk)],
    ['last risk', risk(lastRisk)],
    ['drivers', drivers.join('; ') || 'none told'],
    [
      'read from',
      { run: 'the run itself', replay: 'its history, replayed', history: 'its history', store: 'the store' }[from],
    ],
  ];
  return `<table>${rows.map(([name, value]) => `<tr><th scope="row">${name}</th><td>${escape(value)}</td></tr>`).join('\n')}</table>`;
}

function decisions(d: Dossier): string {
  const rows = d.entries.map((entry, i) => {
    const { at, phase, what, evidence } = entry;
    const steps = warmUpSteps(entry).map((text) => `<li>${escape(text)}</li>`);
    const list = steps.length > 0 ? `<ul>${steps.join('')}</ul>` : '';
    const more = evidence
      ? `<details><summary>evidence</summary><pre>${escape(JSON.stringify(evidence, null, 2))}</pre></details>`
      : '';
    return `<tr><td class="n">${i + 1}</td><td class="t">${clock(at)}</td><td>${phase}</td><td>${escape(what)}${list}${more}</td></tr>`;
  });
  return `<table><thead><tr><th></th><th>time</th><th>phase</th><th>what</th></tr></thead><tbody>${rows.join('\n')}</tbody></table>`;
}

function changes(d: Dossier): string {
  if (d.steps.length === 0) return '<p class="lead">No traffic was moved.</p>';
  const rows = d.steps.map(({ at, epoch, split, reason, acknowledgedBy }) => {
    const shares = Object.entries(split).map(([cell, bp]) => `${cell} ${bp / 100} %`);
    const cells = [clock(at), String(epoch), shares.join(', '), String(acknowledgedBy), reason];
    return `<tr>${cells.map((cell) => `<td>${escape(cell)}</td>`).join('')}</tr>`;
  });
  return `<table><thead><tr><th>time</th><th>epoch</th><th>shares</th><th>proxies</th><th>why</th></tr></thead><tbody>${rows.join('\n')}</tbody></table>`;
}
