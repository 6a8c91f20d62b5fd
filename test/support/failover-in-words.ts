/** How a failover stands and the last it did, in one line: what a test says that waited for something else. */
import type { Client } from '@temporalio/client';
import type { ConfigurationStore } from '../../blueprints/store';
import { queryNames, type Dossier } from '../../workflows/messages';

const lastEntries = 8;

export async function failoverInWords(client: Client, store: ConfigurationStore, failover: string): Promise<string> {
  const run = client.workflow.getHandle(failover);
  const { status, runId } = await run.describe();
  const dossier = await run.query<Dossier>(queryNames.dossier).catch(() => store.dossier(failover));
  const cells = (await store.cells(dossier?.service)).filter(({ role }) => role === 'synthetic');
  const entries = dossier?.entries.slice(-lastEntries).map(({ at, phase, what }) => `${at} ${phase}: ${what}`) ?? [];
  return [
    `${failover} (${runId}) is ${status.name}, ${dossier?.phase ?? 'without a dossier'}`,
    ...cells.map(({ name, state, owner }) => `${name} is ${state}, owned by ${owner}`),
    ...entries,
  ].join('; ');
}
