/** Opens Postgres for the store: waits until it is there, and never shows the password. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Pool, type PoolConfig } from 'pg';

export interface ConnectOptions {
  /** How long to wait for Postgres to be there, in milliseconds. Default 60,000. */
  timeoutMs?: number;
  /** Connections kept at most. Default 10. */
  maxConnections?: number;
}

/** Waiting does not help against these: wrong password, no such user. */
const hopeless = new Set(['28P01', '28000']);

/** Connections lost, resources short, the server ending, transactions that lost a race: SQLSTATE classes of what passes. */
const passing = /^(08|25|40|53|55|57|58)/;
/** What the driver says without a code. */
const driverWords = /Connection terminated|not queryable|timeout|after calling end on the pool|Client was closed/i;

/** Whether Postgres, or the way to it, has failed, so that asking again can help; else the question itself is at fault. */
export function isStoreFailure(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const { code } = error as Error & { code?: unknown };
  if (typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code) && !code.startsWith('E')) return passing.test(code);
  // Of sockets: ECONNREFUSED, EPIPE and so on; several at once where a name has several addresses.
  if (typeof code === 'string') return /^E[A-Z]+$/.test(code);
  return driverWords.test(error.message);
}

/** `host:port/database` of a Postgres URL, for messages. */
export function placeOf(url: string): string {
  try {
    const { hostname, port, pathname } = new URL(url);
    return `${hostname}:${port || '5432'}${pathname}`;
  } catch {
    throw new Error('The Postgres URL cannot be read: expected postgres://user:password@host:port/database.');
  }
}

/** A pool whose first connection has been made. Throws once the time is up, or at once when waiting cannot help. */
export async function openPool(url: string, options: ConnectOptions = {}): Promise<Pool> {
  const place = placeOf(url);
  const timeoutMs = options.timeoutMs ?? 60_000;
  const deadline = Date.now() + timeoutMs;
  const config: PoolConfig = {
    connectionString: url,
    max: options.maxConnections ?? 10,
    connectionTimeoutMillis: 10_000,
    keepAlive: true,
    // A store that does not answer must fail an activity, not hang it.
    query_timeout: 30_000,
    application_name: 'understudy',
  };
  const pool = new Pool(config);
  // An idle connection that breaks is dropped by the pool; without a listener the process would die of it.
  pool.on('error', () => undefined);
  // So does one that breaks while it is in use: its query fails, which is enough, but the client tells it once more.
  pool.on('connect', (client) => void client.on('error', () => undefined));
  for (let pauseMs = 100; ; pauseMs = Math.min(pauseMs * 2, 2_000)) {
    try {
      await pool.query('select 1');
      return pool;
    } catch (error) {
      const { code, message } = error as Error & { code?: string };
      const isHopeless = code !== undefined && hopeless.has(code);
      if (isHopeless || Date.now() + pauseMs > deadline) {
        await pool.end();
        const waited = isHopeless ? '' : ` within ${timeoutMs / 1000} s`;
        throw new Error(`Postgres at ${place} could not be opened${waited}: ${message || code}`, { cause: error });
      }
      await sleep(pauseMs);
    }
  }
}
