/** Leases on splits: kept by renewal, found when they have run out. */
import { sql, type Kysely, type Transaction } from 'kysely';
import { LeaseHeldError, LeaseLostError, type SplitLease, type TrafficChange } from './records';
import type { Tables } from './tables';

/**
 * What becomes of the lease on a split when the split is changed. Only who says so ends a lease that lives: a change
 * without one leaves it, and one with a lease of somebody else is refused (LeaseHeldError). What has run out protects nobody.
 */
export function leaseAfter(
  lease: SplitLease | undefined,
  { by, leaseMs, reverts, releaseLease = false, onExpiredLease = false }: TrafficChange,
): 'stays' | 'ends' | 'is replaced' {
  // A step taken back leaves things as they were; the safe split is nobody's to renew.
  if (reverts) return lease ? 'stays' : 'ends';
  const lives = lease !== undefined && lease.remainingMs > 0 && !onExpiredLease;
  if (leaseMs === undefined) return lives && !releaseLease ? 'stays' : 'ends';
  if (lives && lease.holder !== by && !releaseLease) throw new LeaseHeldError(lease);
  return 'is replaced';
}

/** Carries out what `leaseAfter` says, in the change's own transaction. */
export async function leaseSplit(trx: Transaction<Tables>, change: TrafficChange, epoch: number): Promise<void> {
  const { service, by: holder, leaseMs } = change;
  const becomes = leaseAfter(await splitLeaseOf(trx, service), change);
  if (becomes === 'stays') {
    await trx.updateTable('split_leases').set({ epoch }).where('service', '=', service).execute();
  } else if (becomes === 'ends') {
    await trx.deleteFrom('split_leases').where('service', '=', service).execute();
  } else {
    const row = { epoch, holder, duration_ms: leaseMs!, expires_at: expiry(leaseMs!) };
    await trx
      .insertInto('split_leases')
      .values({ service, ...row })
      .onConflict((oc) => oc.column('service').doUpdateSet(row))
      .execute();
  }
}

function expiry(durationMs: number) {
  return sql<Date>`clock_timestamp() + make_interval(secs => ${durationMs / 1000})`;
}

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
