/**
 * Data sync by a streaming replica: each cell has its own Postgres, the synthetic cell's follows the owner's through a
 * replication slot. What keeps acknowledged writes, and keeps a late owner from acknowledging more:
 *
 * 1. Before anything is handed over, the owner's `synchronous_standby_names` is set to the synthetic cell, and seen to be
 *    in force. From then on the owner acknowledges nothing that the synthetic cell has not on its disk.
 * 2. A promoted server receives no WAL any more. So the old owner, whose only synchronous standby it was, acknowledges
 *    nothing ever after, whether it was killed, paused or cut off: it does not have to hear of the handover to be fenced.
 *    The setting is in postgresql.auto.conf and survives its restarts.
 * 3. Where the owner can be reached it is also told, in the data: the row of `understudy_owner` names the new owner. Every
 *    transaction of the service takes the advisory lock of that row shared and looks at it; the fence takes it alone. So
 *    every write was either committed before the fence, or sees it. This spares callers the unknown outcomes; the
 *    promise does not rest on it.
 *
 * A lease by the clock was considered and left out: it would be safe only with a bound on how wrong the clocks are, and on
 * how long a process may be paused between looking at its lease and acknowledging. 1 and 2 need neither.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client, DatabaseError } from 'pg';
import { CellDataClient, DataRefusedError, DataUnreachableError, type DataCell, type TlsOf } from './contract';
import type { DataSync, Fenced, Lag, LagLimit, Ownership, Promoted } from './data-sync';
import { databaseUrl, inSession } from './postgres-session';

export interface PostgresOptions {
  tlsOf?: TlsOf | undefined;
  /** User, password and name of the database; the host is each cell's own. */
  url: string;
  path: string;
  limit: LagLimit;
}

/** The key of the advisory lock that transactions of the service take shared and a fence takes alone. */
export const ownerLock = 7_236_451;

export const ownerTable = `
  create table if not exists understudy_owner (
    id int primary key default 1 check (id = 1),
    epoch int not null,
    cell text not null,
    address text not null,
    port int not null,
    -- The synthetic cell that has had every acknowledged write since this was written.
    secured text
  )`;

export interface OwnerRow {
  epoch: number;
  cell: string;
  secured: string | null;
}

interface Server {
  isReplica: boolean;
  row: OwnerRow | null;
}

const lookTimeoutMs = 2_000;
const fenceTimeoutMs = 3_000;
const secureTimeoutMs = 15_000;
const promoteTimeoutMs = 40_000;
const forgetTimeoutMs = 10_000;
/** SQLSTATE object_in_use. */
const slotIsActive = '55006';
/** How long a fence that the owner committed may take to arrive where it is promoted. */
const fenceArrivesMs = 2_000;
const nobody = 'understudy_nobody';

export class PostgresReplica implements DataSync {
  readonly kind = 'postgres';
  readonly livesInCells = true;
  readonly limit: LagLimit;
  private readonly cells: CellDataClient;

  constructor(private readonly options: PostgresOptions) {
    this.limit = options.limit;
    this.cells = new CellDataClient(options.path, lookTimeoutMs, options.tlsOf);
  }

  async lag(cell: DataCell, owner: DataCell): Promise<Lag> {
    const ofOwner = await this.on(owner, lookTimeoutMs, async (client) => ({
      end: await endOfWal(client),
      sends: await sendsTo(client, cell.name),
    })).catch(() => null);
    const { isReplica, replayed, ageS } = await this.on(cell, lookTimeoutMs, replayState);
    if (!isReplica) throw new DataUnreachableError(`${cell.name} is no replica`);
    if (ofOwner === null) {
      // Nobody knows how far a dead owner had come. A secured replica has all that was acknowledged, whatever that was.
      const { row } = await this.on(cell, lookTimeoutMs, serverState);
      if (row?.secured === cell.name) return { behind: 0, unit: 'bytes', seconds: null };
      throw new DataUnreachableError(`${owner.name} does not answer, and ${cell.name} was never secured`);
    }
    // Positions say nothing of a replica of another: a former owner's may be ahead of its successor's.
    if (!ofOwner.sends)
      throw new DataUnreachableError(`${cell.name} is not connected to ${owner.name}, nor follows it`);
    const behind = Math.max(0, ofOwner.end - replayed);
    return { behind, unit: 'bytes', seconds: behind === 0 ? 0 : ageS };
  }

