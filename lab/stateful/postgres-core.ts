/**
 * A cell with a Postgres of its own: a replica of the owner's, or the owner's itself.
 * Promise: an append or a register's version that was answered with 200 is kept in every failover, once and in its place,
 * and a read that does not allow staleness shows everything that was answered before it was asked.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Pool, type PoolClient } from 'pg';
import { ownerLock, ownerTable } from '../../cells/data-sync/postgres';
import { NotOwnerError, RefusedOrderError, type Core, type Operation } from './front';
import type { PostgresServer } from './postgres-server';
import { RegisterState, type Change } from './register-state';

interface Known {
  isReplica: boolean;
  owner: { epoch: number; cell: string; address: string; port: number } | null;
  position: number;
}

const tables = `
  create table if not exists appends (seq bigserial primary key, list text not null, value text not null, unique (list, value));
  create table if not exists registers (name text primary key, version bigint not null, value text not null);
  ${ownerTable}`;

/** After that a caller hears that the outcome is unknown. The statement is not cancelled: see the data sync's session. */
const operationMs = 2_500;
const lookEveryMs = 150;

export class PostgresCore implements Core {
  private pool: Pool | undefined;
  private known: Known | undefined;
  /** The copy or start that is under way. */
  private working: Promise<void> | undefined;
  private followed: string | undefined;
  /** Connections on which a wait for the standby was cut short: that ends in success and a warning. */
  private readonly uncertain = new WeakSet<object>();

  constructor(
    private readonly server: PostgresServer,
    private readonly self: { cell: string; address: string; port: number },
    /** Where others reach the server. */
    private readonly database: string,
  ) {}

  /** `bootstrap`: makes an empty database if there is nothing yet; otherwise the cell waits to be told whom to follow. */
  async start(bootstrap: boolean): Promise<void> {
    if (this.server.hasData || bootstrap) await this.open(() => this.server.start());
    void this.look();
  }

  isReady(): boolean {
    return true;
  }

  owner() {
    const owner = this.known?.owner;
    return owner && owner.cell !== this.self.cell ? owner : undefined;
  }

  async state(): Promise<RegisterState> {
    if (this.known && !this.known.isReplica && this.owner())
      throw new NotOwnerError(`${this.self.cell} was the owner; what it has may never have been`);
    return this.transaction(readAll, async (client) => {
      // What a primary has and no standby confirmed may be undone: only a replica answers without asking anybody.
      const { rows } = await client.query<{ replica: boolean }>('select pg_is_in_recovery() as replica');
      if (!rows[0]!.replica) await barrier(client);
    });
  }

  run(operation: Operation): Promise<RegisterState> {
    if (operation.kind === 'read') return this.transaction(readAll, barrier, this.self.cell);
    const { change } = operation;
    const write = async (client: PoolClient) => {
      await (change.kind === 'append' ? append(client, change) : set(client, change));
      return new RegisterState();
    };
    return this.transaction(write, undefined, this.self.cell);
  }

  dataState() {
    const { known } = this;
    const owner = known?.owner ?? null;
    return {
      cell: this.self.cell,
      role:
        known === undefined || owner === null
          ? 'follower'
          : !known.isReplica && owner.cell === this.self.cell
            ? 'owner'
            : known.isReplica
              ? 'follower'
              : 'fenced',
      epoch: owner?.epoch ?? 0,
      owner: owner && { cell: owner.cell, address: owner.address, port: owner.port },
      position: known?.position ?? 0,
      newestMs: null,
      database: this.database,
    };
  }

  /** Begins to follow and answers at once; whether it has come about is asked of the database. */
  async order(what: string, { epoch, owner }: { epoch: number; owner?: string }): Promise<void> {
    if (what !== 'follow' || owner === undefined) throw new RefusedOrderError(`unknown order ${what}`);
    if (this.working) return;
    if (this.known?.isReplica && this.followed === owner && !(await this.server.isForgottenBy(owner))) return;
    // Started and not yet looked into: it may own a later epoch.
    if (this.pool && !this.known) throw new RefusedOrderError(`${this.self.cell} does not know yet what it has`);
    const own = this.known?.isReplica === false ? this.known.owner : null;
    if (own && (epoch < own.epoch || (epoch === own.epoch && own.cell === this.self.cell)))
      throw new RefusedOrderError(`${this.self.cell} has epoch ${own.epoch} itself and throws nothing away`);
    void this.open(() => this.server.copyFrom(owner)).catch((error: unknown) =>
      process.stderr.write(`following ${owner}: ${(error as Error).message}\n`),
    );
  }

  async close(): Promise<void> {
    await this.server.stop();
  }

