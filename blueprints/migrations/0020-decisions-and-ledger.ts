/** Decisions on their way to whoever listens, and what failovers were worth and cost. */
import { sql, type Kysely } from 'kysely';

export async function up(db: Kysely<unknown>): Promise<void> {
  // No reference to services: a decision stays told after what it was about is gone.
  await db.schema
    .createTable('decisions')
    .addColumn('seq', 'bigserial', (c) => c.notNull().unique())
    .addColumn('id', 'text', (c) => c.primaryKey())
    .addColumn('service', 'text', (c) => c.notNull())
    .addColumn('cell', 'text', (c) => c.notNull())
    .addColumn('at', 'timestamptz', (c) => c.notNull())
    .addColumn('decision', 'jsonb', (c) => c.notNull())
    .addColumn('published_at', 'timestamptz')
    .execute();
  await sql`create index decisions_to_publish on decisions (seq) where published_at is null`.execute(db);
  await db.schema
    .createTable('ledger')
    // `failover` and `drill`: one entry for each run. `idle`: a synthetic cell that was kept for the next one.
    .addColumn('kind', 'text', (c) => c.notNull().check(sql`kind in ('failover', 'drill', 'takeover', 'idle')`))
    .addColumn('id', 'text', (c) => c.primaryKey())
    .addColumn('service', 'text', (c) => c.notNull())
    .addColumn('cell', 'text', (c) => c.notNull())
    .addColumn('at', 'timestamptz', (c) => c.notNull())
    .addColumn('outcome', 'text')
    .addColumn('label', 'text')
    .addColumn('averted_minutes', 'float8', (c) => c.notNull())
    .addColumn('expected_minutes', 'float8', (c) => c.notNull())
    .addColumn('false_alarm', 'boolean', (c) => c.notNull())
    .addColumn('standby_cell_hours', 'float8', (c) => c.notNull())
    .execute();
  await db.schema.createIndex('ledger_by_service_and_time').on('ledger').columns(['service', 'at']).execute();
}
