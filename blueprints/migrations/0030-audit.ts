/**
 * The audit: what was asked, what was changed, and what became of it at the proxies. Rows are only ever added; the
 * database itself refuses to change or remove one. A changed split is written down by the transaction that changes it.
 */
import { sql, type Kysely } from 'kysely';

export async function up(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('audit')
    .addColumn('id', 'bigint', (c) => c.primaryKey().generatedAlwaysAsIdentity())
    .addColumn('at', 'timestamptz', (c) => c.notNull().defaultTo(sql`clock_timestamp()`))
    .addColumn('kind', 'text', (c) => c.notNull())
    .addColumn('service', 'text')
    .addColumn('epoch', 'bigint')
    .addColumn('by', 'text')
    .addColumn('identity', 'text')
    .addColumn('reason', 'text')
    .addColumn('from_split', 'jsonb')
    .addColumn('to_split', 'jsonb')
    .addColumn('outcome', 'text')
    .addColumn('details', 'jsonb', (c) => c.notNull().defaultTo(sql`'{}'::jsonb`))
    .execute();
  await db.schema.createIndex('audit_by_service').on('audit').columns(['service', 'id']).execute();
  await sql`
    create function audit_is_append_only() returns trigger language plpgsql as $$
    begin
      raise exception 'the audit is append-only: % is refused', tg_op;
    end $$`.execute(db);
  await sql`
    create trigger audit_append_only before update or delete or truncate on audit
    for each statement execute function audit_is_append_only()`.execute(db);
  // Whoever changes a split, this process or another, with or without the traffic API, cannot do it past the audit.
  await sql`
    create function audit_split_change() returns trigger language plpgsql as $$
    begin
      insert into audit (kind, service, epoch, by, reason, from_split, to_split, details)
      values (
        'split', new.service, new.epoch, to_jsonb(new) ->> 'by', new.reason,
        (select split from split_changes where service = new.service and epoch < new.epoch order by epoch desc limit 1),
        new.split, jsonb_build_object('idempotencyKey', new.idempotency_key)
      );
      return new;
    end $$`.execute(db);
  await sql`
    create trigger audit_split_change after insert on split_changes
    for each row execute function audit_split_change()`.execute(db);
}
