/** The demo's report: what each act came to, in the shape of `demo-report.json`, and as a table for the terminal. */
import type { Phase } from '../../workflows/messages';
import type { DataVerdict } from './recording-callers';

export interface PhaseDuration {
  phase: Phase;
  seconds: number;
}

export interface SecondOfLoad {
  /** Seconds since the act's load began, by intended send time. */
  t: number;
  requests: number;
  failed: number;
  overSlo: number;
  p50Ms: number | null;
  p99Ms: number | null;
}

export interface ActSeries {
  load: SecondOfLoad[];
  /** The source's probability within the policy's horizon, by score tick. */
  risk: { t: number; probability: number; health: number | null }[];
  /** Commanded shares, in basis points per cell. */
  split: { t: number; shares: Record<string, number> }[];
  phases: { t: number; phase: Phase }[];
  events: { t: number; text: string }[];
}

export interface ActReport {
  name: string;
  title: string;
  service: string;
  outcome: string;
  reason: string;
  requests: number;
  failed: number;
  /** The failed ones by what callers saw: `HTTP 503`, `timeout`, `ECONNRESET`. */
  failures: Record<string, number>;
  overSlo: number;
  p99Ms: number;
  /** Seconds from the first risk signal to the first death in the source cell; null if nothing died. */
  warningS: number | null;
  /** Basis points of the service's traffic that had left the source when it died; null if nothing died. */
  movedBeforeDeathBp: number | null;
  phases: PhaseDuration[];
  /** Envoy's own counters over the same requests, beside the load generator's. */
  envoy: { requests: number; responses5xx: number; retries: number };
  /** Seconds a synthetic cell took from the first risk signal until it stood armed; one figure per prediction. */
  armedAfterS: { seconds: number; reused: boolean }[];
  thresholds: { prepare: number; shift: number };
  /** A slower answer has missed the service's objective. */
  sloMs: number;
  /** What became of the data, where the service keeps some. */
  data?: DataVerdict;
  series: ActSeries;
}

export interface DemoReport {
  startedAt: string;
  tookS: number;
  load: { ratePerSecond: number; sloMs: number; cellCapacityRps: number; model: string };
  acts: ActReport[];
}

const dash = '–';

function share(part: number, whole: number): string {
  return whole === 0 ? dash : `${((100 * part) / whole).toFixed(part === 0 ? 0 : 2)} %`;
}

/** Rows of the closing table: one per figure, one column per act. */
export function reportRows(report: DemoReport): string[][] {
  const acts = report.acts;
  return [
    ['', ...acts.map((a) => a.title)],
    ['outcome', ...acts.map((a) => a.outcome)],
    ['requests', ...acts.map((a) => String(a.requests))],
    ['failed', ...acts.map((a) => `${a.failed} (${share(a.failed, a.requests)})`)],
    ['over SLO', ...acts.map((a) => `${a.overSlo} (${share(a.overSlo, a.requests)})`)],
    ['p99', ...acts.map((a) => `${a.p99Ms.toFixed(0)} ms`)],
    ['warning time', ...acts.map((a) => (a.warningS === null ? dash : `${a.warningS.toFixed(1)} s`))],
    [
      'moved before death',
      ...acts.map((a) => (a.movedBeforeDeathBp === null ? dash : `${a.movedBeforeDeathBp / 100} % of all traffic`)),
    ],
    [
      'armed after',
      ...acts.map(
        (a) => a.armedAfterS.map((x) => `${x.seconds.toFixed(1)} s${x.reused ? ' (reused)' : ''}`).join(', ') || dash,
      ),
    ],
    ['writes acknowledged', ...acts.map(({ data }) => (data ? String(data.acknowledgedWrites) : dash))],
    ['of them lost, there twice', ...acts.map(({ data }) => (data ? `${data.lost}, ${data.duplicated}` : dash))],
    ['stale reads', ...acts.map(({ data }) => (data ? String(data.stale) : dash))],
    [
      'longest without a write',
      ...acts.map(({ data }) => (data ? `${(data.longestWriteGapMs / 1000).toFixed(1)} s` : dash)),
    ],
    [
      'time per phase',
      ...acts.map((a) => a.phases.map((p) => `${p.phase} ${p.seconds.toFixed(1)} s`).join(', ') || dash),
    ],
  ];
}

/** The closing table as text; long cells are wrapped at `columnWidth` characters. */
export function formatTable(rows: string[][], columnWidth = 34): string {
  const labelWidth = Math.max(...rows.map((r) => r[0]?.length ?? 0));
  const lines: string[] = [];
  for (const [index, row] of rows.entries()) {
    const wrapped = row.map((cell, i) => (i === 0 ? [cell] : wrap(cell, columnWidth)));
    const height = Math.max(...wrapped.map((w) => w.length));
    for (let line = 0; line < height; line++) {
      lines.push(
        wrapped
          .map((w, i) => (w[line] ?? '').padEnd(i === 0 ? labelWidth : columnWidth))
          .join('  ')
          .trimEnd(),
      );
    }
    if (index === 0) lines.push('-'.repeat(labelWidth + (row.length - 1) * (columnWidth + 2)));
  }
  return lines.join('\n');
}

function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else {
      line = line === '' ? word : `${line} ${word}`;
    }
  }
  lines.push(line);
  return lines;
}
