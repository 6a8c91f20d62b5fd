/** `understudy pool explain`: how many synthetic cells wait idle for which service, the sum from which it follows, and what is done about it. */
import { Command } from 'commander';
import type { ServiceRecord } from '../blueprints/records';
import { loadSettings } from '../blueprints/settings';
import type { ConfigurationStore } from '../blueprints/store';
import { decidePool, poolText, type PoolDecision, type PoolQuestion } from '../cells/pool-economics';
import { poolFacts, poolQuestion } from '../cells/pool-facts';
import { poolNeed, type PoolFacts, type PoolNeed } from '../cells/pool-need';
import type { Decision } from '../workflows/decisions';
import { settingsOption, withStore } from './temporal';

export function poolCommand(): Command {
  return new Command('pool').description('The synthetic cells that wait idle.').addCommand(
    new Command('explain')
      .description('How many are worth keeping, of which service, and the sum.')
      .argument('[service]', 'only this one')
      .addOption(settingsOption())
      .option('--json', 'as JSON')
      .action((service: string | undefined, options: { settings: string; json?: boolean }) =>
        withStore(loadSettings(options.settings), async (store) => {
          const services = (await store.services()).filter(({ name }) => service === undefined || name === service);
          if (services.length === 0)
            throw new Error(service === undefined ? 'The store has no services.' : `There is no service ${service}.`);
          const explained = await Promise.all(services.map((record) => explain(store, record)));
          if (options.json) return console.log(JSON.stringify(explained, null, 2));
          console.log(explained.map(explanation).join('\n\n'));
        }),
      ),
  );
}

interface Explained {
  question: PoolQuestion;
  decision: PoolDecision;
  need: PoolNeed;
  /** What became of the last attempt to make a cell for the pool. */
  last: Decision | null;
}

async function explain(store: ConfigurationStore, service: ServiceRecord): Promise<Explained> {
  const question = await poolQuestion(store, service);
  const cells = await store.cells(service.name);
  const open: PoolFacts['open'] = [];
  for (const { owner, state } of cells) {
    // Whether a run has ended Temporal knows; a failover that has completed has said so to the store.
    if (!owner?.startsWith('failover/') || state === 'retired') continue;
    const isOver = (await store.dossier(owner))?.outcome === 'failed-over' && state === 'serving';
    if (!isOver) open.push({ failover: owner, phase: null });
  }
  const need = poolNeed(await poolFacts(store, service, open));
  const last = (await store.decisions(service.name, 500)).find(({ kind }) => kind === 'pool') ?? null;
  return { question, decision: decidePool(question), need, last };
}

function explanation({ question, decision, need, last }: Explained): string {
  const { idle, coming, outdated, why } = need;
  const listed = (cells: string[]) => (cells.length === 0 ? '' : ` (${cells.join(', ')})`);
  const lines = [
    poolText(question, decision),
    `  there now: ${idle.length} idle${listed(idle)}, ${coming.length} to come${listed(coming)}, ${outdated.length} of an older blueprint${listed(outdated)}`,
    `  ${why}`,
  ];
  if (last) {
    const { retryAt } = last.data;
    const again = typeof retryAt === 'string' ? `; tried again at ${retryAt}` : '';
    lines.push(`  last, at ${last.at}: ${last.what}${again}`);
  }
  return lines.join('\n');
}
