/** The fleet-wide stop: freezes every automatic change of every service, and leaves the splits as they are. */
import { sql, type Kysely, type Transaction } from 'kysely';
import { notify } from './change-feed';
import { FleetStoppedError, type FleetStop } from './records';
import type { Tables } from './tables';

/** Waits for changes that are being committed; when it returns no automatic one will be. The first stop stays. */
export async function stopFleet(trx: Transaction<Tables>, by: string, reason: string): Promise<FleetStop> {
  const before = await readStop(trx.selectFrom('fleet').selectAll().forUpdate());
  if (before) return before;
  await trx
    .updateTable('fleet')
    .set({ stopped_at: sql<Date>`clock_timestamp()`, by, reason })
    .execute();
  await trx.insertInto('fleet_orders').values({ order: 'stop', by, reason }).execute();
  await notify(trx, null);
  return (await fleetStop(trx))!;
}

/** Answers the stop that it ended, if there was one. */
export async function resumeFleet(
  trx: Transaction<Tables>,
  by: string,
  reason: string,
): Promise<FleetStop | undefined> {
  const before = await readStop(trx.selectFrom('fleet').selectAll().forUpdate());
  if (!before) return undefined;
  await trx.updateTable('fleet').set({ stopped_at: null, by: null, reason: null }).execute();
  await trx.insertInto('fleet_orders').values({ order: 'resume', by, reason }).execute();
  await notify(trx, null);
  return before;
}

export async function fleetStop(db: Kysely<Tables>): Promise<FleetStop | undefined> {
  return readStop(db.selectFrom('fleet').selectAll());
}

/** Holds the stop off until the transaction ends. */
export async function refuseWhileStopped(trx: Transaction<Tables>): Promise<void> {
  const stop = await readStop(trx.selectFrom('fleet').selectAll().forShare());
  if (stop) throw new FleetStoppedError(stop);
}

interface StopRow {
  stopped_at: Date | null;
  by: string | null;
  reason: string | null;
}

async function readStop(query: { executeTakeFirst(): Promise<StopRow | undefined> }): Promise<FleetStop | undefined> {
  const row = await query.executeTakeFirst();
  if (!row?.stopped_at) return undefined;
  return { by: row.by ?? '', reason: row.reason ?? '', since: row.stopped_at.toISOString() };
}
