/** Failovers of a service that have ended, as far as guards and plans of later ones need them. */
import { sql, type Kysely } from 'kysely';
import type { Dossier, Outcome } from '../workflows/messages';
import type { Tables } from './tables';

export interface PastRun extends Pick<Dossier, 'cell' | 'startedAt' | 'syntheticCell' | 'phaseTimes' | 'took'> {
  outcome: Outcome;
  endedAt: string;
}

/** The newest are enough: what a plan is made from is of today. */
const mostRead = 200;

/** Runs that began since then and have ended, without their entries; practice runs are none of them. */
export async function pastFailovers(db: Kysely<Tables>, service: string, since: string): Promise<PastRun[]> {
  const field = <T>(name: string) => sql<T>`dossier -> ${sql.lit(name)}`;
  const rows = await db
    .selectFrom('dossiers')
    .select([
      field<string>('cell').as('cell'),
      field<string>('startedAt').as('startedAt'),
      field<string>('endedAt').as('endedAt'),
      field<string | null>('syntheticCell').as('syntheticCell'),
      field<Outcome>('outcome').as('outcome'),
      field<Dossier['phaseTimes']>('phaseTimes').as('phaseTimes'),
      field<Dossier['took'] | null>('took').as('took'),
    ])
    .where(sql<string>`dossier ->> 'service'`, '=', service)
    .where('started_at', '>=', sql<Date>`${since}::timestamptz`)
    .where(sql<boolean>`dossier ->> 'outcome' is not null`)
    .where(sql<boolean>`not dossier ? 'drill'`)
    .orderBy('started_at', 'desc')
    .limit(mostRead)
    .execute();
  return rows.map(({ took, ...rest }) => ({ ...rest, ...(took && { took }) }));
}

/** Milliseconds since this version of a blueprint was applied, by the database's clock; null if there is none. */
export async function blueprintAgeMs(db: Kysely<Tables>, name: string, version: number): Promise<number | null> {
  const row = await db
    .selectFrom('blueprints')
    .select(sql<number>`(extract(epoch from now() - created_at) * 1000)::float8`.as('age_ms'))
    .where('name', '=', name)
    .where('version', '=', version)
    .executeTakeFirst();
  return row?.age_ms ?? null;
}