  async follow(cell: DataCell, owner: DataCell): Promise<void> {
    const { database, epoch, role } = await this.cells.state(owner);
    // Whoever follows throws away what it has.
    if (role !== 'owner') throw new DataUnreachableError(`${owner.name} is ${role}: nobody is to follow it`);
    if (database === undefined) throw new DataUnreachableError(`${owner.name} does not say where its database is`);
    await this.cells.order(cell, { what: 'follow', epoch, owner: database });
  }

  async isFollowing(cell: DataCell, owner: DataCell): Promise<boolean> {
    return this.on(owner, lookTimeoutMs, (client) => sendsTo(client, cell.name));
  }

  /** See 1 above. A setting is not believed to be in force because it was written: a commit is seen to wait for it. */
  async secure(to: DataCell, owner: DataCell): Promise<void> {
    const isSecured = await this.on(to, lookTimeoutMs, serverState).then(({ row }) => row?.secured === to.name);
    const url = await this.urlOf(owner).catch((error: unknown) => {
      // A dead owner acknowledges nothing more, and the replica has what it did.
      if (!isSecured) throw error;
      return null;
    });
    if (url === null) return;
    try {
      await inSession(url, secureTimeoutMs, async (admin) => {
        const names = await standbyNames(admin);
        const { row } = await serverState(admin);
        if (row?.secured === to.name && names === standbyName(to.name)) return;
        await setStandby(admin, nobody);
        await inSession(url, secureTimeoutMs, async (prober) => {
          await untilCommitsWait(admin, prober);
          // Set straight from one name to the other: commits wait all the time.
          await setStandby(admin, to.name);
        });
        // Committed only once the replica has it, and by then it has all before it: the replica knows it by this row.
        await admin.query('update understudy_owner set secured = $1', [to.name]);
      });
    } catch (error) {
      if (!isSecured || !(error instanceof DataUnreachableError)) throw error;
    }
  }

  /** First the replica hears that it is secured no longer, then the owner stops to wait: never the other way round. */
  async release(owner: DataCell, from: DataCell, forGood: boolean): Promise<void> {
    const isWaiting = await this.on(owner, lookTimeoutMs, standbyNames).then(
      (names) => names === standbyName(from.name),
    );
    if (!isWaiting) return;
    await this.on(owner, fenceTimeoutMs, (client) => client.query('update understudy_owner set secured = null')).catch(
      (error: unknown) => {
        if (!forGood) throw error;
      },
    );
    await this.on(owner, lookTimeoutMs, (client) => setStandby(client, null));
  }

  /** Its replication slot: without anybody to read it the server would keep all WAL from there on. */
  async forget(at: DataCell, ended: DataCell): Promise<void> {
    const slot = slotName(ended.name);
    await this.on(at, forgetTimeoutMs, async (client) => {
      for (;;) {
        const found = await one<{ pid: number | null }>(
          client,
          `select active_pid as pid from pg_replication_slots where slot_name = '${slot}' and slot_type = 'physical'`,
        );
        if (!found) return;
        // The server may not have noticed yet that nobody is at the other end.
        if (found.pid !== null) await client.query('select pg_terminate_backend($1, 1000)', [found.pid]);
        // Whoever is there all the same may have come back in between.
        await client.query('select pg_drop_replication_slot($1)', [slot]).catch((error: DatabaseError) => {
          if (error.code !== slotIsActive) throw error;
        });
      }
    });
  }

