/** Where a failover stands and what a person can do about it, as Markdown for Temporal's UI. */
import { doing } from './dossier';
import { largestShare, percent, type Failover } from './failover';
import { overrideActions, signalNames } from './messages';
import { answer } from './override';
import type { Step } from './steps';

/** Where the failover stands, as Markdown for Temporal's UI. */
export function details(f: Failover, step: Step): string {
  const lines = [
    `### ${f.drill ? 'DRILL ' : ''}${f.service} / ${f.cell}: ${f.phase}`,
    f.conclusion ? `**${f.conclusion.outcome}**: ${f.conclusion.reason}` : `Now: ${doing[step.kind]}: ${step.why}.`,
    '',
    '| | share |',
    '|---|---|',
    `| ${f.cell} (source, ${f.source.state}) | ${percent(f.traffic.sourceBp)} |`,
    `| ${f.synthetic?.name ?? 'synthetic cell'} (${f.synthetic?.state ?? 'none yet'}) | ${percent(f.traffic.syntheticBp)} |`,
    '',
  ];
  const risk = f.risk?.last;
  if (risk) {
    const drivers = (risk.drivers ?? []).slice(0, 3).map((d) => d.text);
    lines.push(
      `Risk: level ${risk.level}, ${risk.probability.toFixed(2)} within ${risk.horizonS} s, told at ${risk.at}` +
        (drivers.length > 0 ? ` (${drivers.join('; ')})` : ''),
    );
  }
  if (f.plan) lines.push(`Plan: ${f.plan.kind}`);
  if (f.limited) lines.push(`Limited to **${f.limited.reach}** (${f.limited.guard}): ${f.limited.why}`);
  if (f.held) lines.push(`**Held by ${f.held.by}**: ${f.held.reason}`);
  if (f.approved) lines.push(`Approved by ${f.approved.by}: ${f.approved.reason}`);
  lines.push('', ...orders(f));
  lines.push('', 'What happened last:', '', ...f.entries.slice(-6).map((e) => `- ${e.at.slice(11, 19)} ${e.what}`));
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
  const { action } = accepted.find((one) => one.action === 'hold') ?? accepted[0]!;
  const example = { action, by: 'your name', reason: 'why' };
  return [
    `**You can** send the signal or update \`${signalNames.override}\` with \`${JSON.stringify(example)}\`, or another action:`,
    '',
    ...accepted.map(({ action, message }) =>
      action === 'step' ? `- \`step\`, with \`"shareBp":${shareBp}\`: ${message}` : `- \`${action}\`: ${message}`,
    ),
    '',
    'Cancelling the workflow gives the traffic back, then ends it. Terminating it leaves the traffic to the reconciliation.',
  ];
}
