/** The control planes that serve from one store: that they live, and what their proxies hold and carry. */
import { sql, type Kysely } from 'kysely';
import type { ProxyRefusal } from './records';
import { jsonb, type Tables } from './tables';

export interface Replica {
  id: string;
  /** ISO 8601, by the database's clock. */
  startedAt: string;
  /** Since its last sign of life, by the database's clock. */
  silentMs: number;
  /** Node ids of the proxies connected to it. */
  proxies: string[];
}

/** What became of the epoch that a replica published of a service, at the proxies connected to it. */
export interface ReplicaHolding {
  replica: string;
  service: string;
  epoch: number;
  acknowledged: string[];
  refused: ProxyRefusal[];
  pending: string[];
}

/** What the proxies of a replica measured of a service. What is in it is the load balancer's affair. */
export interface ReplicaLoad {
  replica: string;
  service: string;
  /** Age of the row, by the database's clock. */
  ageMs: number;
  loads: unknown;
}

export const holdingsChannel = 'understudy_holdings';

/** A replica that has been silent for this long is forgotten, with what it reported. */
const forgetAfterS = 600;

export class ReplicaTable {
  constructor(private readonly db: Kysely<Tables>) {}

  /** A sign of life, with who is connected if that has changed. Answers every replica that is still remembered. */
  async beat(id: string, proxies?: string[]): Promise<Replica[]> {
    const list = jsonb(proxies ?? []);
    await this.db
      .insertInto('replicas')
      .values({ id, proxies: list })
      .onConflict((oc) =>
        oc.column('id').doUpdateSet({ heartbeat_at: sql<Date>`clock_timestamp()`, ...(proxies && { proxies: list }) }),
      )
      .execute();
    return this.list();
  }

  async list(): Promise<Replica[]> {
    const rows = await this.db
      .selectFrom('replicas')
      .select(['id', 'started_at', 'proxies'])
      .select(sql<number>`1000 * extract(epoch from clock_timestamp() - heartbeat_at)::float8`.as('silent_ms'))
      .orderBy('id')
      .execute();
    return rows.map((row) => ({
      id: row.id,
      startedAt: row.started_at.toISOString(),
      silentMs: Math.max(0, row.silent_ms),
      proxies: row.proxies,
    }));
  }

  async forgetLost(): Promise<void> {
    const before = sql<Date>`now() - make_interval(secs => ${forgetAfterS})`;
    await this.db.deleteFrom('replicas').where('heartbeat_at', '<', before).execute();
  }

  /** The replica ends in good order: nobody waits for it. */
  async leave(id: string): Promise<void> {
    await this.db.deleteFrom('replicas').where('id', '=', id).execute();
  }

  /** Says what the replica's proxies hold, and tells whoever waits. */
  async hold({ replica, service, epoch, acknowledged, refused, pending }: ReplicaHolding): Promise<void> {
    const row = { epoch, acknowledged: jsonb(acknowledged), refused: jsonb(refused), pending: jsonb(pending) };
    await this.db.transaction().execute(async (trx) => {
      await trx
        .insertInto('replica_holdings')
        .values({ replica, service, ...row })
        .onConflict((oc) => oc.columns(['replica', 'service']).doUpdateSet(row))
        .execute();
      await sql`select pg_notify(${holdingsChannel}, ${service})`.execute(trx);
    });
  }

  async holdings(service: string): Promise<ReplicaHolding[]> {
    const rows = await this.db.selectFrom('replica_holdings').selectAll().where('service', '=', service).execute();
    return rows.map((row) => ({ ...row, epoch: Number(row.epoch) }));
  }

  async reportLoads(replica: string, loads: { service: string; loads: unknown }[]): Promise<void> {
    if (loads.length === 0) return;
    const at = sql<Date>`clock_timestamp()`;
    await this.db
      .insertInto('replica_loads')
      .values(loads.map((load) => ({ replica, service: load.service, loads: jsonb(load.loads), at: at as never })))
      .onConflict((oc) =>
        oc.columns(['replica', 'service']).doUpdateSet((eb) => ({ loads: eb.ref('excluded.loads'), at })),
      )
      .execute();
  }

  async loads(service: string): Promise<ReplicaLoad[]> {
    const rows = await this.db
      .selectFrom('replica_loads')
      .select(['replica', 'service', 'loads'])
      .select(sql<number>`1000 * extract(epoch from clock_timestamp() - at)::float8`.as('age_ms'))
      .where('service', '=', service)
      .execute();
    return rows.map(({ age_ms, ...row }) => ({ ...row, ageMs: Math.max(0, age_ms) }));
  }
}
