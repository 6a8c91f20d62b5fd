/** What all providers keep, known to the store or not: lists it, renews its leases, ends what the store knows nothing of. */
import { RefusedError } from '../../blueprints/records';
import { bounded } from '../bounded';
import type { CellProvider, ObservedCell } from '../provider';
import type { CellMakings } from './makings';

/** A provider that has not told by then what it runs, or renewed a lease, counts as away: others are not held up. */
const listWithinMs = 20_000;

export async function standingCells({ providers }: CellMakings): Promise<ObservedCell[]> {
  return (await Promise.all(providers.map(listOf))).flat();
}

/** A provider that fails or hangs keeps no cell of another from its lease; then it rejects, once all have been asked. */
export async function renewLeases({ store, providers, leaseS }: CellMakings): Promise<number> {
  if (leaseS === undefined) return 0;
  const known = new Set((await store.cells()).map(({ name }) => name));
  const soon = Date.now() + (leaseS * 1000) / 2;
  const renewAt = async (provider: CellProvider): Promise<number> => {
    let renewed = 0;
    for (const { cell, expiresAt } of await listOf(provider))
      if (expiresAt !== undefined && Date.parse(expiresAt) < soon && known.has(cell))
        renewed += Number(await bounded(listWithinMs, `the renewal of ${cell}`, provider.renew(cell, leaseS)));
    return renewed;
  };
  const rounds = await Promise.allSettled(providers.map(renewAt));
  const failed = rounds.find((round) => round.status === 'rejected');
  if (failed) throw failed.reason;
  return rounds.reduce((sum, round) => sum + (round.status === 'fulfilled' ? round.value : 0), 0);
}

export async function destroyUnknown({ store, providers, identities }: CellMakings, cell: string): Promise<void> {
  if (await store.cell(cell)) throw new RefusedError(`cell ${cell} is in the store: retire it instead`);
  await Promise.all(providers.map((provider) => provider.destroy(cell)));
  await identities.remove(cell);
}

function listOf(provider: CellProvider): Promise<ObservedCell[]> {
  return bounded(listWithinMs, `provider ${provider.kind}`, provider.list());
}
