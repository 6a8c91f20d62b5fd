/** The stateful reference service on Postgres, as a process: a cell of one instance, with its server as a child. */
import { mkdirSync } from 'node:fs';
import { numberFlag, readFlags } from '../arguments';
import { serve } from './front';
import { PostgresCore } from './postgres-core';
import { PostgresServer } from './postgres-server';

const flags = readFlags({
  cell: 'string',
  address: 'string',
  port: 'string',
  dir: 'string',
  'database-port': 'string',
  'database-at': 'string',
  bootstrap: 'boolean',
});

async function main(): Promise<void> {
  const { cell = 'cell', address = '127.0.0.1', dir = 'postgres-cell', bootstrap = false } = flags;
  // A secret: by the environment, since arguments can be read by everybody.
  const password = process.env['DATABASE_PASSWORD'];
  if (!password) throw new Error('DATABASE_PASSWORD is not set');
  const port = numberFlag('port', flags.port, 8080);
  const databasePort = numberFlag('database-port', flags['database-port'], 5432);
  mkdirSync(dir, { recursive: true, mode: 0o755 });
  const server = new PostgresServer({ dir, port: databasePort, name: cell, password });
  const database = flags['database-at'] ?? `${address}:${databasePort}`;
  const core = new PostgresCore(server, { cell, address, port }, database);
  await serve(core, address, port);
  await core.start(bootstrap);
  process.stdout.write(`${cell} answers on ${address}:${port}, its database on ${database}\n`);
  process.once('SIGTERM', () => void core.close().finally(() => process.exit(0)));
}

void main();
