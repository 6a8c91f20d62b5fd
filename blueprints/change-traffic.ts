/** One change of a service's split: compared, swapped, recorded and leased in one transaction. */
import { sql, type Kysely, type Transaction } from 'kysely';
import { notify } from './change-feed';
import { refuseWhileStopped } from './fleet-stop';
import { openStep } from './open-steps';
import {
  RefusedError,
  StaleEpochError,
  type AppliedChange,
  type SplitLease,
  type TrafficChange,
  type TrafficState,
} from './records';
import { leaseSplit, splitLeaseOf } from './split-leases';
import { splitProblems } from './splits';
import { cellRecord, jsonb, trafficState, type Tables } from './tables';
import { lockTraffic } from './traffic-rows';

/**
 * Replaces a service's split if the epoch is still the expected one. The same idempotency key again answers with the
 * state the first call made. StaleEpochError: somebody was faster. FleetStoppedError: no automatic change is made now.
 * RefusedError: such a split cannot be.
 */
export async function changeTraffic(trx: Transaction<Tables>, change: TrafficChange): Promise<AppliedChange> {
  const { service, split, reason, by, idempotencyKey } = change;
  const current = await lockTraffic(trx, service);
  if (!current) throw new RefusedError(`service ${service} is not known`);
  const made = await appliedChange(trx, service, idempotencyKey);
  if (made) return made;
  // Before the epoch: whoever is stopped is told so, whatever else would be wrong.
  if (!change.override) await refuseWhileStopped(trx);
  if (current.epoch !== change.expectedEpoch) throw new StaleEpochError(service, change.expectedEpoch, current.epoch);
  if (change.onExpiredLease) await refuseUnlessExpired(trx, current);
  // Shared locks: a cell that this split names cannot be retired between this check and the commit.
  const cells = await trx.selectFrom('cells').selectAll().where('service', '=', service).forShare().execute();
  const problems = splitProblems(split, cells.map(cellRecord));
  if (problems.length > 0) throw new RefusedError(`service ${service}: ${problems.join('; ')}`);
  const state: TrafficState = {
    service,
    epoch: current.epoch + 1,
    split: split.map(({ cell, shareBp, coverInstances }) => ({ cell, shareBp, coverInstances })),
  };
  await trx
    .updateTable('traffic')
    .set({ epoch: state.epoch, split: jsonb(state.split) })
    .where('service', '=', service)
    .execute();
  const { reverts } = change;
  await trx
    .insertInto('split_changes')
    .values({
      service,
      epoch: state.epoch,
      split: jsonb(state.split),
      reason,
      by,
      idempotency_key: idempotencyKey,
      ...(change.request && { request: jsonb(change.request) }),
      ...(reverts && { reverts: reverts.epoch, evidence: jsonb(reverts.refused) }),
    })
    .execute();
  await openStep(trx, change, state.epoch);
  await leaseSplit(trx, change, state.epoch);
  await notify(trx, service);
  return { state, repeated: false, ...(await leaseOn(trx, service)) };
}

/** What a change with this key made before, and what has taken it back since; undefined if there was none. */
export async function appliedChange(
  db: Kysely<Tables>,
  service: string,
  idempotencyKey: string,
): Promise<AppliedChange | undefined> {
  const changes = db.selectFrom('split_changes').selectAll().where('service', '=', service);
  const made = await changes.where('idempotency_key', '=', idempotencyKey).executeTakeFirst();
  if (!made) return undefined;
  const reverting = await changes.where('reverts', '=', made.epoch).executeTakeFirst();
  return {
    state: trafficState(made),
    repeated: true,
    ...(await leaseOn(db, service)),
    ...(made.request && { request: made.request }),
    ...(reverting && { revertedBy: { state: trafficState(reverting), refused: reverting.evidence ?? [] } }),
  };
}

async function leaseOn(db: Kysely<Tables>, service: string): Promise<{ lease?: SplitLease }> {
  const lease = await splitLeaseOf(db, service);
  return lease ? { lease } : {};
}

async function refuseUnlessExpired(trx: Transaction<Tables>, { service, epoch }: TrafficState): Promise<void> {
  const expired = await trx
    .selectFrom('split_leases')
    .select('service')
    .where('service', '=', service)
    .where('epoch', '=', String(epoch))
    .where('expires_at', '<=', sql<Date>`clock_timestamp()`)
    .forUpdate()
    .executeTakeFirst();
  if (!expired) throw new RefusedError(`the lease on epoch ${epoch} of service ${service} has been renewed`);
}
