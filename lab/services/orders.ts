/**
 * The lab's service on Postgres: each request is a short transaction on one connection of a small pool, which it holds for
 * its service time; so the pool is its capacity. Knobs: `pool` connections (6), `rows` of the cell's table (200).
 * LAB_POSTGRES_URL names user, password and database; host and port come from `dependency` if it is set.
 */
import { Pool, type PoolClient } from 'pg';
import { AnswerError, DependencyMeter, knob, quantile, readInstanceConfig, runService } from './harness';
import type { InstanceConfig, ServiceDefinition } from './harness';

const longestWaitMs = 2000;
const longestQueryMs = 3000;
const leakTickMs = 100;
const retryStartMs = 1000;

/** The fault `pool-leak`: a code path that takes connections, in line like everybody, and forgets to release them. */
class PoolLeak {
  private timer: NodeJS.Timeout | undefined;
  private readonly forgotten: PoolClient[] = [];
  private waiting = false;
  private stopped = true;

  constructor(private readonly pool: Pool) {}

  set(perSecond: number, release: boolean): void {
    clearInterval(this.timer);
    this.stopped = perSecond <= 0;
    if (release) for (const client of this.forgotten.splice(0)) client.release();
    if (this.stopped) return;
    let owed = 0;
    this.timer = setInterval(() => {
      owed = Math.min(owed + (perSecond * leakTickMs) / 1000, 1 + perSecond);
      if (owed < 1 || this.waiting) return;
      owed--;
      void this.takeOne();
    }, leakTickMs);
  }

  private async takeOne(): Promise<void> {
    this.waiting = true;
    try {
      const client = await this.pool.connect();
      // The fault may have ended while this one waited in line.
      if (this.stopped) client.release();
      else this.forgotten.push(client);
    } catch {
      // Nothing was free in time, as for any caller.
    } finally {
      this.waiting = false;
    }
  }
}

function connectionString(config: InstanceConfig): string {
  const text = process.env['LAB_POSTGRES_URL'];
  if (!text) throw new Error('LAB_POSTGRES_URL must be a postgres:// URL with user, password and database');
  const url = new URL(text);
  if (config.dependency) url.host = `${config.dependency.host}:${config.dependency.port}`;
  return url.href;
}

export function ordersService(config: InstanceConfig): ServiceDefinition {
  const limit = knob(config, 'pool', 6);
  const rows = knob(config, 'rows', 200);
  const table = `lab_orders_${config.cell.replace(/\W/g, '_').toLowerCase()}`;
  const dependency = new DependencyMeter();
  const pool = new Pool({
    connectionString: connectionString(config),
    max: limit,
    connectionTimeoutMillis: longestWaitMs,
    query_timeout: longestQueryMs,
    idleTimeoutMillis: 0,
    // What a lab's orders are worth: the disk is not what this service is about.
    options: '-c synchronous_commit=off',
  });
  // A connection that was lost while idle: the pool has forgotten it already.
  pool.on('error', () => undefined);
  const leak = new PoolLeak(pool);
  let waitsS: number[] = [];

  async function createTable(): Promise<void> {
    // One message is one transaction; the lock keeps instances of one cell from creating at the same time.
    await pool.query(
      `select pg_advisory_xact_lock(hashtext('${table}'));
       create unlogged table if not exists ${table} (id int primary key, ordered bigint not null) with (fillfactor = 50);
       insert into ${table} select id, 0 from generate_series(0, ${rows - 1}) id on conflict do nothing`,
    );
  }

  async function connect(): Promise<PoolClient> {
    const beganAt = performance.now();
    try {
      return await pool.connect();
    } catch (error) {
      throw new AnswerError(503, `No connection to the database: ${(error as Error).message}`);
    } finally {
      waitsS.push((performance.now() - beganAt) / 1000);
    }
  }

  return {
    async start({ hold }) {
      for (;;) {
        try {
          return await createTable();
        } catch (error) {
          process.stderr.write(`${config.instance} waits for its database: ${(error as Error).message}\n`);
          await hold(retryStartMs);
        }
      }
    },
    async work(key, ctx) {
      const client = await connect();
      let broken: Error | undefined;
      try {
        await dependency.measure(() => client.query(`begin; select ordered from ${table} where id = ${key % rows}`));
        await ctx.hold(ctx.drawServiceMs());
        await dependency.measure(() =>
          client.query(`update ${table} set ordered = ordered + 1 where id = ${key % rows}; commit`),
        );
      } catch (error) {
        broken = error as Error;
        throw error;
      } finally {
        // In an unknown state, it must not serve the next caller.
        client.release(broken);
      }
      return { key };
    },
    metrics(elapsedS) {
      const wait = quantile(waitsS, 0.99);
      waitsS = [];
      return {
        'pool.used': pool.totalCount - pool.idleCount,
        'pool.limit': limit,
        ...(wait === undefined ? {} : { 'pool.wait_p99_s': wait }),
        ...dependency.step(elapsedS),
      };
    },
    stop: () => pool.end(),
    faults: { 'pool-leak': (perSecond, release) => leak.set(perSecond, release) },
  };
}

if (require.main === module) {
  const config = readInstanceConfig();
  runService(config, ordersService(config));
}
