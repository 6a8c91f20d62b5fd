/** The Configuration Data Store: services, cells, blueprints, splits and dossiers in Postgres. */
import { Kysely, Migrator, PostgresDialect, sql } from 'kysely';
import type { Pool } from 'pg';
import type { Decision } from '../workflows/decisions';
import type { Dossier } from '../workflows/messages';
import { appliedChange, changeTraffic } from './change-traffic';
import { applyDocuments, documentPlace, type PlaceOf } from './apply-documents';
import { AuditTable } from './audit';
import { cellStarts, recordStart, recordWarmUp } from './cell-starts';
import { ChangeFeed, notify, type ChangeListener } from './change-feed';
import { openPool, type ConnectOptions } from './connection';
import { newestDecisions, publishDecisions, recordDecisions } from './decision-log';
import { enterLedger, ledgerEntry, ledgerLines, type LedgerLine } from './ledger';
import { fleetStop, resumeFleet, stopFleet } from './fleet-stop';
import { lastLook, saveLook, type Looked, type Looks } from './looks';
import { migrations } from './migrations';
import {
  RefusedError,
  type AppliedChange,
  type BlueprintVersion,
  type CellRecord,
  type CellRest,
  type CellStart,
  type CellState,
  type DocumentChange,
  type FleetStop,
  type ServiceRecord,
  type SplitLease,
  type StartedFrom,
  type TrafficChange,
  type TrafficState,
} from './records';
import { blueprintAgeMs, pastFailovers, type PastRun } from './past-failovers';
import { policySchema, type Document, type Instance } from './schema';
import { OpenSteps } from './open-steps';
import { holdingsChannel, ReplicaTable } from './replicas';
import { expiredLeases, renewLease, splitLeaseOf } from './split-leases';
import {
  acquireSyntheticCell,
  beginRetirement,
  restCell,
  whileUnknown,
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
  /** Null: it does not rest any more. */
  rest?: null;
  /** Its processes have been started, and were all ready after so long. */
  started?: { from: StartedFrom; readyMs: number };
  /** A run of its warm-up plan has ended. */
  warmedUp?: { tookMs: number; isWarm: boolean };
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
  /** The epoch that this change took back because proxies refused it. */
  revertsEpoch: number | null;
}

export class ConfigurationStore {
  private readonly db: Kysely<Tables>;
  private readonly feed: ChangeFeed;
  private readonly holdingsFeed: ChangeFeed;
  /** The control planes over this store. */
  readonly replicas: ReplicaTable;

  /** Steps whose proxies have not all answered yet. */
  readonly steps: OpenSteps;

  /** Who asked what, what was changed, and what became of it at the proxies. */
  readonly audit: AuditTable;

  private constructor(pool: Pool, url: string) {
    this.db = new Kysely<Tables>({ dialect: new PostgresDialect({ pool }) });
    this.audit = new AuditTable(this.db);
    this.feed = new ChangeFeed(url);
    this.holdingsFeed = new ChangeFeed(url, holdingsChannel);
    this.replicas = new ReplicaTable(this.db);
    this.steps = new OpenSteps(this.db);
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
    await this.holdingsFeed.close();
    await this.db.destroy();
  }

  /** Calls the listener with the service that changed, or null when any may have. Answers how to stop listening. */
  onChange(listener: ChangeListener): () => void {
    return this.feed.add(listener);
  }

