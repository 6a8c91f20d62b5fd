/** The table as one self-contained page, with pictures: what each arm's callers saw, second by second, and over the seeds. */
import { armTitles, type ArmName } from './arms';
import { fullReport, faultTitles } from './report';
import type { RunResult } from './result';
import { rowsOf, spreadOf, type FaultRows } from './statistics';
import { percent } from './verdict';

const style = `
:root { color-scheme: light; --ink: #1b2430; --soft: #5b6675; --line: #dde2e8; --panel: #f6f8fa; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: #fff; margin: 2rem auto; max-width: 1100px; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { margin-top: 2.4rem; font-size: 1.25rem; } h3 { margin-top: 2rem; font-size: 1.05rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: 13.5px; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums; }
th { background: var(--panel); } svg { display: block; margin: .6rem 0 1rem; max-width: 100%; height: auto; } text { font: 12px system-ui, sans-serif; fill: var(--ink); }
.soft { fill: var(--soft); }
`;

function escape(text: string): string {
  return text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}

/** Of the Markdown that the report uses: headings, tables, emphasis, paragraphs. */
function toHtml(markdown: string, pictures: ReadonlyMap<string, string>): string {
  const inline = (text: string): string =>
    escape(text)
      .replace(/\*\*(.+?)\*\*/g, '<strong>$1</strong>')
      .replace(/\*(.+?)\*/g, '<em>$1</em>')
      .replace(/`(.+?)`/g, '<code>$1</code>');
  return markdown
    .split(/\n{2,}/)
    .map((block) => {
      const heading = /^(#+) (.*)$/.exec(block);
      if (heading) {
        const [, marks = '', text = ''] = heading;
        return `<h${marks.length}>${inline(text)}</h${marks.length}>${pictures.get(text) ?? ''}`;
      }
      if (!block.startsWith('|')) return `<p>${inline(block.replace(/\n/g, ' '))}</p>`;
      const rows = block
        .split('\n')
        .filter((line) => !/^\|[-|]+\|$/.test(line))
        .map((line) => line.slice(1, -1).split('|'));
      const cells = (row: string[], tag: string): string =>
        `<tr>${row.map((cell) => `<${tag}>${inline(cell.trim())}</${tag}>`).join('')}</tr>`;
      return `<div class="scroll"><table>${rows.map((row, i) => cells(row, i === 0 ? 'th' : 'td')).join('\n')}</table></div>`;
    })
    .join('\n');
}

const width = 1060;
const left = 300;
const right = 20;
const rowHeight = 22;

/** White where all is well, through yellow to red where all requests fail or come late. */
function colourOf(share: number): string {
  if (share <= 0) return '#eef7f0';
  const x = Math.min(1, Math.sqrt(share));
  return `hsl(${Math.round(50 - 50 * x)} 90% ${Math.round(85 - 45 * x)}%)`;
}

/** Rows are arms, columns seconds: the share of requests that failed or came late, median over the seeds. */
function strips(fault: FaultRows, runs: readonly RunResult[]): string {
  const arms = fault.rows.map(({ arm }) => arm);
  const endS = Math.ceil(Math.max(...runs.map((run) => run.endS)));
  const cell = (width - left - right) / endS;
  const height = arms.length * rowHeight + 40;
  const bars = arms.flatMap((arm, row) => {
    const squares = Array.from({ length: endS }, (_, second) => {
      const shares = runs.flatMap((run) => {
        const bad = run.arms[arm]?.badPerS[second];
        return bad === undefined ? [] : [bad / run.ratePerSecond];
      });
      const share = spreadOf(shares)?.median ?? 0;
      const x = (left + second * cell).toFixed(1);
      const title = `<title>(${arm}) second ${second}: ${percent(share)}</title>`;
      return `<rect x="${x}" y="${row * rowHeight + 2}" width="${cell.toFixed(2)}" height="${rowHeight - 4}" fill="${colourOf(share)}">${title}</rect>`;
    });
    return [`<text x="0" y="${row * rowHeight + 15}">${escape(label(arm))}</text>`, ...squares];
  });
  const bottom = arms.length * rowHeight + 4;
  const mark = (atS: number, text: string, dy: number): string => {
    const x = (left + atS * cell).toFixed(1);
    return `<line x1="${x}" x2="${x}" y1="0" y2="${bottom}" stroke="#111" stroke-dasharray="4 3"/><text class="soft" x="${x}" y="${bottom + dy}" text-anchor="middle">${text}</text>`;
  };
  const faultAtS = spreadOf(runs.map((run) => run.faultAtS))!.median;
  const failures = runs.flatMap((run) => run.failureAtS ?? []);
  const planned = spreadOf(failures)?.median;
  const isApart = planned !== undefined && Math.abs(planned - faultAtS) > 3;
  const marks = [
    mark(faultAtS, isApart || planned === undefined ? 'it begins' : 'it strikes', 14),
    ...(isApart ? [mark(planned, 'failure planned', 14)] : []),
    `<text class="soft" x="${width - right}" y="${bottom + 30}" text-anchor="end">${endS} s</text>`,
  ];
  return `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="Failed or late, second by second">${bars.join('')}${marks.join('')}</svg>`;
}

const label = (arm: ArmName): string =>
  `(${arm}) ${armTitles[arm].replace('a third cell created when the failure is seen', 'a third cell once it is seen')}`;

const least = 0.0001;

/** One dot per seed on a logarithmic scale: how far the arms are apart, and how far the seeds. */
function dots(fault: FaultRows, runs: readonly RunResult[]): string {
  const arms = fault.rows.map(({ arm }) => arm);
  const scale = (share: number): number =>
    left + ((width - left - right) * Math.log10(Math.max(least, share) / least)) / Math.log10(1 / least);
  const ticks = [0.0001, 0.001, 0.01, 0.1, 1].map(
    (share) =>
      `<line x1="${scale(share)}" x2="${scale(share)}" y1="0" y2="${arms.length * rowHeight}" stroke="#dde2e8"/><text class="soft" x="${scale(share)}" y="${arms.length * rowHeight + 16}" text-anchor="middle">${share === least ? '0.01 % or none' : percent(share)}</text>`,
  );
  const rows = arms.map((arm, row) => {
    const y = row * rowHeight + rowHeight / 2;
    const points = runs.flatMap((run) => {
      const result = run.arms[arm];
      if (!result) return [];
      const share = (result.failed + result.overSlo) / Math.max(1, result.requests);
      return [
        `<circle cx="${scale(share).toFixed(1)}" cy="${y}" r="5" fill="${arm === 'e' ? '#047857' : arm === 'f' ? '#7c3aed' : '#c2410c'}" fill-opacity=".65"><title>seed ${run.seed}: ${percent(share)}</title></circle>`,
      ];
    });
    return `<text x="0" y="${y + 4}">${escape(label(arm))}</text>${points.join('')}`;
  });
  return `<svg viewBox="0 0 ${width} ${arms.length * rowHeight + 24}" role="img" aria-label="Failed or late by seed">${ticks.join('')}${rows.join('')}</svg>`;
}

export function reportPage(runs: readonly RunResult[]): string {
  const pictures = new Map(
    rowsOf(runs).map((fault) => {
      const own = runs.filter((run) => run.fault === fault.fault);
      return [faultTitles[fault.fault], strips(fault, own) + dots(fault, own)];
    }),
  );
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Understudy: what failing costs callers</title><style>${style}</style></head>
<body><h1>What failing costs callers, arm beside arm</h1>
${toHtml(fullReport(runs), pictures)}
</body></html>
`;
}
