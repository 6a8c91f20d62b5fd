/** The expected-cost ledger: what each failover averted, or cost for nothing, entered at its end and summed by month. */
import { sql, type Kysely } from 'kysely';
import type { LabelKind } from '../workflows/label';
import type { Dossier, Outcome } from '../workflows/messages';
import type { Policy } from './schema';
import type { Tables } from './tables';

type Required = 'failover' | 'runId' | 'service' | 'cell';
/** A dossier as it may have been written before it had all that it has now. */
type Older = Pick<Dossier, Required> & Partial<Omit<Dossier, Required>>;

/** What became of the source after the shift; `unknown` where nobody could look. */
export type LedgerLabel = LabelKind;

export interface LedgerEntry {
  /** `takeover`: of a run that a reconciliation started, without any prediction. */
  kind: 'failover' | 'drill' | 'takeover' | 'idle';
  /** Failover and run, or cell and time: entered again, it is the same entry. */
  id: string;
  service: string;
  /** The source; of an idle entry the synthetic cell. */
  cell: string;
  /** ISO 8601: the end. Decides the month. */
  at: string;
  outcome: Outcome | null;
  label: LedgerLabel | null;
  /** Minutes of outage of the whole service, weighted by the share that was kept out of it. */
  avertedMinutes: number;
  /** The same, expected when the synthetic cell took its share: by the probability of the failure, whatever came. */
  expectedMinutes: number;
  falseAlarm: boolean;
  /** For how long a synthetic cell was there, in hours. */
  standbyCellHours: number;
}

/**
 * The entry of a dossier that has ended; null before. One that an older version wrote may lack what came later: what is
 * not there counts nothing, and keeps no dossier from being saved.
 */
export function ledgerEntry(dossier: Dossier, policy: Pick<Policy, 'outageMinutes'>): LedgerEntry | null {
  const { failover, runId, service, cell, endedAt, outcome }: Older = dossier;
  if (!endedAt || !outcome) return null;
  const kind = dossier.drill ? 'drill' : dossier.firstRisk?.model === 'reconciliation' ? 'takeover' : 'failover';
  const isReal = kind === 'failover';
  const label = isReal ? labelOf(dossier) : null;
  const keptOut = largestShare(dossier) / 10_000;
  const wasRight = label === 'confirmed' || label === 'averted';
  return {
    kind,
    id: `${failover}/${runId}`,
    service,
    cell,
    at: endedAt,
    outcome,
    label,
    avertedMinutes: wasRight ? keptOut * policy.outageMinutes : 0,
    expectedMinutes: isReal ? keptOut * policy.outageMinutes * (dossier.lastRisk?.probability ?? 0) : 0,
    falseAlarm: label === 'false',
    standbyCellHours: standbyHours(dossier),
  };
}

/**
 * The label that the failover came to; where it says nothing, the one thing that can be read from its outcome: a source
 * that died after it was evacuated has confirmed the prediction.
 */
function labelOf(dossier: Dossier): LedgerLabel {
  if (dossier.label) return dossier.label.kind;
  return dossier.outcome === 'failed-over' && / is dead/.test(dossier.reason ?? '') ? 'confirmed' : 'unknown';
}

/** The most that the synthetic cell carried, in basis points. */
function largestShare({ steps = [], syntheticCell }: Older): number {
  if (!syntheticCell) return 0;
  return Math.max(0, ...steps.map(({ split }) => split[syntheticCell] ?? 0));
}

/** From when it began to be made, or to be used, until the failover ended. */
function standbyHours({ phaseTimes = [], endedAt }: Older): number {
  const made = phaseTimes.find(({ phase }) => !['assessing', 'cooldown', 'draining'].includes(phase));
  if (!made || !endedAt) return 0;
  return Math.max(0, Date.parse(endedAt) - Date.parse(made.at)) / 3_600_000;
}

export async function enterLedger(db: Kysely<Tables>, entry: LedgerEntry): Promise<void> {
  const { avertedMinutes, expectedMinutes, falseAlarm, standbyCellHours, ...same } = entry;
  const row = {
    ...same,
    averted_minutes: avertedMinutes,
    expected_minutes: expectedMinutes,
    false_alarm: falseAlarm,
    standby_cell_hours: standbyCellHours,
  };
  await db
    .insertInto('ledger')
    .values(row)
    .onConflict((oc) => oc.column('id').doUpdateSet(row))
    .execute();
}

/** An idle synthetic cell is taken, or retired: what its waiting cost. Within the caller's transaction. */
export async function enterIdleTime(
  trx: Kysely<Tables>,
  cell: { name: string; service: string; state: string; state_since: Date },
): Promise<void> {
  if (cell.state !== 'idle') return;
  const now = sql<number>`extract(epoch from now() - ${cell.state_since}::timestamptz)::float8`;
  const { rows } = await sql<{ seconds: number }>`select ${now} as seconds`.execute(trx);
  await enterLedger(trx, {
    kind: 'idle',
    id: `idle/${cell.name}/${cell.state_since.toISOString()}`,
    service: cell.service,
    cell: cell.name,
    at: new Date().toISOString(),
    outcome: null,
    label: null,
    avertedMinutes: 0,
    expectedMinutes: 0,
    falseAlarm: false,
    standbyCellHours: (rows[0]?.seconds ?? 0) / 3600,
  });
}

/** One service in one month. */
export interface LedgerLine {
  service: string;
  /** `2026-11`, UTC. */
  month: string;
  failovers: number;
  drills: number;
  /** Failovers by label. */
  confirmed: number;
  averted: number;
  falseAlarms: number;
  missed: number;
  unknown: number;
  avertedMinutes: number;
  expectedMinutes: number;
  /** Of failovers, drills and idle waiting together. */
  standbyCellHours: number;
}

/** The newest month first. */
export async function ledgerLines(db: Kysely<Tables>, service?: string): Promise<LedgerLine[]> {
  const only = service === undefined ? sql`` : sql`where service = ${service}`;
  const count = (condition: string) => sql`count(*) filter (where ${sql.raw(condition)})::int`;
  const { rows } = await sql<LedgerLine>`
    select service, to_char(at at time zone 'UTC', 'YYYY-MM') as month,
      ${count(`kind = 'failover'`)} as failovers,
      ${count(`kind = 'drill'`)} as drills,
      ${count(`label = 'confirmed'`)} as confirmed,
      ${count(`label = 'averted'`)} as averted,
      ${count(`false_alarm`)} as "falseAlarms",
      ${count(`label = 'missed'`)} as missed,
      ${count(`label = 'unknown'`)} as unknown,
      sum(averted_minutes) as "avertedMinutes",
      sum(expected_minutes) as "expectedMinutes",
      sum(standby_cell_hours) as "standbyCellHours"
    from ledger ${only} group by 1, 2 order by 2 desc, 1`.execute(db);
  return rows;
}
