/** `understudy pool explain`: how many synthetic cells wait idle for which service, and the sum from which it follows. */
import { Command } from 'commander';
import { loadSettings } from '../blueprints/settings';
import { decidePool, poolText } from '../cells/pool-economics';
import { poolQuestion } from '../cells/pool-facts';
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
          const questions = await Promise.all(services.map((record) => poolQuestion(store, record)));
          const explained = questions.map((question) => ({ question, decision: decidePool(question) }));
          if (options.json) return console.log(JSON.stringify(explained, null, 2));
          console.log(explained.map(({ question, decision }) => poolText(question, decision)).join('\n\n'));
        }),
      ),
  );
}
