/** A service's acknowledged writes survive the handover of its data, whatever breaks in the middle. */
import { expect } from 'chai';
import { Client } from 'pg';
import type { DataCell, DataState } from '../../cells/data-sync/contract';
import type { DataSync } from '../../cells/data-sync/data-sync';
import { slotName } from '../../cells/data-sync/postgres';
import { changelogWorld } from '../../lab/stateful/changelog-world';
import { faultedRun, planOf } from '../../lab/stateful/faulted-handover';
import { urlOf } from '../../lab/stateful/postgres-server';
import { labPassword, postgresWorld } from '../../lab/stateful/postgres-world';
import { startStack, type Stack } from '../../local/stack';
import { waitUntil } from '../../local/wait';

type Followed = Record<'source' | 'synthetic', DataCell> & { sync: DataSync };

/** While a replica follows its owner keeps WAL for it, and none once it is forgotten, though it is still connected. */
async function keepsNoWal({ sync, source, synthetic }: Followed): Promise<void> {
  const keptFor = async () => {
    const state = (await (await fetch(`http://127.0.0.1:${source.instances[0]!.port}/data-sync`)).json()) as DataState;
    const client = new Client({ connectionString: urlOf(state.database!, labPassword) });
    await client.connect();
    const { rows } = await client.query<{ slot: string }>('select slot_name as slot from pg_replication_slots');
    await client.end();
    return rows.map(({ slot }) => slot);
  };
  await sync.follow(synthetic, source);
  await waitUntil(() => sync.lag(synthetic, source).catch(() => null), { withinMs: 60_000, what: 'it follows' });
  expect(await keptFor()).to.deep.equal([slotName(synthetic.name)]);
  await sync.forget(source, synthetic);
  await sync.forget(source, synthetic);
  expect(await keptFor()).to.deep.equal([]);
  const lag = await sync.lag(synthetic, source).catch((error: Error) => error.message);
  expect(lag, 'what does not follow has not caught up').to.contain('nor follows it');
}

describe('The data of a stateful service', function () {
  this.timeout(240_000);
  let stack: Stack;

  before(async () => {
    stack = await startStack({ parts: ['kafka'] });
  });
  after(() => stack.stop());

  const runs = [
    { kind: 'on a changelog', seed: 1, world: changelogWorld },
    { kind: 'on a changelog', seed: 14, world: changelogWorld },
    { kind: 'on a Postgres replica', seed: 14, world: postgresWorld, leavesNothing: keepsNoWal },
  ];
  for (const { kind, seed, world: make, leavesNothing } of runs) {
    const plan = planOf(seed).map(({ fault, victim, moment }) => `${fault} of the ${victim} in ${moment}`);
    it(`${kind} goes over and back with nothing lost or stale (seed ${seed}: ${plan.join(', then ')})`, async () => {
      const told: string[] = [];
      const world = await make(stack, `shop-${kind.includes('log') ? 'log' : 'replica'}-${seed}`, seed);
      try {
        const run = await faultedRun({ seed, ...world, withinMs: 90_000, say: (sentence) => told.push(sentence) });
        expect(run.violations, told.join('\n')).to.deep.equal([]);
        expect(run.handovers.map(({ to }) => to)).to.deep.equal([world.synthetic.name, world.source.name]);
        expect(run.acknowledged).to.be.greaterThan(50);
        await leavesNothing?.(world);
      } finally {
        await world.stop();
      }
    });
  }
});
