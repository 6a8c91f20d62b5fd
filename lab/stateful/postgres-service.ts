/** The stateful reference service on Postgres, as a process: a cell of one instance, with its server as a child. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { reservePorts } from '../../local/ports';
import { numberFlag, readFlags } from '../arguments';
import { serve } from './front';
import { PostgresCore } from './postgres-core';
import { PostgresServer } from './postgres-server';

const flags = readFlags({
  cell: 'string',
  address: 'string',
  port: 'string',
  dir: 'string',
  /** Left out: a free one, and then always the same. */
  'database-port': 'string',
  'database-at': 'string',
  /** The password of the database; else it is in DATABASE_PASSWORD. */
  'password-file': 'string',
  bootstrap: 'boolean',
});

/** A secret: by a file or the environment, since arguments can be read by everybody. */
function readPassword(): string {
  const file = flags['password-file'];
  const password = file === undefined ? process.env['DATABASE_PASSWORD'] : readFileSync(file, 'utf8').trim();
  if (!password) throw new Error('neither --password-file nor DATABASE_PASSWORD says the password of the database');
  return password;
}

/** Kept with the data: whoever follows this cell must find it again after a restart. */
async function ownPort(dir: string): Promise<number> {
  const file = join(dir, 'database-port');
  if (existsSync(file)) return Number(readFileSync(file, 'utf8'));
  const [port] = (await reservePorts(1)) as [number];
  writeFileSync(file, String(port));
  return port;
}

async function main(): Promise<void> {
  const { cell = 'cell', address = '127.0.0.1', dir = 'postgres-cell', bootstrap = false } = flags;
  const password = readPassword();
  const port = numberFlag('port', flags.port, 8080);
  mkdirSync(dir, { recursive: true, mode: 0o755 });
  const given = flags['database-port'];
  const databasePort = given === undefined ? await ownPort(dir) : numberFlag('database-port', given, 5432);
  const server = new PostgresServer({ dir, port: databasePort, name: cell, password });
  const database = flags['database-at'] ?? `${address}:${databasePort}`;
  const core = new PostgresCore(server, { cell, address, port }, database);
  await serve(core, address, port);
  await core.start(bootstrap);
  process.stdout.write(`${cell} answers on ${address}:${port}, its database on ${database}\n`);
  process.once('SIGTERM', () => void core.close().finally(() => process.exit(0)));
}

void main();
