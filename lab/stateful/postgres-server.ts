/** A cell's own Postgres: made empty or as a copy of another's, started, watched, and started again when it dies. */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { chownSync, closeSync, existsSync, mkdirSync, openSync, promises as fs, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'pg';
import { slotName } from '../../cells/data-sync/postgres';
import { preparePostgres, type PreparedPostgres } from '../../local/postgres';

export interface ServerOptions {
  dir: string;
  port: number;
  /** The cell's name: what the server calls itself to the one it follows. */
  name: string;
  password: string;
}

/** Light, and quick to notice that a line is cut. */
const settings = {
  shared_buffers: '16MB',
  max_connections: '60',
  wal_receiver_status_interval: '1s',
  wal_retrieve_retry_interval: '200ms',
  wal_receiver_timeout: '5s',
  wal_sender_timeout: '5s',
  // A replica that is gone for good must not fill the owner's disk.
  max_slot_wal_keep_size: '1GB',
  autovacuum: 'off',
};

/** Belongs to a server's life, not to its data. */
const notCopied = new Set(['pg_wal', 'postmaster.pid', 'postmaster.opts', 'pg_replslot', 'pg_stat_tmp', 'pgsql_tmp']);

export class PostgresServer {
  private child: ChildProcess | undefined;
  private prepared: PreparedPostgres | undefined;
  private wanted = false;

  constructor(private readonly options: ServerOptions) {}

  get url(): string {
    return urlOf(`127.0.0.1:${this.options.port}`, this.options.password);
  }

  get hasData(): boolean {
    return existsSync(join(this.dataDir, 'PG_VERSION'));
  }

  /** Starts it on what data there is, or on an empty database. */
  async start(): Promise<void> {
    const { dir, port, password } = this.options;
    const isNew = !this.hasData;
    if (!isNew) writeFileSync(join(dir, 'password'), password, { mode: 0o600 });
    this.prepared = await preparePostgres(dir, port);
    this.wanted = true;
    await this.run(isNew ? this.prepared.url.replace(/\/[^/]*$/, '/postgres') : this.maintenanceUrl);
    if (!isNew) return;
    await statement(
      this.prepared.url.replace(/\/[^/]*$/, '/postgres'),
      `alter role understudy password '${password.replaceAll("'", "''")}'`,
    );
    await statement(this.maintenanceUrl, 'create database understudy');
  }

  /** Throws away what it has and becomes a replica of the server at `owner` (host:port), on the same machine. */
  async copyFrom(owner: string): Promise<void> {
    await this.stop();
    await fs.rm(this.dataDir, { recursive: true, force: true });
    const draft = `${this.dataDir}.new`;
    await fs.rm(draft, { recursive: true, force: true });
    const client = new Client({
      connectionString: urlOf(owner, this.options.password),
      connectionTimeoutMillis: 3_000,
    });
    client.on('error', () => undefined);
    await client.connect();
    try {
      // First: from now on the owner keeps the WAL that the copy will need.
      await client.query(
        `select pg_create_physical_replication_slot($1, true) where not exists (select from pg_replication_slots where slot_name = $1)`,
        [this.slot],
      );
      await client.query('select pg_backup_start($1, true)', [this.options.name]);
      const { rows } = await client.query<{ dir: string }>(
        `select setting as dir from pg_settings where name = 'data_directory'`,
      );
      await copyFolder(rows[0]!.dir, draft);
      const stop = await client.query<{ labelfile: string }>('select labelfile from pg_backup_stop(false)');
      await fs.writeFile(join(draft, 'backup_label'), stop.rows[0]!.labelfile);
    } finally {
      await client.end().catch(() => undefined);
    }
    await Promise.all(
      ['pg_wal', 'pg_replslot', 'pg_stat_tmp'].map((each) => fs.mkdir(join(draft, each), { recursive: true })),
    );
    await fs.mkdir(join(draft, 'pg_wal', 'archive_status'), { recursive: true });
    await fs.writeFile(join(draft, 'standby.signal'), '');
    const [host, port] = owner.split(':');
    const given = { host, port, user: 'understudy', password: this.options.password };
    const line = Object.entries({ ...given, application_name: this.options.name, connect_timeout: 3 })
      .map(([key, value]) => `${key}='${String(value).replaceAll(/[\\']/g, '\\$&')}'`)
      .join(' ');
    // Its own settings from the beginning: whom the owner waits for must not become whom this one waits for.
    await fs.writeFile(
      join(draft, 'postgresql.auto.conf'),
      `primary_conninfo = '${line.replaceAll("'", "''")}'\nprimary_slot_name = '${this.slot}'\nsynchronous_standby_names = ''\n`,
    );
    await this.ownAll(draft);
    // Whole or not at all: a copy that was cut short must not be taken for data.
    await fs.rename(draft, this.dataDir);
    await this.start();
  }

  /** host:port of the server that it is a replica of, by its own settings. */
  async followed(): Promise<string | undefined> {
    const own = await fs.readFile(join(this.dataDir, 'postgresql.auto.conf'), 'utf8').catch(() => '');
    const [, host, port] = /^primary_conninfo = '.*host=''(.*?)'' port=''(\d+)''/m.exec(own) ?? [];
    return host && `${host}:${port}`;
  }

  /** Whether that server has thrown away what the replica would need to go on. */
  async isForgottenBy(owner: string): Promise<boolean> {
    const client = new Client({
      connectionString: urlOf(owner, this.options.password),
      connectionTimeoutMillis: 1_000,
      query_timeout: 1_000,
    });
    client.on('error', () => undefined);
    try {
      await client.connect();
      const { rows } = await client.query<{ isLost: boolean }>(
        `select wal_status = 'lost' as "isLost" from pg_replication_slots where slot_name = $1`,
        [this.slot],
      );
      return rows[0]?.isLost ?? true;
    } catch {
      // One that does not answer may come back.
      return false;
    } finally {
      await client.end().catch(() => undefined);
    }
  }

  async stop(): Promise<void> {
    this.wanted = false;
    const { child } = this;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGINT');
    const isGone = await Promise.race([gone.then(() => true), sleep(5_000, false)]);
    // Immediate shutdown: it may be waiting for a standby that never comes.
    if (!isGone) child.kill('SIGQUIT');
    await gone;
  }

  private get dataDir(): string {
    return join(this.options.dir, 'data');
  }

  private get slot(): string {
    return slotName(this.options.name);
  }

  private get maintenanceUrl(): string {
    return this.url.replace(/\/[^/]*$/, '/postgres');
  }

  /** Tried again until it answers: after a kill -9 the server's children take a moment to notice. */
  private async run(url: string): Promise<void> {
    for (const deadline = Date.now() + 60_000; this.wanted; await sleep(100)) {
      if (!this.child || this.child.exitCode !== null || this.child.signalCode !== null) this.spawn();
      if (await statement(url, 'select 1').catch(() => false)) return;
      if (Date.now() > deadline) throw new Error(`the server in ${this.options.dir} does not answer`);
    }
  }

  private spawn(): void {
    const { command, args, uid, gid, cwd } = this.prepared!.spec;
    const log = openSync(join(this.options.dir, 'server.log'), 'a');
    const own = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
    const child = spawn(command, [...args, ...own], {
      stdio: ['ignore', log, log],
      ...(cwd !== undefined && { cwd }),
      ...(uid !== undefined && { uid }),
      ...(gid !== undefined && { gid }),
    });
    closeSync(log);
    this.child = child;
    child.on('error', () => undefined);
    child.once('exit', () => {
      if (this.wanted && this.child === child)
        setTimeout(() => this.wanted && this.child === child && this.spawn(), 200);
    });
  }

  /** Postgres may have to run as another user than this process. */
  private async ownAll(path: string): Promise<void> {
    mkdirSync(this.options.dir, { recursive: true });
    if (process.getuid?.() !== 0) return;
    const [uid, gid] = ['-u', '-g'].map((flag) => Number(execFileSync('id', [flag, 'nobody'], { encoding: 'utf8' })));
    chownSync(path, uid!, gid!);
    for (const entry of await fs.readdir(path, { recursive: true })) chownSync(join(path, entry), uid!, gid!);
  }
}

export function urlOf(server: string, password: string): string {
  return `postgres://understudy:${encodeURIComponent(password)}@${server}/understudy`;
}

async function statement(url: string, sql: string): Promise<true> {
  const client = new Client({ connectionString: url, connectionTimeoutMillis: 1_000 });
  client.on('error', () => undefined);
  await client.connect();
  try {
    await client.query(sql);
    return true;
  } finally {
    await client.end();
  }
}

/** Files come and go while a server runs; the WAL mends what the copy has of them. */
async function copyFolder(from: string, to: string): Promise<void> {
  await fs.mkdir(to, { mode: 0o700 });
  for (const entry of await fs.readdir(from, { withFileTypes: true })) {
    if (notCopied.has(entry.name)) continue;
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (entry.isDirectory()) await copyFolder(source, target);
    else {
      await fs.copyFile(source, target).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== 'ENOENT') throw error;
      });
    }
  }
}
