/** Gives a failover its synthetic cell and takes it away again, by the Synthetic Cell Manager. */
import { Context } from '@temporalio/activity';
import type { EnsureRequest, EnsureResult, FailoverActivities, SyntheticSubject, WarmResult } from '../workflows/steps';
import type { Ports } from './ports';
import { RefusedError } from '../blueprints/records';
import type { CellRecord } from '../blueprints/records';

type SyntheticCellActivities = Pick<
  FailoverActivities,
  'ensureSyntheticCell' | 'warmSyntheticCell' | 'restAtIdle' | 'retireSyntheticCell'
>;

export function syntheticCells({ store, traffic, cells }: Ports): SyntheticCellActivities {
  async function owned(request: { failover: string; syntheticCell: string }): Promise<CellRecord | null> {
    const cell = await store.cell(request.syntheticCell);
    return cell?.owner === request.failover ? cell : null;
  }

  /** Out of the split first: nothing that may get a request is taken down. */
  async function remove(request: SyntheticSubject, cell: string): Promise<void> {
    const { service, failover: by, reason, key } = request;
    await traffic.removeCell({ service, cell, reason, by, idempotencyKey: `${key}/remove` });
  }

  return {
    async ensureSyntheticCell(request: EnsureRequest): Promise<EnsureResult> {
      const startedMs = Date.now();
      const { failover, cell: source } = request;
      const { cell, reused } = await beating((beat, signal) => cells.acquire({ failover, source }, beat, signal));
      return { cell: cell.name, instances: cell.instances.length, reused, tookMs: Date.now() - startedMs };
    },

    async warmSyntheticCell(request: SyntheticSubject): Promise<WarmResult> {
      const cell = await owned(request);
      if (!cell)
        throw new RefusedError(`synthetic cell ${request.syntheticCell} is not held by ${request.failover} any more`);
      const startedMs = Date.now();
      const found = await beating((beat, signal) => cells.warm(cell, beat, signal));
      const { entries, connections, probe } = found;
      const latency =
        probe === null || probe.p95Ms === null
          ? ''
          : `, p95 ${probe.p95Ms.toFixed(0)} ms` +
            (probe.peersP95Ms === null ? '' : ` against its peers' ${probe.peersP95Ms.toFixed(0)} ms`);
      const figures = `${entries} entries preloaded, ${connections} connections opened${latency}`;
      return {
        passed: found.warm,
        summary: found.warm ? figures : found.reasons.join('; '),
        evidence: { ...found, tookMs: Date.now() - startedMs },
      };
    },

    async restAtIdle(request: SyntheticSubject): Promise<void> {
      const cell = await owned(request);
      if (!cell) return;
      await remove(request, cell.name);
      await cells.rest(cell);
    },

    async retireSyntheticCell(request): Promise<void> {
      // Also what was begun and never named: whatever this failover owns.
      const all = (await store.cells(request.service)).filter(
        (c) => c.role === 'synthetic' && c.owner === request.failover,
      );
      for (const cell of all) {
        await remove({ ...request, syntheticCell: cell.name }, cell.name);
        await cells.retire(cell);
      }
    },
  };
}

const beatEveryMs = 1000;

/** Heartbeats as long as the work runs, also where it is silent for a while, and hands it the cancellation. */
async function beating<T>(work: (beat: (text: string) => void, signal: AbortSignal) => Promise<T>): Promise<T> {
  const context = Context.current();
  let latest = '';
  const beat = (text: string) => context.heartbeat((latest = text));
  const timer = setInterval(() => context.heartbeat(latest), beatEveryMs);
  try {
    return await work(beat, context.cancellationSignal);
  } catch (err) {
    // Whatever the abort looks like to the one who worked, to Temporal it is the cancellation.
    if (context.cancellationSignal.aborted) await context.cancelled;
    throw err;
  } finally {
    clearInterval(timer);
  }
}
