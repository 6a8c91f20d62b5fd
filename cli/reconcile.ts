/** `understudy reconcile`: looks now for what terminated runs left behind, and mends it unless told only to look. */
import type { Client } from '@temporalio/client';
import { Command } from 'commander';
import type { Settings } from '../blueprints/settings';
import { workflowTypes } from '../workflows/messages';
import type { ReconcileInput, ReconcileResult } from '../workflows/reconcile';
import { settingsOption, withTemporal } from './temporal';

/** Without a worker nobody looks; with one a look takes seconds, a mending minutes at most. */
const lookWithinMs = 60_000;
const mendWithinMs = 15 * 60_000;

export function reconcileCommand(): Command {
  return new Command('reconcile')
    .description('Find and mend what terminated runs left behind. It is done by itself once a minute, too.')
    .addOption(settingsOption())
    .option('--dry-run', 'find and say, change nothing')
    .option('--json', 'as JSON')
    .action((options: { settings: string; dryRun?: boolean; json?: boolean }) =>
      withTemporal(options.settings, async (client, settings) => {
        const result = await reconcileNow(client, settings, options.dryRun === true);
        console.log(options.json ? JSON.stringify(result, null, 2) : asText(result, options.dryRun === true));
        if (result.mendings.some(({ done }) => !done)) process.exitCode = 1;
      }),
    );
}

export async function reconcileNow(client: Client, settings: Settings, dryRun: boolean): Promise<ReconcileResult> {
  const workflowId = `reconcile/by-hand/${new Date().toISOString()}`;
  const input: ReconcileInput = { dryRun, graceS: settings.reconciliation.graceS };
  const withinMs = dryRun ? lookWithinMs : mendWithinMs;
  try {
    return (await client.workflow.execute(workflowTypes.reconcile, {
      workflowId,
      taskQueue: settings.temporal.failoverTaskQueue,
      args: [input],
      workflowExecutionTimeout: withinMs,
    })) as ReconcileResult;
  } catch (err) {
    const cause = (err as { cause?: Error }).cause?.message ?? (err as Error).message;
    throw new Error(
      `${workflowId} did not come to its end within ${withinMs / 1000} s: ${cause}. Is a failover worker running?`,
      {
        cause: err,
      },
    );
  }
}

function asText({ findings, mendings }: ReconcileResult, dryRun: boolean): string {
  if (findings.length === 0) return 'Nothing to mend: every share and every synthetic cell has its owner.';
  return findings
    .flatMap((finding) => {
      const mending = mendings.find((m) => m.finding.id === finding.id);
      const plan = finding.mend === 'none' ? 'not to be mended by itself' : `would be mended: ${finding.mend}`;
      const then = mending ? `${mending.done ? 'mended' : 'not mended'}: ${mending.what}` : plan;
      return [`${finding.kind}: ${finding.what}`, `  ${dryRun || mending ? then : plan}`];
    })
    .join('\n');
}