  private open(start: () => Promise<void>): Promise<void> {
    this.working ??= (async () => {
      this.known = undefined;
      void this.pool?.end().catch(() => undefined);
      this.pool = undefined;
      await start();
      const pool = new Pool({ connectionString: this.server.url, max: 16, connectionTimeoutMillis: operationMs });
      pool.on('error', () => undefined);
      pool.on('connect', (client) => {
        // Whoever uses it hears of it by the statement that fails.
        client.on('error', () => undefined);
        client.on('notice', ({ message }) => {
          if (/synchronous replication/i.test(message ?? '')) this.uncertain.add(client);
        });
      });
      const { rows } = await pool.query<{ replica: boolean }>('select pg_is_in_recovery() as replica');
      const isReplica = rows[0]!.replica;
      const made = isReplica
        ? true
        : await pool
            .query(`select to_regclass('registers') as made`)
            .then(({ rows }) => (rows[0] as { made: unknown }).made !== null);
      if (!made) await pool.query(tables);
      this.followed = isReplica ? await this.server.followed() : undefined;
      this.pool = pool;
    })().finally(() => (this.working = undefined));
    return this.working;
  }

  /** Who is the owner, as the data says: what requests are handed on by. The transactions look again. */
  private async look(): Promise<never> {
    for (;;) {
      const { pool } = this;
      const seen = pool && (await within(lookState(pool), operationMs).catch(() => undefined));
      if (seen && this.pool === pool) this.known = seen;
      await sleep(lookEveryMs);
    }
  }

  /** With `as`, only while that cell is the owner. */
  private async transaction<T>(
    work: (client: PoolClient) => Promise<T>,
    last?: (client: PoolClient) => Promise<void>,
    as?: string,
  ): Promise<T> {
    if (!this.pool) throw new NotOwnerError(`${this.self.cell} has no database yet`);
    const client = await this.pool.connect();
    const running = (async () => {
      await client.query('begin');
      if (as !== undefined) await refuseUnlessOwner(client, as);
      const done = await work(client);
      await last?.(client);
      await client.query('commit');
      if (this.uncertain.has(client)) throw new Error('the outcome is not known: the standby did not confirm');
      return done;
    })();
    // Only when it has come to its end, long after the caller was told that nobody knows: so what waits for a standby
    // that never comes takes the pool's connections, and no more than those.
    running.then(
      () => client.release(),
      (error: Error) => client.release(error),
    );
    return within(running, operationMs);
  }
}

/** Whoever fences takes the lock alone: this transaction is over before the fence, or sees it. */
async function refuseUnlessOwner(client: PoolClient, cell: string): Promise<void> {
  await client.query('select pg_advisory_xact_lock_shared($1)', [ownerLock]);
  const { rows } = await client.query<{ mine: boolean }>(
    'select cell = $1 and not pg_is_in_recovery() as mine from understudy_owner',
    [cell],
  );
  if (!rows[0]?.mine) throw new NotOwnerError(`${cell} is not the owner`);
}

/** A record that says nothing; its commit is acknowledged only with the standby's word that this is still the primary. */
async function barrier(client: PoolClient): Promise<void> {
  await client.query(`select pg_logical_emit_message(true, 'understudy', 'barrier')`);
}

async function append(client: PoolClient, { list, value }: Extract<Change, { kind: 'append' }>): Promise<void> {
  // Held until the commit: without it a later number could be seen before an earlier one.
  await client.query('select pg_advisory_xact_lock($1, hashtext($2))', [1, list]);
  await client.query('insert into appends (list, value) values ($1, $2) on conflict do nothing', [list, value]);
}

async function set(client: PoolClient, { register, version, value }: Extract<Change, { kind: 'set' }>): Promise<void> {
  await client.query(
    `insert into registers (name, version, value) values ($1, $2, $3)
     on conflict (name) do update set version = $2, value = $3 where registers.version < $2`,
    [register, version, value],
  );
}

async function readAll(client: PoolClient): Promise<RegisterState> {
  const state = new RegisterState();
  const { rows } = await client.query<{ list: string; value: string }>('select list, value from appends order by seq');
  for (const { list, value } of rows) state.apply({ kind: 'append', list, value });
  const registers = await client.query<{ name: string; version: string; value: string }>('select * from registers');
  for (const { name, version, value } of registers.rows)
    state.apply({ kind: 'set', register: name, version: Number(version), value });
  return state;
}

async function lookState(pool: Pool): Promise<Known> {
  const { rows } = await pool.query<{ replica: boolean; at: string }>(
    `select pg_is_in_recovery() as replica,
       case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end - '0/0' as at`,
  );
  const owners = await pool.query<NonNullable<Known['owner']>>(
    'select epoch, cell, address, port from understudy_owner',
  );
  return { isReplica: rows[0]!.replica, owner: owners.rows[0] ?? null, position: Number(rows[0]!.at) };
}

async function within<T>(work: Promise<T>, ms: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  work.catch(() => undefined);
  try {
    return await Promise.race([
      work,
      new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(new Error(`the outcome is not known after ${ms} ms`)), ms);
      }),
    ]);
  } finally {
    clearTimeout(timer);
  }
}
