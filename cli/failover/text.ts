/** Dossiers and lists of failovers as text for a terminal. */
import type { Dossier, DossierEntry } from '../../workflows/messages';
import { warmUpSteps } from '../../workflows/warm-up-steps';
import { asColumns } from '../temporal';
import type { ListedFailover } from './list';
import type { Story } from './story';

const sources: Record<Story['from'], string> = {
  run: 'told by the run itself',
  replay: 'read by replaying its history',
  history: 'as its history says it was kept',
  store: 'as it was kept in the store',
};

export function storyText({ dossier, from }: Story): string {
  return `${asText(dossier)}\n\n  (${sources[from]})`;
}

export function asText(d: Dossier): string {
  const lines = [
    `${d.drill ? 'DRILL ' : ''}${d.service} / ${d.cell}: ${d.outcome ?? `${d.phase} (under way)`}`,
    ...(d.reason ? [`  ${d.reason}`] : []),
    `  failover ${d.failover}, run ${d.runId}`,
    `  synthetic cell ${d.syntheticCell ?? 'none'}`,
    `  from ${d.startedAt}${d.endedAt ? ` to ${d.endedAt}` : ''}`,
    ...riskLines(d),
    '',
    `  phases  ${d.phaseTimes.map((p) => `${p.phase} ${clock(p.at)}`).join('  ▶  ')}`,
    '',
  ];
  for (const { at, split, epoch, acknowledgedBy, reason } of d.steps) {
    const shares = Object.entries(split).map(([cell, bp]) => `${cell} ${bp / 100} %`);
    lines.push(`  ${clock(at)}  epoch ${epoch}: ${shares.join(', ')} (${acknowledgedBy} proxies; ${reason})`);
  }
  if (d.steps.length > 0) lines.push('');
  for (const entry of d.entries) lines.push(`  ${entryLine(entry)}`);
  return lines.join('\n');
}

/** With a line for each step of a warm-up below it. */
export function entryLine(entry: DossierEntry): string {
  const { at, phase, what } = entry;
  const below = warmUpSteps(entry).map((text) => `\n${' '.repeat(31)}${text}`);
  return `${clock(at)}  ${phase.padEnd(12)} ${what}${below.join('')}`;
}

function riskLines({ lastRisk }: Dossier): string[] {
  if (!lastRisk) return [];
  const { level, probability, horizonS, at, drivers } = lastRisk;
  const why = (drivers ?? []).slice(0, 3).map((d) => `    ${d.text}`);
  return [`  last risk ${level}: ${probability.toFixed(2)} within ${horizonS} s, at ${clock(at)}`, ...why];
}

export function listText(failovers: readonly ListedFailover[]): string {
  if (failovers.length === 0) return 'No failovers.';
  const head = ['FAILOVER', 'PHASE', 'OUTCOME', 'RISK', 'RUN', 'STARTED'];
  const rows = failovers.map((f) => [
    f.drill ? `${f.failover} (drill)` : f.failover,
    f.phase || '-',
    f.outcome || '-',
    f.risk === null ? '-' : f.risk.toFixed(2),
    f.status,
    f.startedAt,
  ]);
  return asColumns([head, ...rows]);
}

/** Time of day in UTC, to the millisecond. */
export function clock(at: string): string {
  return at.slice(11, 23);
}
