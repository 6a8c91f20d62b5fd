/** The Configuration Data Store: services, cells, blueprints, splits and dossiers in Postgres. */
import { Kysely, Migrator, PostgresDialect, sql, type Transaction } from 'kysely';
import type { Pool } from 'pg';
import type { Dossier } from '../workflows/messages';
import { applyDocuments, documentPlace, type PlaceOf } from './apply-documents';
import { changeChannel, ChangeFeed, type ChangeListener } from './change-feed';
import { openPool, type ConnectOptions } from './connection';
import { migrations } from './migrations';
import {
  RefusedError,
  StaleEpochError,
  type AppliedChange,
  type BlueprintVersion,
  type CellRecord,
  type CellState,
  type DocumentChange,
  type ServiceRecord,
  type TrafficChange,
  type TrafficState,
} from './records';
import type { Document, Instance } from './schema';
import { safeSplit, splitProblems } from './splits';
import { blueprintVersion, cellRecord, jsonb, serviceRecord, trafficState, type Tables } from './tables';

export type { ConnectOptions } from './connection';
export type { ChangeListener } from './change-feed';

export interface AcquireSyntheticCell {
  /** The failover (workflow id) that is going to own the cell. */
  failover: string;
  /** The cell to stand in for. */
  source: string;
  blueprint: { name: string; version: number };
}

export interface AcquiredCell {
  cell: CellRecord;
  /** `owned`: this failover had it already. `idle`: an idle one was taken over. `created`: a new row. */
  from: 'owned' | 'idle' | 'created';
}

export interface CellChange {
  state?: CellState;
  instances?: Instance[];
  owner?: string | null;
}

export interface IdleCell {
  cell: CellRecord;
  /** Seconds the cell has been idle, by the database's clock. */
  idleForS: number;
}

/** One line of a service's traffic history. */
export interface SplitChange extends TrafficState {
  reason: string;
  by: string;
  idempotencyKey: string;
  /** ISO 8601, by the database's clock. */
  at: string;
}

export class ConfigurationStore {
  private readonly db: Kysely<Tables>;
  private readonly feed: ChangeFeed;

  private constructor(pool: Pool, url: string) {
    this.db = new Kysely<Tables>({ dialect: new PostgresDialect({ pool }) });
    this.feed = new ChangeFeed(url);
  }

  /** Opens the store, waiting until Postgres is there. Call `migrate` before anything else. */
  static async connect(url: string, options: ConnectOptions = {}): Promise<ConfigurationStore> {
    return new ConfigurationStore(await openPool(url, options), url);
  }

  /** Brings the tables up to date. Several processes may do so at once: the migrator takes a lock in the database. */
  async migrate(): Promise<void> {
    const migrator = new Migrator({ db: this.db, provider: { getMigrations: async () => migrations } });
    const { error } = await migrator.migrateToLatest();
    if (error instanceof Error) throw error;
    if (error !== undefined) throw new Error('The tables could not be brought up to date.', { cause: error });
  }

  async close(): Promise<void> {
    await this.feed.close();
    await this.db.destroy();
  }

  /** Calls the listener with the service that changed, or null when any may have. Answers how to stop listening. */
  onChange(listener: ChangeListener): () => void {
    return this.feed.add(listener);
  }

  async services(): Promise<ServiceRecord[]> {
    return (await this.db.selectFrom('services').selectAll().orderBy('name').execute()).map(serviceRecord);
  }

  async service(name: string): Promise<ServiceRecord | undefined> {
    const row = await this.db.selectFrom('services').selectAll().where('name', '=', name).executeTakeFirst();
    return row && serviceRecord(row);
  }

  async cells(service?: string): Promise<CellRecord[]> {
    let query = this.db.selectFrom('cells').selectAll().orderBy('name');
    if (service !== undefined) query = query.where('service', '=', service);
    return (await query.execute()).map(cellRecord);
  }

  async cell(name: string): Promise<CellRecord | undefined> {
    const row = await this.db.selectFrom('cells').selectAll().where('name', '=', name).executeTakeFirst();
    return row && cellRecord(row);
  }

