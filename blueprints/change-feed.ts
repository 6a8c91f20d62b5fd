/** Hears of changes in the store over one LISTEN connection that makes itself anew whenever it breaks. */
import { sql, type Transaction } from 'kysely';
import { Client } from 'pg';
import type { Tables } from './tables';

export const changeChannel = 'understudy_changes';

/** Tells every feed, once the transaction is committed. Null: anything may have changed. */
export async function notify(trx: Transaction<Tables>, service: string | null): Promise<void> {
  await sql`select pg_notify(${changeChannel}, ${service ?? ''})`.execute(trx);
}

/** Called with the service that changed, or null when anything may have: after a reconnect, or for a blueprint. */
export type ChangeListener = (service: string | null) => void;

/** A connection that is silent for longer than this is asked whether it still lives. */
const pingEveryMs = 10_000;

export class ChangeFeed {
  private readonly listeners = new Set<ChangeListener>();
  private client: Client | undefined;
  private retry: NodeJS.Timeout | undefined;
  private ping: NodeJS.Timeout | undefined;
  private failures = 0;
  private closed = false;

  constructor(
    private readonly url: string,
    private readonly channel = changeChannel,
  ) {}

  /** Begins to listen, in the background. Each listener is called once with null as soon as the feed stands. */
  add(listener: ChangeListener): () => void {
    this.listeners.add(listener);
    if (!this.client && !this.retry) this.open();
    else if (this.ping) queueMicrotask(() => this.listeners.has(listener) && listener(null));
    return () => void this.listeners.delete(listener);
  }

  async close(): Promise<void> {
    this.closed = true;
    clearTimeout(this.retry);
    clearInterval(this.ping);
    this.listeners.clear();
    const client = this.client;
    this.client = undefined;
    await client?.end().catch(() => undefined);
  }

  private open(): void {
    this.retry = undefined;
    if (this.closed) return;
    const client = new Client({
      connectionString: this.url,
      keepAlive: true,
      connectionTimeoutMillis: 10_000,
      query_timeout: 5_000,
      application_name: 'understudy change feed',
    });
    this.client = client;
    const lost = () => this.reopen(client);
    client.on('error', lost);
    client.on('end', lost);
    client.on('notification', ({ payload }) => this.tell(payload ? payload : null));
    client
      .connect()
      .then(() => client.query(`listen ${this.channel}`))
      .then(() => {
        if (this.client !== client) return;
        this.failures = 0;
        this.ping = setInterval(() => void client.query('select 1').catch(lost), pingEveryMs);
        this.ping.unref();
        // Whatever happened while nobody listened has not been heard.
        this.tell(null);
      })
      .catch(lost);
  }

  private reopen(lost: Client): void {
    if (this.client !== lost || this.closed) return;
    this.client = undefined;
    clearInterval(this.ping);
    this.ping = undefined;
    lost.removeAllListeners();
    lost.on('error', () => undefined);
    void lost.end().catch(() => undefined);
    this.failures += 1;
    this.retry = setTimeout(() => this.open(), Math.min(50 * 2 ** this.failures, 2_000));
  }

  private tell(service: string | null): void {
    for (const listener of this.listeners) listener(service);
  }
}
