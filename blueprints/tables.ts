/** The tables of the store as the query builder sees them, and the way from a row to a record. */
import { sql, type ColumnType, type Generated, type RawBuilder, type Selectable } from 'kysely';
import type { Decision } from '../workflows/decisions';
import type { Dossier, Outcome } from '../workflows/messages';
import type { LedgerEntry, LedgerLabel } from './ledger';
import type { AuditKind } from './audit';
import type {
  BlueprintVersion,
  CellRecord,
  CellRest,
  CellRole,
  CellShare,
  CellState,
  ProxyRefusal,
  RequestHashes,
  ServiceRecord,
  StartedFrom,
  TrafficState,
} from './records';
import {
  blueprintSchema,
  serviceSchema,
  type BlueprintDocument,
  type CellDocument,
  type Instance,
  type ServiceDocument,
} from './schema';

type Json<T> = ColumnType<T, RawBuilder<T>, RawBuilder<T>>;
/** Postgres' bigint comes as text; the epochs of one service stay far below 2^53. */
type BigInt = ColumnType<string, number, number>;
type Timestamp = ColumnType<Date, Date | undefined, Date | RawBuilder<Date>>;

export interface Tables {
  services: { name: string; spec: Json<ServiceDocument>; updated_at: Timestamp };
  blueprints: { name: string; version: number; spec: Json<BlueprintDocument>; created_at: Timestamp };
  cells: {
    name: string;
    service: string;
    role: CellRole;
    zone: string;
    blueprint_name: string;
    blueprint_version: number;
    state: CellState;
    state_since: Timestamp;
    instances: Json<Instance[]>;
    source_cell: Generated<string | null>;
    owner: Generated<string | null>;
    document: ColumnType<CellDocument | null, RawBuilder<CellDocument> | undefined, RawBuilder<CellDocument>>;
    rest: ColumnType<CellRest | null, undefined, RawBuilder<CellRest> | null>;
  };
  cell_starts: {
    id: Generated<string>;
    blueprint_name: string;
    blueprint_version: number;
    cell: string;
    started_from: StartedFrom;
    ready_ms: number;
    warm_ms: Generated<number>;
    is_warm: Generated<boolean>;
    at: ColumnType<Date, never, never>;
  };
  traffic: { service: string; epoch: BigInt; split: Json<CellShare[]> };
  split_changes: {
    service: string;
    epoch: BigInt;
    split: Json<CellShare[]>;
    reason: string;
    by: string;
    idempotency_key: string;
    at: Timestamp;
    reverts: ColumnType<string | null, number | null | undefined, never>;
    evidence: ColumnType<ProxyRefusal[] | null, RawBuilder<ProxyRefusal[]> | null | undefined, never>;
    request: ColumnType<RequestHashes | null, RawBuilder<RequestHashes> | undefined, never>;
  };
  audit: {
    id: Generated<string>;
    at: ColumnType<Date, never, never>;
    kind: AuditKind;
    service: string | null;
    epoch: ColumnType<string | null, number | null, never>;
    by: string | null;
    identity: string | null;
    reason: string | null;
    from_split: ColumnType<CellShare[] | null, RawBuilder<CellShare[]> | null, never>;
    to_split: ColumnType<CellShare[] | null, RawBuilder<CellShare[]> | null, never>;
    outcome: string | null;
    details: ColumnType<Record<string, unknown>, RawBuilder<Record<string, unknown>>, never>;
  };
  replicas: { id: string; started_at: Timestamp; heartbeat_at: Timestamp; proxies: Json<string[]> };
  replica_holdings: {
    replica: string;
    service: string;
    epoch: BigInt;
    acknowledged: Json<string[]>;
    refused: Json<ProxyRefusal[]>;
    pending: Json<string[]>;
  };
  replica_loads: { replica: string; service: string; at: Timestamp; loads: Json<unknown> };
  split_leases: {
    service: string;
    epoch: BigInt;
    holder: string;
    duration_ms: number;
    expires_at: ColumnType<Date, RawBuilder<Date>, RawBuilder<Date>>;
  };
  open_steps: { service: string; epoch: BigInt; replica: string; override: boolean };
  fleet: {
    singleton: boolean;
    stopped_at: ColumnType<Date | null, never, RawBuilder<Date> | null>;
    by: string | null;
    reason: string | null;
  };
  fleet_orders: { at: Timestamp; order: 'stop' | 'resume'; by: string; reason: string };
  dossiers: { failover: string; run_id: string; started_at: ColumnType<Date, string, string>; dossier: Json<Dossier> };
  looks: { kind: string; at: Timestamp; found: Json<unknown> };
  decisions: {
    seq: Generated<string>;
    id: string;
    service: string;
    cell: string;
    at: ColumnType<Date, string, string>;
    decision: Json<Decision>;
    published_at: ColumnType<Date | null, undefined, RawBuilder<Date>>;
  };
  ledger: {
    kind: LedgerEntry['kind'];
    id: string;
    service: string;
    cell: string;
    at: ColumnType<Date, string, string>;
    outcome: Outcome | null;
    label: LedgerLabel | null;
    averted_minutes: number;
    expected_minutes: number;
    false_alarm: boolean;
    standby_cell_hours: number;
  };
}

/** A value for a jsonb column. The driver would turn a plain array into a Postgres array. */
export function jsonb<T>(value: T): RawBuilder<T> {
  return sql<T>`${JSON.stringify(value)}::jsonb`;
}

/** Stored documents are read through their schema, so that a setting added later has its default. */
export function serviceRecord(row: Pick<Selectable<Tables['services']>, 'name' | 'spec'>): ServiceRecord {
  return { name: row.name, spec: serviceSchema.parse(row.spec) };
}

export function blueprintVersion(
  row: Pick<Selectable<Tables['blueprints']>, 'name' | 'version' | 'spec'>,
): BlueprintVersion {
  return { name: row.name, version: row.version, spec: blueprintSchema.parse(row.spec) };
}

export function cellRecord(row: Selectable<Tables['cells']>): CellRecord {
  return {
    name: row.name,
    service: row.service,
    role: row.role,
    zone: row.zone,
    blueprint: { name: row.blueprint_name, version: row.blueprint_version },
    state: row.state,
    instances: row.instances,
    sourceCell: row.source_cell,
    owner: row.owner,
    ...(row.rest && { rest: row.rest }),
  };
}

export function trafficState(row: Selectable<Tables['traffic']>): TrafficState {
  return { service: row.service, epoch: Number(row.epoch), split: row.split };
}
