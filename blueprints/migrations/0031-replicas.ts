/** Several control planes over one store: what each one's proxies hold and carry; leases on splits; the fleet-wide stop. */
import { sql, type Kysely } from 'kysely';

export async function up(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('replicas')
    .addColumn('id', 'text', (c) => c.primaryKey())
    .addColumn('started_at', 'timestamptz', (c) => c.notNull().defaultTo(sql`now()`))
    .addColumn('heartbeat_at', 'timestamptz', (c) => c.notNull().defaultTo(sql`now()`))
    // Node ids of the proxies connected to it.
    .addColumn('proxies', 'jsonb', (c) => c.notNull())
    .execute();
  // One row per replica and service, not per proxy. No reference to services: a report must never fail a deletion.
  await db.schema
    .createTable('replica_holdings')
    .addColumn('replica', 'text', (c) => c.notNull().references('replicas.id').onDelete('cascade'))
    .addColumn('service', 'text', (c) => c.notNull())
    // The epoch that this replica has published; the lists say what became of it at its proxies.
    .addColumn('epoch', 'bigint', (c) => c.notNull())
    .addColumn('acknowledged', 'jsonb', (c) => c.notNull())
    .addColumn('refused', 'jsonb', (c) => c.notNull())
    .addColumn('pending', 'jsonb', (c) => c.notNull())
    .addPrimaryKeyConstraint('replica_holdings_pk', ['replica', 'service'])
    .execute();
  await db.schema
    .createTable('replica_loads')
    .addColumn('replica', 'text', (c) => c.notNull().references('replicas.id').onDelete('cascade'))
    .addColumn('service', 'text', (c) => c.notNull())
    .addColumn('at', 'timestamptz', (c) => c.notNull())
    .addColumn('loads', 'jsonb', (c) => c.notNull())
    .addPrimaryKeyConstraint('replica_loads_pk', ['replica', 'service'])
    .execute();
  // The epoch that a change takes back, and what spoke against it.
  await db.schema.alterTable('split_changes').addColumn('reverts', 'bigint').addColumn('evidence', 'jsonb').execute();
  await db.schema
    .createTable('split_leases')
    .addColumn('service', 'text', (c) => c.primaryKey().references('services.name'))
    .addColumn('epoch', 'bigint', (c) => c.notNull())
    .addColumn('holder', 'text', (c) => c.notNull())
    .addColumn('duration_ms', 'integer', (c) => c.notNull().check(sql`duration_ms > 0`))
    .addColumn('expires_at', 'timestamptz', (c) => c.notNull())
    .execute();
  // One row; every change of a split holds it shared until it is committed, so that a stop leaves none under way.
  await db.schema
    .createTable('fleet')
    .addColumn('singleton', 'boolean', (c) =>
      c
        .primaryKey()
        .defaultTo(true)
        .check(sql`singleton`),
    )
    .addColumn('stopped_at', 'timestamptz')
    .addColumn('by', 'text')
    .addColumn('reason', 'text')
    .execute();
  await sql`insert into fleet (singleton) values (true)`.execute(db);
  // Who stopped and resumed, and why; never rewritten.
  await db.schema
    .createTable('fleet_orders')
    .addColumn('at', 'timestamptz', (c) => c.notNull().defaultTo(sql`now()`))
    .addColumn('order', 'text', (c) => c.notNull().check(sql`"order" in ('stop', 'resume')`))
    .addColumn('by', 'text', (c) => c.notNull())
    .addColumn('reason', 'text', (c) => c.notNull())
    .execute();
}
