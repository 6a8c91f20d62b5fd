/** The Configuration Data Store: services, cells, blueprints, splits and dossiers in Postgres. */
import { Kysely, Migrator, PostgresDialect, sql } from 'kysely';
import type { Pool } from 'pg';
import type { Decision } from '../workflows/decisions';
import type { Dossier } from '../workflows/messages';
import { applyDocuments, documentPlace, type PlaceOf } from './apply-documents';
import { AuditTable } from './audit';
import { ChangeFeed, notify, type ChangeListener } from './change-feed';
import { openPool, type ConnectOptions } from './connection';
import { newestDecisions, publishDecisions, recordDecisions } from './decision-log';
import { enterLedger, ledgerEntry, ledgerLines, type LedgerLine } from './ledger';
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
import { policySchema, type Document, type Instance } from './schema';
import { splitProblems } from './splits';
import {
  acquireSyntheticCell,
  beginRetirement,
  restCell,
  type AcquiredCell,
  type AcquireSyntheticCell,
} from './synthetic-cells';
import { blueprintVersion, cellRecord, jsonb, serviceRecord, trafficState, type Tables } from './tables';
import { lockTraffic } from './traffic-rows';

export type { ConnectOptions } from './connection';
export type { ChangeListener } from './change-feed';
export type { AcquiredCell, AcquireSyntheticCell } from './synthetic-cells';

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

  /** Who asked what, what was changed, and what became of it at the proxies. */
  readonly audit: AuditTable;

  private constructor(pool: Pool, url: string) {
    this.db = new Kysely<Tables>({ dialect: new PostgresDialect({ pool }) });
    this.audit = new AuditTable(this.db);
    this.feed = new ChangeFeed(url);
  }

  /** Opens the store, waiting until Postgres is there. Call `migrate` before anything else. */
  static async connect(url: string, options: ConnectOptions = {}): Promise<ConfigurationStore> {
    return new ConfigurationStore(await openPool(url, options), url);
  }

  /** Brings the tables up to date. Several processes may do so at once: the migrator takes a lock in the database. */
  async migrate(): Promise<void> {
    const migrator = new Migrator({
      db: this.db,
      provider: { getMigrations: async () => migrations },
      // Parts of the store are made side by side: what another has brought already is no fault.
      allowUnorderedMigrations: true,
    });
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
  async acquireSyntheticCell(request: AcquireSyntheticCell): Promise<AcquiredCell> {
    return this.db.transaction().execute((trx) => acquireSyntheticCell(trx, request));
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
   * Lets go of a synthetic cell: `idle`, nobody's. Refused while the split gives it a share. If the cell is no longer
   * `owner`'s, that has been done before: answered is what is there, undefined if the cell has been retired since.
   */
  async restCell(name: string, owner: string | null): Promise<CellRecord | undefined> {
    return this.db.transaction().execute((trx) => restCell(trx, name, owner));
  }

  /**
   * Marks a synthetic cell as being retired, after which no split can name it and no failover can have it. Refused
   * while the split names it, or while somebody other than `owner` owns it. Undefined if there is no such cell.
   */
  async beginRetirement(name: string, owner: string | null): Promise<CellRecord | undefined> {
    return this.db.transaction().execute((trx) => beginRetirement(trx, name, owner));
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

  /** Keeps a dossier, over an earlier one of the same run; one that has ended is entered into the ledger with it. */
  async saveDossier(dossier: Dossier): Promise<void> {
    const row = { started_at: dossier.startedAt, dossier: jsonb(dossier) };
    const { policy } = (await this.service(dossier.service))?.spec ?? { policy: policySchema.parse({}) };
    const entry = ledgerEntry(dossier, policy);
    await this.db.transaction().execute(async (trx) => {
      await trx
        .insertInto('dossiers')
        .values({ failover: dossier.failover, run_id: dossier.runId, ...row })
        .onConflict((oc) => oc.columns(['failover', 'run_id']).doUpdateSet(row))
        .execute();
      if (entry) await enterLedger(trx, entry);
    });
  }

  /** What failovers were worth and cost, by service and month, the newest first. */
  async ledger(service?: string): Promise<LedgerLine[]> {
    return ledgerLines(this.db, service);
  }

  /** Keeps decisions for publication; one that is kept already stays as it is. */
  async recordDecisions(decisions: readonly Decision[]): Promise<void> {
    await recordDecisions(this.db, decisions);
  }

  /** Hands the oldest unpublished decisions over, and marks them once `publish` has returned. Answers how many. */
  async publishDecisions(publish: (decisions: Decision[]) => Promise<void>, limit = 200): Promise<number> {
    return this.db.transaction().execute((trx) => publishDecisions(trx, publish, limit));
  }

  /** The newest first. */
  async decisions(service?: string, limit = 100): Promise<Decision[]> {
    return newestDecisions(this.db, service, limit);
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
