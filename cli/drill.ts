/** `understudy drill`: a practice prediction through the whole chain, now; and what is planned. */
import { ScheduleNotFoundError, type Client } from '@temporalio/client';
import { Command } from 'commander';
import type { Settings } from '../blueprints/settings';
import type { DrillInput, DrillResult } from '../workflows/drill';
import { workflowTypes } from '../workflows/messages';
import { watchAll } from './failover/watch';
import { settingsOption, withTemporal } from './temporal';

export function drillCommand(): Command {
  return new Command('drill')
    .description('A practice prediction: a synthetic cell is made, proven with a small share, and goes back.')
    .argument('<service>')
    .addOption(settingsOption())
    .option('--now', 'begin one now; without it, tells when the next one is due')
    .option('--cell <cell>', 'which cell to practise on')
    .option('--json', 'as JSON')
    .action((service: string, options: { settings: string; now?: boolean; cell?: string; json?: boolean }) =>
      withTemporal(options.settings, async (client, settings) => {
        if (!options.now) return console.log(await whenNext(client, service));
        const { cell } = options;
        const input = { service, ...(cell !== undefined && { cell }) };
        const result = options.json
          ? await drillNow(client, settings, input)
          : await narrated(client, service, () => drillNow(client, settings, input));
        console.log(options.json ? JSON.stringify(result, null, 2) : `${result.result}: ${result.reason}`);
        if (result.result === 'skipped') process.exitCode = 1;
      }),
    );
}

/** Tells the phases of the service's failovers while it goes on: a drill takes about two minutes. */
async function narrated<T>(client: Client, service: string, play: () => Promise<T>): Promise<T> {
  const ended = new AbortController();
  const say = (line: string) => line.includes(`failover/${service}/`) && console.log(line);
  const watching = watchAll(client, say, ended.signal);
  try {
    return await play();
  } finally {
    ended.abort();
    await watching.catch(() => undefined);
  }
}

/** Throws where the chain did not hold, with what the drill says about it. */
export async function drillNow(client: Client, settings: Settings, input: DrillInput): Promise<DrillResult> {
  try {
    return (await client.workflow.execute(workflowTypes.failoverDrill, {
      workflowId: `drill/${input.service}/by-hand`,
      taskQueue: settings.temporal.failoverTaskQueue,
      args: [input],
      staticSummary: `Drill of ${input.service}, by hand`,
      priority: { priorityKey: 5 },
    })) as DrillResult;
  } catch (err) {
    throw new Error((err as { cause?: Error }).cause?.message ?? (err as Error).message, { cause: err });
  }
}

async function whenNext(client: Client, service: string): Promise<string> {
  try {
    const { info, state } = await client.schedule.getHandle(`understudy-drill/${service}`).describe();
    if (state.paused) return `The drills of ${service} are paused: ${state.note ?? 'no reason was given'}`;
    return `The next drill of ${service} is due at ${info.nextActionTimes[0]?.toISOString() ?? 'no time'}; begin one now with --now.`;
  } catch (err) {
    if (!(err instanceof ScheduleNotFoundError)) throw err;
    return `No drills of ${service} are planned: its policy has none (policy.drill). Begin one now with --now.`;
  }
}
