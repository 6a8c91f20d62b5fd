/** The append-only table of who asked what, what was changed, and what became of it at the proxies. */
import type { Kysely, Selectable } from 'kysely';
import type { CellShare } from './records';
import { jsonb, type Tables } from './tables';

/**
 * `request`: a change was asked for over the traffic API, and answered. `split`: a service's split was changed in the
 * store; written by the database itself. `publish`: a control plane brought a service's present state to its proxies.
 */
export type AuditKind = 'request' | 'split' | 'publish';

/** What became of a publication, by node id. */
export interface PublishOutcome {
  acknowledged: string[];
  refused: { node: string; resource: string; reason: string }[];
  pending: string[];
  gone: string[];
  tookMs: number;
}

export interface AuditRecord {
  kind: AuditKind;
  service: string | null;
  epoch?: number | null;
  /** Who says to have wanted it: a workflow id or a person. */
  by?: string | null;
  /** Who it was, as authenticated by certificate. */
  identity?: string | null;
  reason?: string | null;
  from?: CellShare[] | null;
  to?: CellShare[] | null;
  /** Of a request, the name of its gRPC status; of a publication, `acknowledged`, `refused` or `incomplete`. */
  outcome?: string | null;
  details?: Record<string, unknown>;
}

export interface AuditEntry extends Required<AuditRecord> {
  id: number;
  /** ISO 8601, by the database's clock. */
  at: string;
}

export class AuditTable {
  constructor(private readonly db: Kysely<Tables>) {}

  async add(record: AuditRecord): Promise<void> {
    const { kind, service, epoch, by, identity, reason, from, to, outcome, details } = record;
    await this.db
      .insertInto('audit')
      .values({
        kind,
        service,
        epoch: epoch ?? null,
        by: by ?? null,
        identity: identity || null,
        reason: reason ?? null,
        from_split: from ? jsonb(from) : null,
        to_split: to ? jsonb(to) : null,
        outcome: outcome ?? null,
        details: jsonb(details ?? {}),
      })
      .execute();
  }

  /** The newest first. */
  async list({ service, limit = 100 }: { service?: string | undefined; limit?: number } = {}): Promise<AuditEntry[]> {
    let query = this.db.selectFrom('audit').selectAll().orderBy('id', 'desc').limit(limit);
    if (service !== undefined) query = query.where('service', '=', service);
    return (await query.execute()).map(entryOf);
  }
}

function entryOf(row: Selectable<Tables['audit']>): AuditEntry {
  return {
    id: Number(row.id),
    at: row.at.toISOString(),
    kind: row.kind,
    service: row.service,
    epoch: row.epoch === null ? null : Number(row.epoch),
    by: row.by,
    identity: row.identity,
    reason: row.reason,
    from: row.from_split,
    to: row.to_split,
    outcome: row.outcome,
    details: row.details,
  };
}
