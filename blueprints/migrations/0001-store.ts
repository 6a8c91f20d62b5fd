/** The first tables: services, blueprints, cells, the split of each service and its history, dossiers. */
import { sql, type Kysely } from 'kysely';

export async function up(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('services')
    .addColumn('name', 'text', (c) => c.primaryKey())
    .addColumn('spec', 'jsonb', (c) => c.notNull())
    .addColumn('updated_at', 'timestamptz', (c) => c.notNull().defaultTo(sql`now()`))
    .execute();
  await db.schema
    .createTable('blueprints')
    .addColumn('name', 'text', (c) => c.notNull())
    .addColumn('version', 'integer', (c) => c.notNull().check(sql`version >= 1`))
    .addColumn('spec', 'jsonb', (c) => c.notNull())
    .addColumn('created_at', 'timestamptz', (c) => c.notNull().defaultTo(sql`now()`))
    .addPrimaryKeyConstraint('blueprints_pk', ['name', 'version'])
    .execute();
  await db.schema
    .createTable('cells')
    .addColumn('name', 'text', (c) => c.primaryKey())
    .addColumn('service', 'text', (c) => c.notNull().references('services.name'))
    .addColumn('role', 'text', (c) => c.notNull().check(sql`role in ('primary', 'secondary', 'synthetic')`))
    .addColumn('zone', 'text', (c) => c.notNull())
    .addColumn('blueprint_name', 'text', (c) => c.notNull())
    .addColumn('blueprint_version', 'integer', (c) => c.notNull())
    .addColumn('state', 'text', (c) => c.notNull())
    .addColumn('state_since', 'timestamptz', (c) => c.notNull().defaultTo(sql`now()`))
    .addColumn('instances', 'jsonb', (c) => c.notNull())
    .addColumn('source_cell', 'text')
    .addColumn('owner', 'text')
    // The document as it was applied; null for synthetic cells. `instances` may know more: what a provider observed.
    .addColumn('document', 'jsonb')
    .addForeignKeyConstraint('cells_blueprint_fk', ['blueprint_name', 'blueprint_version'], 'blueprints', [
      'name',
      'version',
    ])
    .addCheckConstraint('cells_synthetic_has_source', sql`(role = 'synthetic') = (source_cell is not null)`)
    .execute();
  await db.schema.createIndex('cells_by_service').on('cells').column('service').execute();
  // One synthetic cell per failover, whatever the code does.
  await sql`create unique index cells_one_per_owner on cells (owner) where owner is not null`.execute(db);
  await db.schema
    .createTable('traffic')
    .addColumn('service', 'text', (c) => c.primaryKey().references('services.name'))
    .addColumn('epoch', 'bigint', (c) => c.notNull())
    .addColumn('split', 'jsonb', (c) => c.notNull())
    .execute();
  await db.schema
    .createTable('split_changes')
    .addColumn('service', 'text', (c) => c.notNull().references('services.name'))
    .addColumn('epoch', 'bigint', (c) => c.notNull())
    .addColumn('split', 'jsonb', (c) => c.notNull())
    .addColumn('reason', 'text', (c) => c.notNull())
    .addColumn('by', 'text', (c) => c.notNull())
    .addColumn('idempotency_key', 'text', (c) => c.notNull())
    .addColumn('at', 'timestamptz', (c) => c.notNull().defaultTo(sql`now()`))
    .addPrimaryKeyConstraint('split_changes_pk', ['service', 'epoch'])
    .addUniqueConstraint('split_changes_key', ['service', 'idempotency_key'])
    .execute();
  await db.schema
    .createTable('dossiers')
    .addColumn('failover', 'text', (c) => c.notNull())
    .addColumn('run_id', 'text', (c) => c.notNull())
    .addColumn('started_at', 'timestamptz', (c) => c.notNull())
    .addColumn('dossier', 'jsonb', (c) => c.notNull())
    .addPrimaryKeyConstraint('dossiers_pk', ['failover', 'run_id'])
    .execute();
  await db.schema.createIndex('dossiers_by_start').on('dossiers').column('started_at').execute();
}
