/** `understudy stop` and `understudy resume`: freeze every automatic change of every service, and let them go on. */
import { Command, Option } from 'commander';
import { loadSettings } from '../blueprints/settings';
import { ConfigurationStore } from '../blueprints/store';

interface Order {
  settings: string;
  by: string;
  reason: string;
}

export function stopCommand(): Command {
  return order('stop', 'Freezes every automatic change of every service at once; splits stay as they are.').action(
    (options: Order) =>
      withStore(options, async (store) => {
        const stop = await store.stopFleet(options.by, options.reason);
        const isOurs = stop.by === options.by && stop.reason === options.reason;
        console.log(`${isOurs ? 'stopped' : 'was stopped already'} since ${stop.since} by ${stop.by}: ${stop.reason}`);
      }),
  );
}

export function resumeCommand(): Command {
  return order('resume', 'Lets automatic changes go on after a stop.').action((options: Order) =>
    withStore(options, async (store) => {
      const stop = await store.resumeFleet(options.by, options.reason);
      console.log(stop ? `resumed; it was stopped since ${stop.since} by ${stop.by}` : 'nothing was stopped');
    }),
  );
}

function order(name: string, description: string): Command {
  return new Command(name)
    .description(description)
    .addOption(new Option('--settings <file>', 'settings of Understudy').makeOptionMandatory())
    .requiredOption('--by <name>', 'who orders it')
    .requiredOption('--reason <text>', 'why');
}

/** The store itself: a stop must be possible while no control plane answers. */
async function withStore({ settings }: Order, use: (store: ConfigurationStore) => Promise<void>): Promise<void> {
  const store = await ConfigurationStore.connect(loadSettings(settings).postgres.url, { timeoutMs: 5000 });
  try {
    await store.migrate();
    await use(store);
  } finally {
    await store.close();
  }
}
