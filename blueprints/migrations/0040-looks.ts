/** What the last look at the cells found, one row for each kind of look, so that it can be read without logs. */
import { sql, type Kysely } from 'kysely';

export async function up(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('looks')
    .addColumn('kind', 'text', (column) => column.primaryKey())
    .addColumn('at', 'timestamptz', (column) => column.notNull().defaultTo(sql`now()`))
    .addColumn('found', 'jsonb', (column) => column.notNull())
    .execute();
}