  /** A version of a blueprint; the newest if none is named. */
  async blueprint(name: string, version?: number): Promise<BlueprintVersion | undefined> {
    let query = this.db.selectFrom('blueprints').selectAll().where('name', '=', name);
    if (version !== undefined) query = query.where('version', '=', version);
    const row = await query.orderBy('version', 'desc').limit(1).executeTakeFirst();
    return row && blueprintVersion(row);
  }

  /**
   * Makes the store what the documents say: all of them, or none (RefusedError with every reason, one per line).
   * `placeOf` names a place within them for people; by default document number, kind, name and path.
   */
  async apply(documents: Document[], placeOf: PlaceOf = documentPlace(documents)): Promise<DocumentChange[]> {
    return this.db.transaction().execute((trx) => applyDocuments(trx, documents, placeOf));
  }

  /** The service's commanded split; begins as the declared safe one. Undefined for an unknown service. */
  async traffic(service: string): Promise<TrafficState | undefined> {
    const read = this.db.selectFrom('traffic').selectAll().where('service', '=', service);
    const row = await read.executeTakeFirst();
    if (row) return trafficState(row);
    return this.db.transaction().execute(async (trx) => await lockTraffic(trx, service));
  }

  /**
   * Replaces a service's split if the epoch is still the expected one. The same idempotency key again answers with the
   * state the first call made. StaleEpochError: somebody was faster. RefusedError: such a split cannot be.
   */
  async changeTraffic(change: TrafficChange): Promise<AppliedChange> {
    const { service, split, reason, by, idempotencyKey } = change;
    return this.db.transaction().execute(async (trx) => {
      const current = await lockTraffic(trx, service);
      if (!current) throw new RefusedError(`service ${service} is not known`);
      const made = await trx
        .selectFrom('split_changes')
        .select(['service', 'epoch', 'split'])
        .where('service', '=', service)
        .where('idempotency_key', '=', idempotencyKey)
        .executeTakeFirst();
      if (made) return { state: trafficState(made), repeated: true };
      if (current.epoch !== change.expectedEpoch)
        throw new StaleEpochError(service, change.expectedEpoch, current.epoch);
      // Shared locks: a cell that this split names cannot be retired between this check and the commit.
      const cells = await trx.selectFrom('cells').selectAll().where('service', '=', service).forShare().execute();
      const problems = splitProblems(split, cells.map(cellRecord));
      if (problems.length > 0) throw new RefusedError(`service ${service}: ${problems.join('; ')}`);
      const state: TrafficState = {
        service,
        epoch: current.epoch + 1,
        split: split.map(({ cell, shareBp, coverInstances }) => ({ cell, shareBp, coverInstances })),
      };
      await trx
        .updateTable('traffic')
        .set({ epoch: state.epoch, split: jsonb(state.split) })
        .where('service', '=', service)
        .execute();
      await trx
        .insertInto('split_changes')
        .values({ service, epoch: state.epoch, split: jsonb(state.split), reason, by, idempotency_key: idempotencyKey })
        .execute();
      await notify(trx, service);
      return { state, repeated: false };
    });
  }

  /** The newest changes of a service's split first. */
  async splitChanges(service: string, limit = 100): Promise<SplitChange[]> {
    const rows = await this.db
      .selectFrom('split_changes')
      .selectAll()
      .where('service', '=', service)
      .orderBy('epoch', 'desc')
      .limit(limit)
      .execute();
    return rows.map((row) => ({
      ...trafficState(row),
      reason: row.reason,
      by: row.by,
      idempotencyKey: row.idempotency_key,
      at: row.at.toISOString(),
    }));
  }

