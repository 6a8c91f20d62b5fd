/** `understudy apply`: brings the Configuration Data Store to what a file of documents says. */
import { Command } from 'commander';
import type { DocumentChange } from '../blueprints/records';

export function applyCommand(): Command {
  return new Command('apply')
    .description('Apply the services, cells and blueprints of a YAML file: all of them, or none.')
    .requiredOption('-f, --file <file>', 'documents, separated by ---')
    .requiredOption('--settings <file>', 'where Postgres is, among others')
    .action(async ({ file, settings }: { file: string; settings: string }) => {
      const { loadSettings } = await import('../blueprints/settings.js');
      const { ConfigurationStore } = await import('../blueprints/store.js');
      const { applyFile } = await import('../blueprints/apply.js');
      const { postgres } = loadSettings(settings);
      const store = await ConfigurationStore.connect(postgres.url, { timeoutMs: 15_000 });
      try {
        await store.migrate();
        const changes = await applyFile(store, file).catch((error: Error) => {
          throw error.name === 'RefusedError' ? new Error(`nothing was applied:\n${error.message}`) : error;
        });
        for (const change of changes) console.log(sentenceOf(change));
      } finally {
        await store.close();
      }
    });
}

/** `Service shop: changed policy.autonomy.` */
export function sentenceOf({ kind, name, action, paths }: DocumentChange): string {
  return `${kind} ${name}: ${action}${paths.length > 0 ? ` ${paths.join(', ')}` : ''}.`;
}
