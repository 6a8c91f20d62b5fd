/** One statement at a time on a cell's database, in bounded time, and never cancelled. */
import { Client } from 'pg';
import { DataUnreachableError, type DataCell, type DataState } from './contract';

/**
 * The connection of a session that took too long is cut, its statement is not cancelled: Postgres answers a cancelled wait
 * for the standby with a warning and success, although the standby has nothing
 * (https://www.postgresql.org/docs/18/warm-standby.html#SYNCHRONOUS-REPLICATION). A cut connection acknowledges nothing.
 */
export async function inSession<T>(url: string, timeoutMs: number, work: (client: Client) => Promise<T>): Promise<T> {
  const client = new Client({ connectionString: url, connectionTimeoutMillis: timeoutMs });
  const { hostname, port } = new URL(url);
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new DataUnreachableError(`the database at ${hostname}:${port} gave no answer within ${timeoutMs} ms`));
    }, timeoutMs);
    client.on('error', (error) => reject(new DataUnreachableError(`${hostname}:${port}: ${error.message}`)));
  });
  late.catch(() => undefined);
  const run = async () => {
    try {
      await client.connect();
    } catch (error) {
      throw new DataUnreachableError(`the database at ${hostname}:${port}: ${(error as Error).message}`);
    }
    return work(client);
  };
  const running = run();
  running.catch(() => undefined);
  try {
    return await Promise.race([running, late]);
  } finally {
    clearTimeout(timer);
    // Not `end`: that would wait for the statement.
    (client as unknown as { connection: { stream: { destroy(): void } } }).connection.stream.destroy();
  }
}

/** The URL of the cell's database: where the cell says it is, with what the blueprint says about it. */
export function databaseUrl(cell: DataCell, { database }: DataState, url: string): string {
  if (database === undefined) throw new DataUnreachableError(`${cell.name} does not say where its database is`);
  const own = new URL(url);
  own.host = database;
  return own.href;
}
