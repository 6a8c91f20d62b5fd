/** Changes of a split that a refusal would take back, each with the control plane that waits for the proxies' answers. */
import type { Kysely } from 'kysely';

export async function up(db: Kysely<unknown>): Promise<void> {
  // One row per service: a step lies on the newest epoch, and the next change replaces it. No reference to replicas:
  // that the one named is gone is exactly what must still be readable here.
  await db.schema
    .createTable('open_steps')
    .addColumn('service', 'text', (c) => c.primaryKey().references('services.name'))
    .addColumn('epoch', 'bigint', (c) => c.notNull())
    .addColumn('replica', 'text', (c) => c.notNull())
    .addColumn('override', 'boolean', (c) => c.notNull())
    .execute();
}
