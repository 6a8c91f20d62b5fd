/** Makes cells for the idle pools: one at a time for each service, never in the way of a failover. */
import { WorkflowNotFoundError, type Client } from '@temporalio/client';
import { RefusedError, type CellRecord, type ServiceRecord } from '../blueprints/records';
import type { ConfigurationStore } from '../blueprints/store';
import type { SyntheticCellManager } from '../cells/manager';
import { poolFacts, type PoolStore } from '../cells/pool-facts';
import { mayMake, poolNeed, type PoolFacts } from '../cells/pool-need';
import { poolOwner, type Phase } from '../workflows/messages';
import type { PoolActivities, PoolSubject } from '../workflows/pool';
import { runningFailovers } from './failovers-under-way';
import { beating, ended } from './synthetic-cell';

export interface PoolPorts {
  store: PoolStore & Pick<ConfigurationStore, 'cell' | 'services' | 'service' | 'acquireSyntheticCell'>;
  cells: Pick<SyntheticCellManager, 'makeForPool' | 'restInPool' | 'retire' | 'observe'>;
  client: Client;
}

export function pools({ store, cells, client }: PoolPorts): PoolActivities {
  /** Lists may be seconds behind: whoever holds a cell is asked itself. */
  async function openFailovers(service: string, owners: Set<string | null>): Promise<PoolFacts['open']> {
    const open = (await runningFailovers(client, service)).map(({ failover, phase }) => ({ failover, phase }));
    for (const failover of owners) {
      if (!failover?.startsWith('failover/') || open.some((one) => one.failover === failover)) continue;
      const run = await client.workflow
        .getHandle(failover)
        .describe()
        .catch((err: unknown) => {
          if (err instanceof WorkflowNotFoundError) return null;
          throw err;
        });
      const phase = (run?.searchAttributes.FailoverPhase?.[0] as Phase | undefined) ?? null;
      const isOpen = run?.status.name === 'RUNNING' && phase !== 'failed-over';
      if (isOpen) open.push({ failover, phase });
    }
    return open;
  }

  async function needOf(service: ServiceRecord) {
    const facts = await poolFacts(store, service, []);
    const atMost = poolNeed(facts);
    // Failovers can only be a reason against it: where there is nothing to be made they need not be asked for.
    if (atMost.source === null) return atMost;
    const owners = new Set(facts.synthetic.map(({ owner }) => owner));
    return poolNeed({ ...facts, open: await openFailovers(service.name, owners) });
  }

  /** What an attempt before this one has begun, and left. */
  async function begun(service: string): Promise<CellRecord | undefined> {
    const owner = poolOwner(service);
    return (await store.cells(service)).find((cell) => cell.owner === owner && cell.state !== 'retired');
  }

  async function held({ service, cell }: PoolSubject): Promise<CellRecord> {
    const record = await store.cell(cell);
    if (record?.owner === poolOwner(service)) return record;
    throw new RefusedError(`${cell} is not the pool's any more: ${record?.owner ?? 'nobody'} has it`);
  }

  async function lookAtPools(): Promise<string[]> {
    const lacking: string[] = [];
    for (const service of await store.services()) {
      const isLacking = mayMake(service.spec.policy.autonomy) && (await needOf(service)).source !== null;
      if (isLacking || (await begun(service.name))) lacking.push(service.name);
    }
    return lacking;
  }

  async function claim(name: string): ReturnType<PoolActivities['claimPoolCell']> {
    const service = await store.service(name);
    if (!service) return { claim: null, why: `service ${name} is gone` };
    const left = await begun(name);
    // Begun under another version, or under an autonomy that allows it no more: ended first.
    if (left) {
      const { coming } = await needOf(service);
      const source = left.sourceCell ?? left.name;
      if (coming.includes(left.name) && mayMake(service.spec.policy.autonomy))
        return { claim: { service: name, cell: left.name, source }, why: `${left.name} was begun` };
      await ended(cells, left);
    }
    const { source, why } = await needOf(service);
    const after = source === null ? undefined : await store.cell(source);
    if (!after) return { claim: null, why };
    const { cell } = await store.acquireSyntheticCell({
      failover: poolOwner(name),
      source: after.name,
      blueprint: after.blueprint,
      fromNothing: true,
    });
    return { claim: { service: name, cell: cell.name, source: after.name }, why };
  }

  return {
    // A store that is slow to answer costs no attempt.
    lookAtPools: () => beating(lookAtPools),
    claimPoolCell: ({ service }) => beating(() => claim(service)),

    async makePoolCell(request): Promise<{ tookMs: number }> {
      const startedMs = Date.now();
      const cell = await held(request);
      await beating((beat, signal) => cells.makeForPool(cell, beat, signal));
      return { tookMs: Date.now() - startedMs };
    },

    async restPoolCell(request): Promise<{ phase: string }> {
      const cell = await store.cell(request.cell);
      // An attempt before this one has let go of it.
      if (cell && !(cell.state === 'idle' && cell.owner === null)) {
        const own = await held(request);
        await beating(() => cells.restInPool(own));
      }
      return { phase: cell ? (await cells.observe(cell)).phase : 'absent' };
    },

    async discardPoolCell({ service, cell }): ReturnType<PoolActivities['discardPoolCell']> {
      const record = await store.cell(cell);
      const isOwn = record?.owner === poolOwner(service);
      // A retirement that an attempt before this one has begun leaves the cell nobody's.
      if (record && (isOwn || record.state === 'retired')) {
        await ended(cells, record);
        return { fate: 'retired', by: null };
      }
      return { fate: record ? 'taken' : 'retired', by: record?.owner ?? null };
    },
  };
}