  /**
   * A synthetic cell for this failover: the one it owns, else an idle one of the same service and blueprint version,
   * else a new row in state `provisioning`. Asked again, it answers the same cell.
   */
  async acquireSyntheticCell({ failover, source, blueprint }: AcquireSyntheticCell): Promise<AcquiredCell> {
    return this.db.transaction().execute(async (trx) => {
      const sourceRow = await trx.selectFrom('cells').selectAll().where('name', '=', source).executeTakeFirst();
      if (!sourceRow) throw new RefusedError(`cell ${source} is not known, so no synthetic cell can stand in for it`);
      if (sourceRow.role === 'synthetic')
        throw new RefusedError(`cell ${source} is itself synthetic: only declared cells have an understudy`);
      const { service, zone } = sourceRow;
      // One acquisition per service at a time: two failovers must not choose the same idle cell or the same name.
      await trx.selectFrom('services').select('name').where('name', '=', service).forNoKeyUpdate().execute();
      const owned = await trx
        .selectFrom('cells')
        .selectAll()
        .where('owner', '=', failover)
        .where('state', '!=', 'retired')
        .forUpdate()
        .executeTakeFirst();
      if (owned) return { cell: cellRecord(owned), from: 'owned' };

      const idle = await trx
        .selectFrom('cells')
        .selectAll()
        .where('service', '=', service)
        .where('role', '=', 'synthetic')
        .where('state', '=', 'idle')
        .where('owner', 'is', null)
        .where('blueprint_name', '=', blueprint.name)
        .where('blueprint_version', '=', blueprint.version)
        .orderBy(sql`source_cell = ${source}`, 'desc')
        .orderBy('name')
        .limit(1)
        .forUpdate()
        .executeTakeFirst();
      if (idle) {
        const taken = await trx
          .updateTable('cells')
          .set({ owner: failover, state: 'provisioning', state_since: sql<Date>`now()`, source_cell: source })
          .where('name', '=', idle.name)
          .returningAll()
          .executeTakeFirstOrThrow();
        await notify(trx, service);
        return { cell: cellRecord(taken), from: 'idle' };
      }

      const taken = new Set((await trx.selectFrom('cells').select('name').execute()).map((row) => row.name));
      const created = await trx
        .insertInto('cells')
        .values({
          name: freeName(source, taken),
          service,
          role: 'synthetic',
          zone,
          blueprint_name: blueprint.name,
          blueprint_version: blueprint.version,
          state: 'provisioning',
          instances: jsonb<Instance[]>([]),
          source_cell: source,
          owner: failover,
        })
        .returningAll()
        .executeTakeFirstOrThrow();
      await notify(trx, service);
      return { cell: cellRecord(created), from: 'created' };
    });
  }

  /**
   * Records where a cell is in its life, where it answers, or who owns it. With `expectedOwner` nothing is changed
   * unless that is the owner: an attempt that was given up on must not write over its successor's cell.
   */
  async updateCell(name: string, change: CellChange, expectedOwner?: string | null): Promise<CellRecord> {
    return this.db.transaction().execute(async (trx) => {
      const before = await trx.selectFrom('cells').selectAll().where('name', '=', name).forUpdate().executeTakeFirst();
      if (!before) throw new RefusedError(`cell ${name} is not known`);
      if (expectedOwner !== undefined && before.owner !== expectedOwner)
        throw new RefusedError(
          `cell ${name} belongs to ${before.owner ?? 'nobody'}, not to ${expectedOwner ?? 'nobody'}`,
        );
      const after = await trx
        .updateTable('cells')
        .set({
          ...(change.state !== undefined && { state: change.state }),
          ...(change.state !== undefined && change.state !== before.state && { state_since: sql<Date>`now()` }),
          ...(change.instances !== undefined && { instances: jsonb(change.instances) }),
          ...(change.owner !== undefined && { owner: change.owner }),
          name,
        })
        .where('name', '=', name)
        .returningAll()
        .executeTakeFirstOrThrow();
      await notify(trx, before.service);
      return cellRecord(after);
    });
  }

