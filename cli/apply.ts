/** `understudy apply`: brings the Configuration Data Store to what a file of documents says. */
import { readFileSync } from 'node:fs';
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
        await tellFirstLook(file);
      } finally {
        await store.close();
      }
    });
}

/** Says what callers would meet at the instances of the file. */
export async function tellFirstLook(file: string): Promise<void> {
  const { parseDocuments } = await import('../blueprints/apply.js');
  const { firstLook } = await import('../cells/first-look.js');
  for (const sentence of await firstLook(parseDocuments(readFileSync(file, 'utf8'), file))) console.error(sentence);
}

/** `Service shop: changed policy.autonomy.` */
export function sentenceOf({ kind, name, action, paths }: DocumentChange): string {
  return `${kind} ${name}: ${action}${paths.length > 0 ? ` ${paths.join(', ')}` : ''}.`;
}
