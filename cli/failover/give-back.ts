/** Gives traffic back after a failover has ended: its source is well again, and the stand-in still carries what it took over. */
import type { Client } from '@temporalio/client';
import { takeUpShare } from '../../activities/take-up-share';
import type { Settings } from '../../blueprints/settings';
import type { ConfigurationStore } from '../../blueprints/store';
import type { Override, OverrideAnswer } from '../../workflows/messages';

type Store = Pick<ConfigurationStore, 'cells' | 'traffic' | 'updateCell'>;

/**
 * Begins the failover anew without a risk: it takes up the share that it finds, and gives it back by its own gates, the
 * health of the source among them. Null where nothing is left to be given back.
 */
export async function giveBack(
  { client, store, settings }: { client: Client; store: Store; settings: Settings },
  service: string,
  source: string,
  { by, reason }: Pick<Override, 'by' | 'reason'>,
): Promise<OverrideAnswer | null> {
  const split = (await store.traffic(service))?.split ?? [];
  const carries = (name: string) => split.find(({ cell }) => cell === name)?.shareBp ?? 0;
  const standIn = (await store.cells(service)).find(
    ({ name, role, sourceCell }) => role === 'synthetic' && sourceCell === source && carries(name) > 0,
  );
  if (!standIn) return null;
  const failover = await takeUpShare(
    { client, store, taskQueue: settings.temporal.failoverTaskQueue },
    {
      ...{ standIn, source, by: 'person' },
      id: `${source}@${new Date().toISOString()}/given-back`,
      summary: `gives back what ${standIn.name} carries, ordered by ${by}: ${reason}`,
    },
  );
  const share = `${carries(standIn.name) / 100} %`;
  return {
    accepted: true,
    message: `${standIn.name} carries ${share}; ${failover} begins anew and gives it back in steps, gated on the health of ${source}`,
  };
}
