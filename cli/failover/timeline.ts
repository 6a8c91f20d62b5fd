/** A failover as a picture: phases, risk, shares and decisions over one line of time. Plain SVG, readable without colour. */
import type { Dossier } from '../../workflows/messages';
import type { RiskPoint } from './story';

const width = 1000;
const left = 96;
const right = 24;
const lanes = { phases: 28, risk: 92, shares: 216, decisions: 340 };
const laneHeight = 96;

const phaseColours: Record<string, string> = {
  assessing: '#e8eaed',
  provisioning: '#dbe9ff',
  warming: '#ffe9d6',
  armed: '#fff6c7',
  canary: '#e2f4dd',
  shifting: '#c9ead0',
  'failed-over': '#d5d9f7',
  draining: '#e9def3',
  cooldown: '#eef0f2',
};
const sourceColour = '#c2410c';
const syntheticColour = '#1d4ed8';

interface Point {
  x: number;
  y: number;
}

/** The numbers in the picture are those of the entries, from 1. */
export function timelineSvg(dossier: Dossier, risks: readonly RiskPoint[]): string {
  const [startMs, endMs] = spanOf(dossier, risks);
  const x = (at: string | number): number => {
    const ms = typeof at === 'number' ? at : Date.parse(at);
    const part = (Math.min(Math.max(ms, startMs), endMs) - startMs) / (endMs - startMs);
    return round(left + part * (width - left - right));
  };
  const marks = decisionMarks(dossier, x);
  const height = lanes.decisions + 34 + Math.max(1, ...marks.map((m) => m.row + 1)) * 20;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" aria-label="Timeline of the failover" font-family="system-ui, sans-serif" font-size="11">`,
    `<rect width="${width}" height="${height}" fill="#ffffff"/>`,
    timeAxis(startMs, endMs, x, height),
    phaseBand(dossier, endMs, x),
    riskLane(risks, endMs, x),
    sharesLane(dossier, startMs, endMs, x),
    laneTitle(lanes.decisions, 'decisions'),
    ...marks.map(({ at, row, number }) => {
      const y = lanes.decisions + 24 + row * 20;
      return `<line x1="${at}" y1="${lanes.decisions + 4}" x2="${at}" y2="${y - 8}" stroke="#cbd2da"/><circle cx="${at}" cy="${y}" r="8.5" fill="#f6f8fa" stroke="#5b6675"/><text x="${at}" y="${y + 3.5}" text-anchor="middle" font-size="9.5">${number}</text>`;
    }),
    '</svg>',
  ].join('\n');
}

function spanOf(d: Dossier, risks: readonly RiskPoint[]): [number, number] {
  const times = [d.startedAt, d.endedAt, ...d.phaseTimes.map((p) => p.at), ...d.entries.map((e) => e.at)];
  const known = [...times, ...risks.map((r) => r.at)].flatMap((at) => (at === null ? [] : [Date.parse(at)]));
  const startMs = Math.min(...known);
  return [startMs, Math.max(startMs + 1000, ...known)];
}

function timeAxis(startMs: number, endMs: number, x: (ms: number) => number, height: number): string {
  const stepMs = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600, 86_400].find(
    (s) => (endMs - startMs) / (s * 1000) <= 12,
  );
  const every = (stepMs ?? 86_400) * 1000;
  const ticks: string[] = [];
  for (let ms = startMs; ms <= endMs; ms += every) {
    const at = x(ms);
    ticks.push(
      `<line x1="${at}" y1="${lanes.phases}" x2="${at}" y2="${height - 8}" stroke="#eef0f2"/><text x="${at}" y="16" text-anchor="middle" fill="#5b6675">${relative(ms - startMs)}</text>`,
    );
  }
  return ticks.join('');
}

function phaseBand(d: Dossier, endMs: number, x: (at: string | number) => number): string {
  const bands = d.phaseTimes.map(({ phase, at }, i) => {
    const from = x(at);
    const to = x(d.phaseTimes[i + 1]?.at ?? endMs);
    const name = to - from > phase.length * 6.2 ? phase : '';
    return `<rect x="${from}" y="${lanes.phases}" width="${round(Math.max(1, to - from))}" height="30" fill="${phaseColours[phase] ?? '#eeeeee'}" stroke="#aab2bd" stroke-width="0.6"><title>${phase} ${at}</title></rect><text x="${round((from + to) / 2)}" y="${lanes.phases + 19}" text-anchor="middle">${name}</text>`;
  });
  return laneTitle(lanes.phases + 14, 'phase') + bands.join('');
}