  async fence(owner: DataCell, to: DataCell, epoch: number): Promise<Fenced> {
    const [at] = to.instances;
    try {
      const acknowledged = await this.on(owner, fenceTimeoutMs, async (client) => {
        await client.query(`set lock_timeout = '${lookTimeoutMs}ms'`);
        await client.query('begin');
        await client.query('select pg_advisory_xact_lock($1)', [ownerLock]);
        await client.query(
          'update understudy_owner set epoch = $1, cell = $2, address = $3, port = $4 where epoch < $1',
          [epoch, to.name, at?.address, at?.port],
        );
        await client.query('commit');
        return endOfWal(client);
      });
      return { acknowledged, how: `${owner.name} committed at ${acknowledged} that ${to.name} is the owner` };
    } catch (error) {
      const why = (error as Error).message;
      const how = `${owner.name} could not be told (${why}); without ${to.name} as its standby it acknowledges nothing`;
      return { acknowledged: null, how };
    }
  }

  async promote(to: DataCell, epoch: number): Promise<Promoted> {
    const since = performance.now();
    const [at] = to.instances;
    for (const giveUp = Date.now() + fenceArrivesMs; ; await sleep(50)) {
      const { row, isReplica } = await this.on(to, lookTimeoutMs, serverState);
      if (!isReplica || (row?.cell === to.name && row.epoch >= epoch)) break;
      if (Date.now() < giveUp) continue;
      if (row?.secured === to.name) break;
      throw new DataRefusedError(
        `${to.name} was never secured: acknowledged writes may be missing, it is not promoted`,
      );
    }
    const position = await this.on(to, promoteTimeoutMs, async (client) => {
      const { isReplica } = await serverState(client);
      // All WAL that it has received is replayed first.
      if (isReplica) await client.query('select pg_promote(true, 30)');
      if ((await serverState(client)).isReplica) throw new Error(`${to.name} is still a replica after 30 s`);
      const { rowCount } = await client.query(
        `insert into understudy_owner (epoch, cell, address, port) values ($1, $2, $3, $4)
         on conflict (id) do update set epoch = $1, cell = $2, address = $3, port = $4, secured = null
         where understudy_owner.epoch < $1 or (understudy_owner.epoch = $1 and understudy_owner.cell = $2)`,
        [epoch, to.name, at?.address, at?.port],
      );
      if (rowCount === 0) throw new DataRefusedError(`${to.name} has seen a later epoch than ${epoch}`);
      return endOfWal(client);
    });
    return { position, tookMs: performance.now() - since };
  }

  async readBack(to: DataCell, epoch: number): Promise<string> {
    const { isReplica, row } = await this.on(to, lookTimeoutMs, serverState);
    if (isReplica || row?.cell !== to.name || row.epoch !== epoch) {
      const words = `${isReplica ? 'a replica' : 'a primary'} that names ${row?.cell ?? 'nobody'} in epoch ${row?.epoch ?? 0}`;
      throw new Error(`the database of ${to.name} is ${words}, not its owner in epoch ${epoch}`);
    }
    return `the database of ${to.name} is a primary and names it the owner in epoch ${epoch}`;
  }

  isWriting(owner: DataCell): Promise<boolean> {
    return this.cells.isOwner(owner);
  }

  async ownership(cells: readonly DataCell[]): Promise<Ownership> {
    const answers = await Promise.allSettled(cells.map((cell) => this.on(cell, lookTimeoutMs, serverState)));
    const servers = answers.map((answer) => (answer.status === 'fulfilled' ? answer.value : null));
    const rows = servers.flatMap((server) => (server?.row ? [server.row] : []));
    if (rows.length > 0) {
      const { epoch, cell } = rows.reduce((a, b) => (b.epoch > a.epoch ? b : a));
      const own = servers[cells.findIndex(({ name }) => name === cell)];
      const isPromoted = own && !own.isReplica && own.row?.cell === cell && own.row.epoch === epoch;
      // Of an owner that does not answer only a former one can tell that it was named and perhaps not promoted.
      const isNamedByFormer = servers.some(
        (it) => it && !it.isReplica && it.row?.cell === cell && it.row.epoch === epoch,
      );
      return { epoch, owner: cell, isUnfinished: own ? !isPromoted : isNamedByFormer };
    }
    const failed = answers.find((answer) => answer.status === 'rejected');
    if (failed) throw failed.reason;
    return { epoch: 0, owner: null };
  }

