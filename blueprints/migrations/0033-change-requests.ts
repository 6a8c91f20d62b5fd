/** What was asked for under an idempotency key, so that another request under the same key is told from a repeated one. */
import type { Kysely } from 'kysely';

export async function up(db: Kysely<unknown>): Promise<void> {
  // A hash for each field. Null: made before this was kept, or not over the traffic API.
  await db.schema.alterTable('split_changes').addColumn('request', 'jsonb').execute();
}