function riskLane(risks: readonly RiskPoint[], endMs: number, x: (at: string | number) => number): string {
  const y = (p: number): number => round(lanes.risk + (1 - p) * laneHeight);
  const points = risks.map((r): Point => ({ x: x(r.at), y: y(r.probability) }));
  const last = points.at(-1);
  // Each word on the risk holds until the next.
  const line = last ? `${stepped(points)} H${x(endMs)}` : '';
  const changes = risks.filter((r, i) => r.level !== risks[i - 1]?.level);
  const words = changes.map(
    (r) =>
      `<circle cx="${x(r.at)}" cy="${y(r.probability)}" r="3" fill="#b91c1c"/><text x="${x(r.at) + 5}" y="${Math.max(lanes.risk + 9, y(r.probability) - 5)}" fill="#b91c1c">${r.level} ${r.probability.toFixed(2)}</text>`,
  );
  return [
    laneTitle(lanes.risk, 'risk'),
    frame(lanes.risk, ['1', '0.5', '0']),
    `<path d="${line}" fill="none" stroke="#b91c1c" stroke-width="1.6"/>`,
    ...words,
  ].join('');
}

function sharesLane(d: Dossier, startMs: number, endMs: number, x: (at: string | number) => number): string {
  const y = (bp: number): number => round(lanes.shares + (1 - bp / 10_000) * laneHeight);
  const first = d.steps[0];
  const of = (cell: string | null, colour: string, dash: string): string => {
    if (cell === null || !first) return '';
    // Before the first step the synthetic cell has nothing, and the source what the two have together then.
    const total = (first.split[d.cell] ?? 0) + (first.split[d.syntheticCell ?? ''] ?? 0);
    const points: Point[] = [{ x: x(startMs), y: y(cell === d.cell ? total : 0) }];
    for (const { at, split } of d.steps) points.push({ x: x(at), y: y(split[cell] ?? 0) });
    const end = points.at(-1)!;
    const label = `<text x="${x(endMs) - 4}" y="${end.y - 4}" text-anchor="end" fill="${colour}">${escapeXml(cell)}</text>`;
    return `<path d="${stepped(points)} H${x(endMs)}" fill="none" stroke="${colour}" stroke-width="2"${dash}/>${label}`;
  };
  return [
    laneTitle(lanes.shares, 'share'),
    frame(lanes.shares, ['100 %', '50 %', '0 %']),
    of(d.cell, sourceColour, ''),
    of(d.syntheticCell, syntheticColour, ' stroke-dasharray="7 3"'),
    first ? '' : `<text x="${left + 8}" y="${lanes.shares + 50}" fill="#5b6675">no traffic was moved</text>`,
  ].join('');
}

/** Rows below each other where they would touch. */
function decisionMarks(d: Dossier, x: (at: string) => number): { at: number; row: number; number: number }[] {
  const ends: number[] = [];
  return d.entries.map((entry, i) => {
    const at = x(entry.at);
    let row = ends.findIndex((end) => at - end >= 18);
    if (row === -1) row = ends.length;
    ends[row] = at;
    return { at, row, number: i + 1 };
  });
}

function laneTitle(y: number, title: string): string {
  return `<text x="4" y="${y + 10}" font-weight="600" fill="#1b2430">${title}</text>`;
}

function frame(top: number, labels: [string, string, string]): string {
  return labels
    .map((label, i) => {
      const y = top + (i * laneHeight) / 2;
      return `<line x1="${left}" y1="${y}" x2="${width - right}" y2="${y}" stroke="#dde2e8"/><text x="${left - 6}" y="${y + 4}" text-anchor="end" fill="#5b6675">${label}</text>`;
    })
    .join('');
}

function stepped(points: readonly Point[]): string {
  return points.map((p, i) => (i === 0 ? `M${p.x} ${p.y}` : `H${p.x} V${p.y}`)).join(' ');
}

function relative(ms: number): string {
  const s = Math.round(ms / 1000);
  if (s < 120) return `${s} s`;
  return s < 7200 ? `${round(s / 60)} min` : `${round(s / 3600)} h`;
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

export function escapeXml(text: string): string {
  return text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}
