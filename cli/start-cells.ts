/** `understudy cells start` and `stop`: declared cells that a provider runs from their blueprint. */
import { Command } from 'commander';
import { loadSettings, type Settings } from '../blueprints/settings';
import type { ConfigurationStore } from '../blueprints/store';
import type { CellProvider } from '../cells/provider';
import { identitiesOf, providersOf } from '../cells/providers';
import { startDeclaredCell, stopDeclaredCell } from '../cells/source-cells';
import { settingsOption, withStore } from './temporal';

export function startCellsCommand(): Command {
  return new Command('start')
    .description('Start declared cells from their blueprint, wait until they are ready, record where they answer.')
    .argument('<cell...>', 'names of declared cells whose documents name no instances')
    .addOption(settingsOption())
    .action((names: string[], options: { settings: string }) =>
      eachCell(names, loadSettings(options.settings), async (store, name, provider, settings) => {
        let said = '';
        const tell = (text: string) => {
          if (text !== said) process.stderr.write(`${(said = text)}\n`);
        };
        const { instances } = await startDeclaredCell(provider, store, name, tell, identitiesOf(settings));
        console.log(`${name} is ready: ${instances.map(({ address, port }) => `${address}:${port}`).join(', ')}`);
      }),
    );
}

export function stopCellsCommand(): Command {
  return new Command('stop')
    .description('End declared cells that `cells start` has started. Refused while a split gives them a share.')
    .argument('<cell...>', 'names of declared cells')
    .addOption(settingsOption())
    .action((names: string[], options: { settings: string }) =>
      eachCell(names, loadSettings(options.settings), async (store, name, provider) => {
        await stopDeclaredCell(provider, store, name);
        console.log(`${name} has ended.`);
      }),
    );
}

type Work = (store: ConfigurationStore, name: string, provider: CellProvider, settings: Settings) => Promise<void>;

/** One after the other; what one cell meets does not keep the others. */
async function eachCell(names: readonly string[], settings: Settings, work: Work): Promise<void> {
  const providers = providersOf(settings);
  await withStore(settings, async (store) => {
    for (const name of names) {
      try {
        await work(store, name, await providerOf(store, providers, name), settings);
      } catch (error) {
        process.stderr.write(`${name}: ${(error as Error).message}\n`);
        process.exitCode = 1;
      }
    }
  });
}

async function providerOf(
  store: ConfigurationStore,
  providers: readonly CellProvider[],
  name: string,
): Promise<CellProvider> {
  const cell = await store.cell(name);
  if (!cell) throw new Error('this cell is not known: apply its document first');
  const blueprint = await store.blueprint(cell.blueprint.name, cell.blueprint.version);
  const wanted = blueprint?.spec.provider;
  const provider = providers.find(({ kind }) => kind === wanted);
  if (!provider) throw new Error(`its blueprint wants provider ${wanted}, which the settings do not name`);
  return provider;
}