  /** Calls the listener when a control plane said anew what its proxies hold of a service, null: when any may have. */
  onHoldings(listener: ChangeListener): () => void {
    return this.holdingsFeed.add(listener);
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
   * state the first call made. StaleEpochError: somebody was faster. FleetStoppedError: no automatic change is made
   * now. RefusedError: such a split cannot be.
   */
  async changeTraffic(change: TrafficChange): Promise<AppliedChange> {
    return this.db.transaction().execute((trx) => changeTraffic(trx, change));
  }

  /** What a change with this key made before, and what took it back since; undefined if there was none. */
  async appliedChange(service: string, idempotencyKey: string): Promise<AppliedChange | undefined> {
    return appliedChange(this.db, service, idempotencyKey);
  }

  /** Stops every automatic change of every service; splits stay as they are. The first stop stays. */
  async stopFleet(by: string, reason: string): Promise<FleetStop> {
    return this.db.transaction().execute((trx) => stopFleet(trx, by, reason));
  }

  /** Answers the stop that it ended, if there was one. */
  async resumeFleet(by: string, reason: string): Promise<FleetStop | undefined> {
    return this.db.transaction().execute((trx) => resumeFleet(trx, by, reason));
  }

  async fleetStop(): Promise<FleetStop | undefined> {
    return fleetStop(this.db);
  }

  /** Extends the lease on a service's split. LeaseLostError if it is not this holder's any more. */
  async renewLease(service: string, holder: string): Promise<SplitLease> {
    return renewLease(this.db, service, holder);
  }

  async splitLease(service: string): Promise<SplitLease | undefined> {
    return splitLeaseOf(this.db, service);
  }

  async expiredLeases(): Promise<SplitLease[]> {
    return expiredLeases(this.db);
  }

  /** The newest changes of a service's split first; with `afterEpoch` those that are newer, the oldest of them first. */
  async splitChanges(service: string, limit = 100, afterEpoch?: number): Promise<SplitChange[]> {
    let query = this.db.selectFrom('split_changes').selectAll().where('service', '=', service).limit(limit);
    if (afterEpoch === undefined) query = query.orderBy('epoch', 'desc');
    else query = query.where('epoch', '>', String(afterEpoch)).orderBy('epoch', 'asc');
    return (await query.execute()).map((row) => ({
      ...trafficState(row),
      reason: row.reason,
      by: row.by,
      idempotencyKey: row.idempotency_key,
      at: row.at.toISOString(),
      revertsEpoch: row.reverts === null ? null : Number(row.reverts),
    }));
  }

  /**
   * A synthetic cell for this failover: the one it owns, else an idle one of the same service and blueprint version, else
   * one that is being made for the pool, else a new row in state `provisioning`. Asked again, it answers the same cell.
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
          ...(change.rest !== undefined && { rest: change.rest }),
          name,
        })
        .where('name', '=', name)
        .returningAll()
        .executeTakeFirstOrThrow();
      if (change.started) await recordStart(trx, after, change.started);
      if (change.warmedUp) await recordWarmUp(trx, after, change.warmedUp);
      await notify(trx, before.service);
      return cellRecord(after);
    });
  }

  /**
   * Lets go of a synthetic cell: `idle`, nobody's. Refused while the split gives it a share. If the cell is no longer
   * `owner`'s, that has been done before: answered is what is there, undefined if the cell has been retired since.
   * `rest`: how it lies, for people and for whoever wakes it.
   */
  async restCell(name: string, owner: string | null, rest?: CellRest): Promise<CellRecord | undefined> {
    return this.db.transaction().execute((trx) => restCell(trx, name, owner, rest));
  }

  /** How long the latest starts of synthetic cells of this version of a blueprint took, the newest first. */
  async cellStarts(blueprint: { name: string; version: number }): Promise<CellStart[]> {
    return cellStarts(this.db, blueprint);
  }

  /**
   * Marks a synthetic cell as being retired, after which no split can name it and no failover can have it. Refused
   * while the split names it, or while somebody other than `owner` owns it. Undefined if there is no such cell.
   */
  async beginRetirement(name: string, owner: string | null): Promise<CellRecord | undefined> {
    return this.db.transaction().execute((trx) => beginRetirement(trx, name, owner));
  }

  /** Does the work unless the store knows the cell or a split names it, and keeps both so meanwhile. Answers why not. */
  async whileUnknown(
    subject: { cell: string; service: string },
    work: () => Promise<void>,
  ): Promise<string | undefined> {
    return this.db.transaction().execute(async (trx) => await whileUnknown(trx, subject, work));
  }

  /** Does the work while nobody else does any of this name, in any process. */
  async oneAtATime<T>(name: string, work: () => Promise<T>): Promise<T> {
    return this.db.transaction().execute(async (trx) => {
      await sql`select pg_advisory_xact_lock(hashtextextended(${name}, 0))`.execute(trx);
      return work();
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

  /** Keeps what a look at the cells found, in the place of the last one of its kind. */
  async saveLook<K extends keyof Looks>(kind: K, found: Looks[K]): Promise<void> {
    await saveLook(this.db, kind, found);
  }

  async lastLook<K extends keyof Looks>(kind: K): Promise<Looked<K> | undefined> {
    return lastLook(this.db, kind);
  }

  /** The dossier of one run of a failover, or of its newest run. */
  async dossier(failover: string, runId?: string): Promise<Dossier | undefined> {
    let query = this.db.selectFrom('dossiers').select('dossier').where('failover', '=', failover);
    if (runId !== undefined) query = query.where('run_id', '=', runId);
    return (await query.orderBy('started_at', 'desc').limit(1).executeTakeFirst())?.dossier;
  }

  /** Failovers of a service that began since then (ISO 8601) and have ended, the newest first. */
  async pastFailovers(service: string, since: string): Promise<PastRun[]> {
    return pastFailovers(this.db, service, since);
  }

  /** Milliseconds since this version of a blueprint was applied; null if there is none. */
  async blueprintAgeMs(name: string, version: number): Promise<number | null> {
    return blueprintAgeMs(this.db, name, version);
  }

  /** The newest first. */
  async dossiers(limit = 100): Promise<Dossier[]> {
    const query = this.db.selectFrom('dossiers').select('dossier').orderBy('started_at', 'desc').limit(limit);
    return (await query.execute()).map((row) => row.dossier);
  }
}
