/** Decisions in Postgres: kept once by their id, and handed in order to who publishes them. */
import { sql, type Kysely, type Transaction } from 'kysely';
import type { Decision } from '../workflows/decisions';
import { jsonb, type Tables } from './tables';

/** Any number that nothing else in this database locks by: one publisher at a time keeps the order. */
const publisherLock = 7_205_114_001;

export async function recordDecisions(db: Kysely<Tables>, decisions: readonly Decision[]): Promise<void> {
  if (decisions.length === 0) return;
  const rows = decisions.map((decision) => {
    const { id, service, cell, at } = decision;
    return { id, service, cell, at, decision: jsonb(decision) };
  });
  await db
    .insertInto('decisions')
    .values(rows)
    .onConflict((oc) => oc.column('id').doNothing())
    .execute();
}

/**
 * Hands the oldest unpublished decisions to `publish` and marks them once it has returned. Answers how many; 0 also
 * while another process publishes. A crash in between publishes them again, with the same ids.
 */
export async function publishDecisions(
  trx: Transaction<Tables>,
  publish: (decisions: Decision[]) => Promise<void>,
  limit: number,
): Promise<number> {
  const lock = await sql<{ taken: boolean }>`select pg_try_advisory_xact_lock(${publisherLock}) as taken`.execute(trx);
  if (!lock.rows[0]?.taken) return 0;
  const rows = await trx
    .selectFrom('decisions')
    .select(['id', 'decision'])
    .where('published_at', 'is', null)
    .orderBy('seq')
    .limit(limit)
    .execute();
  if (rows.length === 0) return 0;
  await publish(rows.map((row) => row.decision));
  await trx
    .updateTable('decisions')
    .set({ published_at: sql<Date>`now()` })
    .where(
      'id',
      'in',
      rows.map((row) => row.id),
    )
    .execute();
  return rows.length;
}

/** The newest first; of one service, or of all. */
export async function newestDecisions(db: Kysely<Tables>, service?: string, limit = 100): Promise<Decision[]> {
  let query = db.selectFrom('decisions').select('decision').orderBy('seq', 'desc').limit(limit);
  if (service !== undefined) query = query.where('service', '=', service);
  return (await query.execute()).map((row) => row.decision);
}
