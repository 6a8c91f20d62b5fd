/** Leases on splits: kept by renewal, found when they have run out. */
import { sql, type Kysely } from 'kysely';
import { LeaseLostError, type SplitLease } from './records';
import type { Tables } from './tables';

/** Extends the holder's lease by its own duration, counted from now. LeaseLostError if it is not the holder's. */
export async function renewLease(db: Kysely<Tables>, service: string, holder: string): Promise<SplitLease> {
  const row = await db
    .updateTable('split_leases')
    .set((eb) => ({
      expires_at: sql<Date>`clock_timestamp() + make_interval(secs => ${eb.ref('duration_ms')} / 1000.0)`,
    }))
    .where('service', '=', service)
    .where('holder', '=', holder)
    .returning(leaseColumns)
    .executeTakeFirst();
  if (row) return splitLease(row);
  const other = await splitLeaseOf(db, service);
  const why = other
    ? `its split is leased to ${other.holder} since epoch ${other.epoch}`
    : 'no lease lies on its split: it has run out or the split was changed since';
  throw new LeaseLostError(`service ${service}: ${holder} has nothing to renew, ${why}`);
}

export async function splitLeaseOf(db: Kysely<Tables>, service: string): Promise<SplitLease | undefined> {
  const row = await db
    .selectFrom('split_leases')
    .select(leaseColumns)
    .where('service', '=', service)
    .executeTakeFirst();
  return row && splitLease(row);
}

export async function expiredLeases(db: Kysely<Tables>): Promise<SplitLease[]> {
  const expired = db.selectFrom('split_leases').select(leaseColumns);
  return (await expired.where('expires_at', '<=', sql<Date>`clock_timestamp()`).execute()).map(splitLease);
}

const leaseColumns = [
  'service' as const,
  'epoch' as const,
  'holder' as const,
  'duration_ms' as const,
  sql<number>`1000 * extract(epoch from expires_at - clock_timestamp())::float8`.as('remaining_ms'),
];

function splitLease(row: {
  service: string;
  epoch: string;
  holder: string;
  duration_ms: number;
  remaining_ms: number;
}): SplitLease {
  return {
    service: row.service,
    epoch: Number(row.epoch),
    holder: row.holder,
    durationMs: row.duration_ms,
    remainingMs: Math.round(row.remaining_ms),
  };
}
