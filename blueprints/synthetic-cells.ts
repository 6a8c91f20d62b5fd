/** Who has which synthetic cell: acquisition, rest and retirement, each within one transaction of the caller. */
import { sql, type Transaction } from 'kysely';
import { poolOwner } from '../workflows/messages';
import { notify } from './change-feed';
import { enterIdleTime } from './ledger';
import { RefusedError, type CellRecord, type CellRest } from './records';
import type { Instance } from './schema';
import { cellRecord, jsonb, type Tables } from './tables';
import { lockTraffic } from './traffic-rows';

export interface AcquireSyntheticCell {
  /** The failover (workflow id) that is going to own the cell. */
  failover: string;
  /** The cell to stand in for. */
  source: string;
  blueprint: { name: string; version: number };
  /** A new one, though others lie idle: for the pool. Default false. */
  fromNothing?: boolean;
}

export interface AcquiredCell {
  cell: CellRecord;
  /**
   * `owned`: this failover had it already. `idle`: an idle one was taken over. `pool`: one that is being made for the
   * pool. `created`: a new row.
   */
  from: 'owned' | 'idle' | 'pool' | 'created';
}

type Trx = Transaction<Tables>;

export async function acquireSyntheticCell(
  trx: Trx,
  { failover, source, blueprint, fromNothing = false }: AcquireSyntheticCell,
): Promise<AcquiredCell> {
  const sourceRow = await trx.selectFrom('cells').selectAll().where('name', '=', source).executeTakeFirst();
  if (!sourceRow) throw new RefusedError(`cell ${source} is not known, so no synthetic cell can stand in for it`);
  if (sourceRow.role === 'synthetic')
    throw new RefusedError(`cell ${source} is itself synthetic: only declared cells have an understudy`);
  const { service } = sourceRow;
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

  const waiting = fromNothing ? undefined : await waitingCell(trx, { service, source, blueprint });
  if (waiting) {
    await enterIdleTime(trx, waiting);
    const taken = await trx
      .updateTable('cells')
      .set({ owner: failover, state: 'provisioning', state_since: sql<Date>`now()`, source_cell: source })
      .where('name', '=', waiting.name)
      .returningAll()
      .executeTakeFirstOrThrow();
    await notify(trx, service);
    return { cell: cellRecord(taken), from: waiting.owner === null ? 'idle' : 'pool' };
  }

  const making = await trx
    .selectFrom('blueprints')
    .select('spec')
    .where('name', '=', blueprint.name)
    .where('version', '=', blueprint.version)
    .executeTakeFirst();
  const zone = making?.spec.network?.zone ?? sourceRow.zone;
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
}

/**
 * An idle cell of this blueprint, else one that is being made for the pool: a failover comes first. Once that one is made
 * and about to be laid idle it is nobody's but the pool's: it must not fall asleep in a failover's hands.
 */
async function waitingCell(
  trx: Trx,
  { service, source, blueprint }: { service: string } & Pick<AcquireSyntheticCell, 'source' | 'blueprint'>,
) {
  const suitable = trx
    .selectFrom('cells')
    .selectAll()
    .where('service', '=', service)
    .where('role', '=', 'synthetic')
    .where('blueprint_name', '=', blueprint.name)
    .where('blueprint_version', '=', blueprint.version)
    .limit(1)
    .forUpdate();
  const idle = suitable
    .where('state', '=', 'idle')
    .where('owner', 'is', null)
    .orderBy(sql`source_cell = ${source}`, 'desc')
    .orderBy('name');
  const inTheMaking = suitable
    .where('state', 'in', ['provisioning', 'warming'])
    .where('owner', '=', poolOwner(service));
  return (await idle.executeTakeFirst()) ?? (await inTheMaking.executeTakeFirst());
}

export async function restCell(
  trx: Trx,
  name: string,
  owner: string | null,
  rest?: CellRest,
): Promise<CellRecord | undefined> {
  const locked = await lockCellAndSplit(trx, name);
  if (!locked) return undefined;
  const { row, share } = locked;
  if (row.role !== 'synthetic') throw new RefusedError(`cell ${name} is declared (${row.role}): it never rests`);
  if (row.owner !== owner || row.state === 'retired') return cellRecord(row);
  if (share && share.shareBp > 0)
    throw new RefusedError(`cell ${name} carries ${share.shareBp} bp of ${row.service}: give its share back first`);
  const rested = await trx
    .updateTable('cells')
    .set({
      state: 'idle',
      owner: null,
      rest: rest ? jsonb(rest) : null,
      ...(row.state !== 'idle' && { state_since: sql<Date>`now()` }),
    })
    .where('name', '=', name)
    .returningAll()
    .executeTakeFirstOrThrow();
  await notify(trx, row.service);
  return cellRecord(rested);
}

export async function beginRetirement(trx: Trx, name: string, owner: string | null): Promise<CellRecord | undefined> {
  const locked = await lockCellAndSplit(trx, name);
  if (!locked) return undefined;
  const { row, share } = locked;
  if (row.role !== 'synthetic') throw new RefusedError(`cell ${name} is declared (${row.role}): it is never retired`);
  if (row.owner !== null && row.owner !== owner)
    throw new RefusedError(`cell ${name} is held by ${row.owner}: it cannot be retired now`);
  if (share)
    throw new RefusedError(
      `cell ${name} is in the split of ${row.service} (${share.shareBp} bp, ${share.coverInstances} as cover): take it out first`,
    );
  await enterIdleTime(trx, row);
  const retired = await trx
    .updateTable('cells')
    .set({ state: 'retired', owner: null, ...(row.state !== 'retired' && { state_since: sql<Date>`now()` }) })
    .where('name', '=', name)
    .returningAll()
    .executeTakeFirstOrThrow();
  await notify(trx, row.service);
  return cellRecord(retired);
}

/** The split before the cell, in the order in which a change of the split takes them, so that the two cannot deadlock. */
async function lockCellAndSplit(trx: Trx, name: string) {
  const cell = trx.selectFrom('cells').selectAll().where('name', '=', name);
  const found = await cell.executeTakeFirst();
  if (!found) return undefined;
  const traffic = await lockTraffic(trx, found.service);
  const row = await cell.forUpdate().executeTakeFirst();
  return row && { row, share: traffic?.split.find((share) => share.cell === name) };
}

/** `<source>-understudy-<n>` with the smallest free n. A name has at most 63 characters. */
function freeName(source: string, taken: ReadonlySet<string>): string {
  for (let n = 1; ; n += 1) {
    const suffix = `-understudy-${n}`;
    const name = source.slice(0, 63 - suffix.length).replace(/-+$/, '') + suffix;
    if (!taken.has(name)) return name;
  }
}

/**
 * Does the work while nobody can begin to use a cell of this name: no failover acquires one of its service meanwhile.
 * Answers why it was not done, if the store knows the cell or a split names it.
 */
export async function whileUnknown(
  trx: Trx,
  { cell, service }: { cell: string; service: string },
  work: () => Promise<void>,
): Promise<string | undefined> {
  await trx.selectFrom('services').select('name').where('name', '=', service).forNoKeyUpdate().execute();
  const known = await trx.selectFrom('cells').select('name').where('name', '=', cell).executeTakeFirst();
  if (known) return 'the store knows it by now';
  // Not locked, so that traffic can be moved meanwhile: no split can come to name a cell that the store does not know.
  const traffic = await trx.selectFrom('traffic').select('split').where('service', '=', service).executeTakeFirst();
  if (traffic?.split.some((share) => share.cell === cell)) return `the split of ${service} names it`;
  await work();
  return undefined;
}