  /**
   * Marks a synthetic cell as being retired, after which no split can name it and no failover can have it. Refused
   * while the split names it, or while somebody other than `owner` owns it. Undefined if there is no such cell.
   */
  async beginRetirement(name: string, owner: string | null): Promise<CellRecord | undefined> {
    const found = await this.cell(name);
    if (!found) return undefined;
    return this.db.transaction().execute(async (trx) => {
      const traffic = await lockTraffic(trx, found.service);
      const row = await trx.selectFrom('cells').selectAll().where('name', '=', name).forUpdate().executeTakeFirst();
      if (!row) return undefined;
      if (row.role !== 'synthetic')
        throw new RefusedError(`cell ${name} is declared (${row.role}): it is never retired`);
      if (row.owner !== null && row.owner !== owner)
        throw new RefusedError(`cell ${name} is held by ${row.owner}: it cannot be retired now`);
      const share = traffic?.split.find(({ cell }) => cell === name);
      if (share)
        throw new RefusedError(
          `cell ${name} is in the split of ${row.service} (${share.shareBp} bp, ${share.coverInstances} as cover): take it out first`,
        );
      const retired = await trx
        .updateTable('cells')
        .set({ state: 'retired', owner: null, ...(row.state !== 'retired' && { state_since: sql<Date>`now()` }) })
        .where('name', '=', name)
        .returningAll()
        .executeTakeFirstOrThrow();
      await notify(trx, row.service);
      return cellRecord(retired);
    });
  }

  /** Forgets a retired cell once its provider has nothing left of it. */
  async finishRetirement(name: string): Promise<void> {
    await this.db.deleteFrom('cells').where('name', '=', name).where('state', '=', 'retired').execute();
  }

  /** Synthetic cells that nobody owns and that are idle, the longest idle first. */
  async idleCells(): Promise<IdleCell[]> {
    const rows = await this.db
      .selectFrom('cells')
      .selectAll()
      .select(sql<number>`extract(epoch from now() - state_since)::float8`.as('idle_for_s'))
      .where('role', '=', 'synthetic')
      .where('state', '=', 'idle')
      .where('owner', 'is', null)
      .orderBy('state_since')
      .execute();
    return rows.map((row) => ({ cell: cellRecord(row), idleForS: row.idle_for_s }));
  }

  /** Keeps a dossier, over an earlier one of the same run. */
  async saveDossier(dossier: Dossier): Promise<void> {
    const row = { started_at: dossier.startedAt, dossier: jsonb(dossier) };
    await this.db
      .insertInto('dossiers')
      .values({ failover: dossier.failover, run_id: dossier.runId, ...row })
      .onConflict((oc) => oc.columns(['failover', 'run_id']).doUpdateSet(row))
      .execute();
  }

  /** The dossier of one run of a failover, or of its newest run. */
  async dossier(failover: string, runId?: string): Promise<Dossier | undefined> {
    let query = this.db.selectFrom('dossiers').select('dossier').where('failover', '=', failover);
    if (runId !== undefined) query = query.where('run_id', '=', runId);
    return (await query.orderBy('started_at', 'desc').limit(1).executeTakeFirst())?.dossier;
  }

  /** The newest first. */
  async dossiers(limit = 100): Promise<Dossier[]> {
    const query = this.db.selectFrom('dossiers').select('dossier').orderBy('started_at', 'desc').limit(limit);
    return (await query.execute()).map((row) => row.dossier);
  }
}

/** The split, locked until the transaction ends; made from the declared safe one if it is not there yet. */
async function lockTraffic(trx: Transaction<Tables>, service: string): Promise<TrafficState | undefined> {
  const locked = trx.selectFrom('traffic').selectAll().where('service', '=', service).forUpdate();
  const row = await locked.executeTakeFirst();
  if (row) return trafficState(row);
  const declared = await trx.selectFrom('services').selectAll().where('name', '=', service).executeTakeFirst();
  if (!declared) return undefined;
  await trx
    .insertInto('traffic')
    .values({ service, epoch: 1, split: jsonb(safeSplit(serviceRecord(declared).spec)) })
    .onConflict((oc) => oc.doNothing())
    .execute();
  return trafficState(await locked.executeTakeFirstOrThrow());
}

async function notify(trx: Transaction<Tables>, service: string): Promise<void> {
  await sql`select pg_notify(${changeChannel}, ${service})`.execute(trx);
}

/** `<source>-understudy-<n>` with the smallest free n. A name has at most 63 characters. */
function freeName(source: string, taken: ReadonlySet<string>): string {
  for (let n = 1; ; n += 1) {
    const suffix = `-understudy-${n}`;
    const name = source.slice(0, 63 - suffix.length).replace(/-+$/, '') + suffix;
    if (!taken.has(name)) return name;
  }
}