  async close(): Promise<void> {}

  private async urlOf(cell: DataCell): Promise<string> {
    return databaseUrl(cell, await this.cells.state(cell), this.options.url);
  }

  private async on<T>(cell: DataCell, timeoutMs: number, work: (client: Client) => Promise<T>): Promise<T> {
    return inSession(await this.urlOf(cell), timeoutMs, work);
  }
}

async function one<R extends object>(client: Client, sql: string): Promise<R | undefined> {
  return (await client.query<R>(sql)).rows[0];
}

async function serverState(client: Client): Promise<Server> {
  const state = await one<{ replica: boolean; known: boolean }>(
    client,
    `select pg_is_in_recovery() as replica, to_regclass('understudy_owner') is not null as known`,
  );
  const row = state!.known
    ? await one<OwnerRow>(client, 'select epoch, cell, secured from understudy_owner')
    : undefined;
  return { isReplica: state!.replica, row: row ?? null };
}

/** Bytes since the beginning of all WAL; both ends of a lag are counted so. */
async function endOfWal(client: Client): Promise<number> {
  return Number((await one<{ at: string }>(client, `select pg_current_wal_insert_lsn() - '0/0' as at`))!.at);
}

async function replayState(client: Client): Promise<{ isReplica: boolean; replayed: number; ageS: number | null }> {
  const found = await one<{ replica: boolean; at: string | null; age: number | null }>(
    client,
    `select pg_is_in_recovery() as replica, pg_last_wal_replay_lsn() - '0/0' as at,
       extract(epoch from clock_timestamp() - pg_last_xact_replay_timestamp())::float as age`,
  );
  return { isReplica: found!.replica, replayed: Number(found!.at ?? 0), ageS: found!.age };
}

async function sendsTo(client: Client, cell: string): Promise<boolean> {
  const found = await client.query(
    `select from pg_stat_replication where application_name = $1 and state in ('catchup', 'streaming')`,
    [cell],
  );
  return found.rowCount !== 0;
}

/** Of the cell, at whomever it follows. */
export const slotName = (cell: string) => cell.replaceAll(/[^a-z0-9_]/g, '_');

const standbyName = (cell: string) => `"${cell.replaceAll('"', '')}"`;

async function standbyNames(client: Client): Promise<string> {
  const sql = `select setting as names from pg_settings where name = 'synchronous_standby_names'`;
  return (await one<{ names: string }>(client, sql))!.names;
}

async function setStandby(client: Client, name: string | null): Promise<void> {
  const names = name === null ? '' : standbyName(name).replaceAll("'", '');
  await client.query(`alter system set synchronous_standby_names = '${names}'`);
  await client.query('select pg_reload_conf()');
}

/**
 * Returns with the prober's commit waiting for a standby that does not exist. What decides whether a commit waits is in
 * shared memory, set by the checkpointer a moment after the reload; only a commit that waits shows that it is set.
 */
async function untilCommitsWait(admin: Client, prober: Client): Promise<void> {
  const { pid } = (await one<{ pid: number }>(prober, 'select pg_backend_pid() as pid'))!;
  for (let isOver = true; ;) {
    if (isOver) {
      isOver = false;
      const probe = prober.query(`select pg_logical_emit_message(true, 'understudy', 'does this commit wait?')`);
      probe.then(
        () => (isOver = true),
        () => undefined,
      );
    }
    const waiting = await admin.query(`select from pg_stat_activity where pid = $1 and wait_event = 'SyncRep'`, [pid]);
    if (waiting.rowCount === 1) return;
    await sleep(10);
  }
}
