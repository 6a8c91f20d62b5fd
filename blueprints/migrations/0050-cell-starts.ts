/** How long starts of synthetic cells took, by blueprint version, and how each idle cell rests: what `scaleDown.idle: auto` decides by. */
import { sql, type Kysely } from 'kysely';

export async function up(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('cell_starts')
    .addColumn('id', 'bigint', (column) => column.primaryKey().generatedAlwaysAsIdentity())
    .addColumn('blueprint_name', 'text', (column) => column.notNull())
    .addColumn('blueprint_version', 'integer', (column) => column.notNull())
    .addColumn('cell', 'text', (column) => column.notNull())
    .addColumn('started_from', 'text', (column) => column.notNull())
    .addColumn('ready_ms', 'float8', (column) => column.notNull())
    // Of all runs of the warm-up plan up to the first that left the cell warm.
    .addColumn('warm_ms', 'float8', (column) => column.notNull().defaultTo(0))
    .addColumn('is_warm', 'boolean', (column) => column.notNull().defaultTo(false))
    .addColumn('at', 'timestamptz', (column) => column.notNull().defaultTo(sql`now()`))
    .execute();
  await db.schema
    .createIndex('cell_starts_by_blueprint')
    .on('cell_starts')
    .columns(['blueprint_name', 'blueprint_version', 'id'])
    .execute();
  // Null: it does not rest, or came to rest before this was kept.
  await db.schema.alterTable('cells').addColumn('rest', 'jsonb').execute();
}
