/** How long starts of synthetic cells took: kept for each version of a blueprint, the newest only. */
import type { Kysely, Transaction } from 'kysely';
import type { CellStart, StartedFrom } from './records';
import type { Tables } from './tables';

/** More of them decide nothing. */
const kept = 20;

interface StartedCell {
  name: string;
  blueprint_name: string;
  blueprint_version: number;
}

export async function recordStart(
  trx: Transaction<Tables>,
  { name, blueprint_name, blueprint_version }: StartedCell,
  { from, readyMs }: { from: StartedFrom; readyMs: number },
): Promise<void> {
  await trx
    .insertInto('cell_starts')
    .values({ blueprint_name, blueprint_version, cell: name, started_from: from, ready_ms: readyMs })
    .execute();
  const ofVersion = trx
    .selectFrom('cell_starts')
    .select('id')
    .where('blueprint_name', '=', blueprint_name)
    .where('blueprint_version', '=', blueprint_version)
    .orderBy('id', 'desc')
    .offset(kept);
  await trx.deleteFrom('cell_starts').where('id', 'in', ofVersion).execute();
}

/** Counted to the cell's newest start, until it has been warm: what a plan takes later, after a thaw, says nothing of it. */
export async function recordWarmUp(
  trx: Transaction<Tables>,
  { name, blueprint_name, blueprint_version }: StartedCell,
  { tookMs, isWarm }: { tookMs: number; isWarm: boolean },
): Promise<void> {
  const newest = trx
    .selectFrom('cell_starts')
    .select('id')
    .where('cell', '=', name)
    .where('blueprint_name', '=', blueprint_name)
    .where('blueprint_version', '=', blueprint_version)
    .orderBy('id', 'desc')
    .limit(1);
  await trx
    .updateTable('cell_starts')
    .set((eb) => ({ warm_ms: eb('warm_ms', '+', tookMs), is_warm: isWarm }))
    .where('id', 'in', newest)
    .where('is_warm', '=', false)
    .execute();
}

/** Of cells of this version of a blueprint, the newest first. */
export async function cellStarts(
  db: Kysely<Tables>,
  { name, version }: { name: string; version: number },
): Promise<CellStart[]> {
  const rows = await db
    .selectFrom('cell_starts')
    .selectAll()
    .where('blueprint_name', '=', name)
    .where('blueprint_version', '=', version)
    .orderBy('id', 'desc')
    .limit(kept)
    .execute();
  return rows.map((row) => ({
    cell: row.cell,
    from: row.started_from,
    readyMs: row.ready_ms,
    warmMs: row.is_warm ? row.warm_ms : null,
  }));
}
