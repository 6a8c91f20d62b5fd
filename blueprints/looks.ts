/** The last look at the cells of each kind: what was found, and when. */
import { sql, type Kysely } from 'kysely';
import type { DriftLook } from '../cells/look-for-drift';
import type { Leftovers } from '../cells/sweep';
import { jsonb, type Tables } from './tables';

/** By kind: `sweep` for what a crash left behind, `drift` for where cells differ from their blueprints. */
export interface Looks {
  sweep: Leftovers;
  drift: DriftLook;
}

export type Looked<K extends keyof Looks> = Looks[K] & {
  /** ISO 8601, by the database's clock. */
  at: string;
};

export async function saveLook<K extends keyof Looks>(db: Kysely<Tables>, kind: K, found: Looks[K]): Promise<void> {
  const row = { found: jsonb<unknown>(found), at: sql<Date>`now()` };
  await db
    .insertInto('looks')
    .values({ kind, ...row })
    .onConflict((oc) => oc.column('kind').doUpdateSet(row))
    .execute();
}

export async function lastLook<K extends keyof Looks>(db: Kysely<Tables>, kind: K): Promise<Looked<K> | undefined> {
  const row = await db.selectFrom('looks').selectAll().where('kind', '=', kind).executeTakeFirst();
  return row && { ...(row.found as Looks[K]), at: row.at.toISOString() };
}
