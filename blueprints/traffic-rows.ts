/** The row of a service's commanded split. */
import type { Transaction } from 'kysely';
import type { TrafficState } from './records';
import { safeSplit } from './splits';
import { jsonb, serviceRecord, trafficState, type Tables } from './tables';

/** The split, locked until the transaction ends; made from the declared safe one if it is not there yet. */
export async function lockTraffic(trx: Transaction<Tables>, service: string): Promise<TrafficState | undefined> {
  const locked = trx.selectFrom('traffic').selectAll().where('service', '=', service).forUpdate();
  const row = await locked.executeTakeFirst();
  if (row) return trafficState(row);
  const declared = await trx.selectFrom('services').selectAll().where('name', '=', service).executeTakeFirst();
  if (!declared) return undefined;
  await trx
    .insertInto('traffic')
    .values({ service, epoch: 1, split: jsonb(safeSplit(serviceRecord(declared).spec)) })
    .onConflict((oc) => oc.doNothing())
    .execute();
  return trafficState(await locked.executeTakeFirstOrThrow());
}
