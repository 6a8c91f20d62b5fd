/** Where a failover stands and what a person can do about it, as Markdown for Temporal's UI. */
import { doing } from './dossier';
import { largestShare, percent, type Failover } from './failover';
import { overrideActions, signalNames, type Override } from './messages';
import { answer } from './override';
import type { Step } from './steps';
import { warmUpSteps } from './warm-up-steps';

/**
 * What holds from start to end, as Markdown for Temporal's UI: there also while no worker runs, when the current details
 * cannot be read.
 */
export const steering = [
  '*Current Details* says where it stands, why, and which orders it takes now; press `R` to read it anew.',
  '',
  `No worker, no current details; but *More Actions*, *Send a Signal*, name \`${signalNames.override}\` is kept until one runs:`,
  '',
  ...asData({ action: 'hold', by: 'your name', reason: 'why' }),
].join('\n');

/** Where the failover stands, as Markdown for Temporal's UI. */
export function details(f: Failover, step: Step): string {
  const lines = [
    `### ${f.drill ? 'DRILL ' : ''}${f.service} / ${f.cell}: ${f.phase}`,
    f.conclusion ? `**${f.conclusion.outcome}**: ${f.conclusion.reason}` : `Now: ${doing[step.kind]}: ${step.why}.`,
    '',
    `- **${percent(f.traffic.sourceBp)}** of the service at ${f.cell} (source, ${f.source.state})`,
    `- **${percent(f.traffic.syntheticBp)}** at ${f.synthetic?.name ?? 'the synthetic cell'} (${f.synthetic?.state ?? 'none yet'})`,
    '',
  ];
  const risk = f.risk?.last;
  if (risk) {
    const drivers = (risk.drivers ?? []).slice(0, 3).map((d) => d.text);
    lines.push(
      `Risk: level ${risk.level}, ${risk.probability.toFixed(2)} within ${risk.horizonS} s, told at ${timeOfDay(risk.at)}` +
        (drivers.length > 0 ? ` (${drivers.join('; ')})` : ''),
    );
  }
  if (f.plan) lines.push(`Plan: ${f.plan.kind}`);
  if (f.limited) lines.push(`Limited to **${f.limited.reach}** (${f.limited.guard}): ${f.limited.why}`);
  if (f.held) lines.push(`**Held by ${f.held.by}**: ${f.held.reason}`);
  if (f.approved) lines.push(`Approved by ${f.approved.by}: ${f.approved.reason}`);
  lines.push('', ...orders(f));
  const last = f.entries
    .slice(-6)
    .flatMap((entry) => [`- ${timeOfDay(entry.at)} ${entry.what}`, ...warmUpSteps(entry).map((text) => `  - ${text}`)]);
  lines.push('', 'What happened last:', '', ...last);
  return lines.join('\n');
}

/** What would be accepted now and what would follow, with the input to type: nobody looks that up at night. */
function orders(f: Failover): string[] {
  if (f.conclusion) return [];
  const shareBp = Math.max(1, Math.min(1000, largestShare(f)));
  const accepted = overrideActions.flatMap((action) => {
    const { accepted, message } = answer(f, { action, by: 'you', reason: 'why', shareBp });
    return accepted ? [{ action, message }] : [];
  });
  if (accepted.length === 0) return [];
  const likely = (['approve', 'resume', 'hold'] as const).find((a) => accepted.some(({ action }) => action === a));
  const action = likely ?? accepted[0]!.action;
  return [
    `**You can** order, by *More Actions*, *Send an Update* (or *a Signal*), name \`${signalNames.override}\`, data:`,
    '',
    ...asData({ action, by: 'your name', reason: 'why' }),
    '',
    `or, in place of \`${action}\`:`,
    '',
    ...accepted.map(({ action, message }) =>
      action === 'step' ? `- \`step\`, with \`"shareBp": ${shareBp}\`: ${message}` : `- \`${action}\`: ${message}`,
    ),
    '',
    'Cancelling the workflow gives the traffic back, then ends it. Terminating it leaves the traffic to the reconciliation.',
  ];
}

/** Several lines, as the UI's form lays data out itself: a form that grows when it is left loses the click on Submit. */
function asData(order: Override): string[] {
  return ['```json', JSON.stringify(order, null, 2), '```'];
}

/** `06:40:00Z` of an ISO time. */
function timeOfDay(iso: string): string {
  return `${iso.slice(11, 19)}Z`;
}
