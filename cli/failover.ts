/** `understudy failover ...` and `understudy override`: what failovers do and did, and a person's orders to them. */
import { writeFileSync } from 'node:fs';
import { hostname, userInfo } from 'node:os';
import type { Client } from '@temporalio/client';
import { Argument, Command, InvalidArgumentError } from 'commander';
import type { Settings } from '../blueprints/settings';
import type { Override, OverrideAction, OverrideAnswer } from '../workflows/messages';
import { overrideActions } from '../workflows/messages';
import { cellsAlarm, cellsStatus } from './cells-status';
import { giveBack } from './failover/give-back';
import { listFailovers, withKept } from './failover/list';
import { orderFailover } from './failover/orders';
import { storyPage } from './failover/page';
import { readStory } from './failover/story';
import { listText, storyText } from './failover/text';
import { watchAll, watchOne } from './failover/watch';
import { settingsOption, withStore, withTemporal } from './temporal';

export { sendOverride } from './failover/orders';

const whatOrdersDo: Record<OverrideAction, string> = {
  approve: 'let traffic move, where the policy waits for a person',
  hold: 'freeze every automatic change, until resume',
  resume: 'end the hold and go on',
  step: 'give the synthetic cell this share, once',
  complete: 'give the synthetic cell all it can take, in one change',
  drain: 'give the traffic back in steps, each gated on the health of the source',
  abort: 'give the traffic back at once and end',
  promote: 'keep the traffic where it is for good and end',
};

export function failoverCommand(): Command {
  const failover = new Command('failover').description('Failovers under way and past, and orders to them.');
  failover
    .command('list')
    .description('All failovers that are known, the newest first.')
    .addOption(settingsOption())
    .option('--open', 'only those under way')
    .option('--json', 'as JSON')
    .action((options: { settings: string; open?: boolean; json?: boolean }) =>
      withTemporal(options.settings, async (client, settings) => {
        const listed = await listFailovers(client, options.open);
        // Without the store the list is shorter, and still of use.
        const kept = options.open ? [] : await withStore(settings, (store) => store.dossiers()).catch(() => []);
        const all = withKept(listed, kept);
        if (options.json) return console.log(JSON.stringify(all, null, 2));
        console.log(listText(all));
        const alarm = cellsAlarm(await withStore(settings, cellsStatus).catch(() => ({ sweep: null, drift: null })));
        if (alarm !== null) console.log(alarm);
      }),
    );
  failover
    .command('show')
    .description('The dossier of a failover: what it saw, decided and did, and why. Needs no worker.')
    .argument('<failover>', 'service/cell, or the workflow id')
    .addOption(settingsOption())
    .option('--run <id>', 'of this run instead of the newest')
    .option('--json', 'as JSON')
    .option('--html <file>', 'as a page with a picture, into this file')
    .action((id: string, options: { settings: string; run?: string; json?: boolean; html?: string }) =>
      withTemporal(options.settings, async (client, settings) => {
        const story = await readStory(client, settings, asWorkflowId(id), options.run);
        if (options.html !== undefined) writeFileSync(options.html, storyPage(story));
        if (options.json) console.log(JSON.stringify({ ...story.dossier, risks: story.risks }, null, 2));
        else console.log(options.html === undefined ? storyText(story) : `Written: ${options.html}`);
      }),
    );
  failover
    .command('watch')
    .description('Follow a failover line by line to its end; without one, every change of phase of all.')
    .argument('[failover]', 'service/cell, or the workflow id')
    .addOption(settingsOption())
    .action((id: string | undefined, options: { settings: string }) =>
      withTemporal(options.settings, async (client, settings) => {
        const say = (line: string) => console.log(line);
        if (id === undefined) return watchAll(client, say);
        console.log(`It has ended: ${await watchOne(client, settings, asWorkflowId(id), say)}`);
      }),
    );
  for (const action of overrideActions) failover.addCommand(orderCommand(action));
  return failover;
}

function orderCommand(action: OverrideAction): Command {
  const command = new Command(action)
    .description(`Order: ${whatOrdersDo[action]}.`)
    .argument('<failover>', 'service/cell, or the workflow id')
    .addOption(settingsOption())
    .option('--by <name>', 'who orders it', `${userInfo().username}@${hostname()}`)
    .requiredOption('--reason <text>', 'why');
  if (action === 'step') command.requiredOption('--share-bp <bp>', 'share of the service in basis points', wholeNumber);
  return command.action((id: string, options: { settings: string; by: string; reason: string; shareBp?: number }) => {
    const { by, reason, shareBp } = options;
    const override: Override = { action, by, reason, ...(shareBp !== undefined && { shareBp }) };
    return withTemporal(options.settings, async (client, settings) =>
      say(await order(client, settings, asWorkflowId(id), override)),
    );
  });
}

export function overrideCommand(): Command {
  return new Command('override')
    .description('The same orders in one command: see understudy failover.')
    .argument('<service>')
    .argument('<cell>', 'the source: the cell that is predicted to fail')
    .addArgument(new Argument('<action>').choices(overrideActions))
    .addOption(settingsOption())
    .requiredOption('--by <name>', 'who orders it')
    .requiredOption('--reason <text>', 'why')
    .option('--share-bp <bp>', 'for step: share of the service in basis points', wholeNumber)
    .action(
      (
        service: string,
        cell: string,
        action: OverrideAction,
        options: { settings: string; by: string; reason: string; shareBp?: number },
      ) =>
        withTemporal(options.settings, async (client, settings) => {
          const { by, reason, shareBp } = options;
          const override: Override = { action, by, reason, ...(shareBp !== undefined && { shareBp }) };
          say(await order(client, settings, asWorkflowId(`${service}/${cell}`), override));
        }),
    );
}

/** `drain` also where the failover has ended: the stand-in of a source that is well again gives its share back. */
async function order(
  client: Client,
  settings: Settings,
  failover: string,
  override: Override,
): Promise<OverrideAnswer> {
  const answer = await orderFailover(client, failover, override);
  if (answer.accepted || override.action !== 'drain' || !answer.isOver) return answer;
  const [, service = '', cell = ''] = failover.split('/');
  const begun = await withStore(settings, (store) => giveBack({ client, store, settings }, service, cell, override));
  return begun ?? answer;
}

function say({ accepted, message }: OverrideAnswer): void {
  console.log(`${accepted ? 'accepted' : 'refused'}: ${message}`);
  if (!accepted) process.exitCode = 1;
}

function asWorkflowId(id: string): string {
  const parts = id.replace(/^failover\//, '').split('/');
  if (parts.length < 2 || parts.includes('')) {
    throw new Error(`${id} names no failover: expected service/cell, such as shop/shop-a`);
  }
  return `failover/${parts.join('/')}`;
}

function wholeNumber(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1 || value > 10_000) {
    throw new InvalidArgumentError('expected basis points, 1 to 10000');
  }
  return value;
}
