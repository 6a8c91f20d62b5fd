/** A real Postgres for tests: one server per call, as the local stack runs it, and an empty database per test. */
import { Client } from 'pg';
import { startStack } from '../../local/stack';

export interface TestPostgres {
  /** postgres:// URL of a database of the caller's own. */
  database(): Promise<string>;
  stop(): Promise<void>;
}

export async function startPostgres(): Promise<TestPostgres> {
  const stack = await startStack({ parts: ['postgres'] });
  const { url } = stack.settings.postgres;
  let databases = 0;
  return {
    async database() {
      databases += 1;
      const client = new Client({ connectionString: url });
      await client.connect();
      await client.query(`create database test_${databases}`);
      await client.end();
      const own = new URL(url);
      own.pathname = `/test_${databases}`;
      return own.href;
    },
    stop: () => stack.stop(),
  };
}
