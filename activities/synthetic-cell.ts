/** Gives a failover its synthetic cell and takes it away again, by the Synthetic Cell Manager. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Context } from '@temporalio/activity';
import { ApplicationFailure } from '@temporalio/common';
import type {
  EnsureRequest,
  EnsureResult,
  FailoverActivities,
  Rested,
  SyntheticSubject,
  WarmResult,
} from '../workflows/steps';
import { StillCarryingError, type ApplyResult } from '../envoy/traffic-client';
import { warmUpReading } from './measures';
import type { Ports } from './ports';
import { OwnsDataError } from '../cells/data-sync/data-gate';
import { TracesLeftError } from '../cells/life/rest';
import { protectionText } from '../cells/protection/read-back';
import { RefusedError } from '../blueprints/records';
import type { CellRecord } from '../blueprints/records';

type SyntheticCellActivities = Pick<
  FailoverActivities,
  'ensureSyntheticCell' | 'warmSyntheticCell' | 'restAtIdle' | 'retireSyntheticCell'
>;

/** A proxy may still send requests to the cell: nothing is taken down before it has said otherwise. */
export class StillRoutedError extends Error {
  override readonly name = 'StillRoutedError';
}

export interface Patience {
  /** Proxies are back within seconds after a restart of the control plane. */
  proxiesBackMs: number;
  /** Requests under way get this long to end. */
  inFlightMs: number;
  pollMs: number;
  /** How often the warm-up plan is run before a cell counts as cold. @default 3 */
  warmUpLooks?: number;
  /** How long after its beginning a plan is run again. @default 60,000 */
  lookAgainWithinMs?: number;
}

export function syntheticCells(
  { store, traffic, cells, data }: Ports,
  patience: Patience = { proxiesBackMs: 10_000, inFlightMs: 10_000, pollMs: 200 },
): SyntheticCellActivities {
  async function owned(request: { failover: string; syntheticCell: string }): Promise<CellRecord | null> {
    const cell = await store.cell(request.syntheticCell);
    return cell?.owner === request.failover ? cell : null;
  }

  /**
   * Tried again where the cell owns data that nobody takes, but not all night: after `holdAtMostS` it fails for good, with
   * which the failover holds and calls a person.
   */
  async function dataIsSafe(request: { service: string }, check: () => Promise<void> | undefined): Promise<void> {
    try {
      await check();
    } catch (err) {
      if (!(err instanceof OwnsDataError)) throw err;
      const holdAtMostS = (await store.service(request.service))?.spec.policy.holdAtMostS ?? Infinity;
      if (Date.now() - Context.current().info.scheduledTimestampMs < holdAtMostS * 1000) throw err;
      throw ApplicationFailure.create({ message: err.message, type: err.name, nonRetryable: true, cause: err });
    }
  }

  /** Out of the split first: nothing that may get a request is taken down. */
  async function remove(request: SyntheticSubject, cell: string): Promise<ApplyResult> {
    const { service, failover: by, reason, key, byPerson = false } = request;
    // A key is for one change: a step that removes several cells makes several.
    const order = { service, cell, reason, by, override: byPerson, idempotencyKey: `${key}/remove/${cell}` };
    const applied = await traffic.removeCell({ ...order, waitMs: patience.inFlightMs }).catch((err: unknown) => {
      // A request that hangs must not keep the cell for ever: measured traffic is waited for, then it goes all the same.
      if (err instanceof StillCarryingError) return traffic.removeCell({ ...order, despiteMeasured: true });
      throw err;
    });
    const { refused, pending } = applied;
    if (refused.length === 0 && pending.length === 0) return applied;
    const words = [...refused.map((r) => `${r.node} refused: ${r.reason}`), ...pending.map((n) => `${n} is pending`)];
    throw new StillRoutedError(
      `${cell} has left the split of ${service}, but not every proxy has taken that: ${words.join('; ')}`,
    );
  }

  /** Before the cell ends: what may still route to it has been asked, and what it was asked has been answered. */
  async function removeForGood(request: SyntheticSubject, cell: string): Promise<void> {
    const { service } = request;
    const { acknowledged } = await remove(request, cell);
    if (acknowledged.length === 0) {
      // Nobody connected is nobody asked: a proxy without its control plane routes on by the old split.
      const areBack = await within(
        patience.proxiesBackMs,
        patience.pollMs,
        `${cell}: no proxy is connected`,
        async () => {
          const view = await traffic.getTraffic(service).catch(() => null);
          return view !== null && view.proxies.length > 0;
        },
      );
      if (areBack) await remove(request, cell);
    }
    // A request that hangs must not keep the cell for ever: this wait is bounded, and then it goes all the same.
    const removedMs = Date.now();
    await within(patience.inFlightMs, patience.pollMs, `${cell}: requests are in flight`, async () => {
      const view = await traffic.getTraffic(service).catch(() => null);
      const load = view?.cells.find((c) => c.cell === cell);
      if (!view) return false;
      // A report from before the removal says nothing about what came after it.
      return !load?.measured || (load.requestsInFlight === 0 && load.ageMs <= Date.now() - removedMs);
    });
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
      // The data first: what is measured of a cell without it says nothing.
      const caughtUp = await beating(async (beat, signal) => data?.warm(cell, beat, signal));
      const readTraffic = async () => warmUpReading(await traffic.getTraffic(request.service), cell.name, request.cell);
      const look = () => beating((beat, signal) => cells.warm(cell, beat, signal, readTraffic));
      // A new process is slow at first, and a busy machine for a moment: what a second look finds warm is warm.
      let found = await look();
      for (let looks = 1; !found.warm && looks < (patience.warmUpLooks ?? 3); looks += 1) {
        // Steps that gave the cell its time already have nothing to gain from the whole plan once more.
        if (Date.now() - startedMs > (patience.lookAgainWithinMs ?? 60_000)) break;
        await Context.current().sleep(patience.pollMs);
        found = await look();
      }
      const measured = found.steps.map(({ text }) => text).join(', ') || 'its plan has no steps';
      const ofData = caughtUp ? `, ${caughtUp}` : '';
      const protection = found.protection ? `, ${protectionText(found.protection)}` : '';
      const drift = found.drift?.length ? `; the source has drifted from its blueprint: ${found.drift.join('; ')}` : '';
      return {
        passed: found.warm,
        summary: found.warm ? `${measured}${ofData}${protection}${drift}` : found.reasons.join('; '),
        evidence: { ...found, ...(caughtUp && { data: caughtUp }), tookMs: Date.now() - startedMs },
      };
    },

    async restAtIdle(request: SyntheticSubject): Promise<Rested | void> {
      const cell = await owned(request);
      if (!cell) return;
      await dataIsSafe(request, () => data?.beforeEnd(cell, request.cell, false));
      await remove(request, cell.name);
      await data?.keepFollowing(cell);
      return (await cells.rest(cell))?.rest;
    },

    async retireSyntheticCell(request): Promise<void> {
      // Also what was begun and never named: whatever this failover owns, and a retirement that an attempt before this
      // one has begun, with which the cell became nobody's.
      const isOwn = (c: CellRecord) => c.owner === request.failover;
      const isBegun = (c: CellRecord) => c.state === 'retired' && c.sourceCell === request.cell;
      for (const cell of await store.cells(request.service)) {
        if (cell.role !== 'synthetic' || (!isOwn(cell) && !isBegun(cell))) continue;
        if (!isBegun(cell)) {
          await dataIsSafe(request, () => beating(async (beat) => data?.beforeEnd(cell, request.cell, true, beat)));
          await removeForGood({ ...request, syntheticCell: cell.name }, cell.name);
        }
        await ended(cells, cell);
      }
    },
  };
}

/** Nobody waits for those who keep something for a cell that has ended: its source may be dead, and keep it for good. */
export async function ended(cells: Pick<Ports['cells'], 'retire'>, cell: CellRecord): Promise<void> {
  try {
    // A cloud may take minutes to take a cell down.
    await beating(() => cells.retire(cell));
  } catch (err) {
    if (!(err instanceof TracesLeftError)) throw err;
  }
}

/** Asks again and again, with heartbeats, until it is so or the time is over; says which. */
async function within(ms: number, pollMs: number, text: string, isSo: () => Promise<boolean>): Promise<boolean> {
  const context = Context.current();
  for (const deadline = Date.now() + ms; ; await context.sleep(pollMs)) {
    if (await isSo()) return true;
    if (Date.now() >= deadline) return false;
    context.heartbeat(text);
  }
}

const beatEveryMs = 1000;
/** How long work may take to stop once it was cancelled. */
const stopsWithinMs = 3000;

/**
 * Heartbeats as long as the work runs, also where it is silent for a while, and hands it the cancellation. Work that does
 * not hear of it, as a provider that hangs, is left: what it still makes then is found by its owner's name.
 */
export async function beating<T>(work: (beat: (text: string) => void, signal: AbortSignal) => Promise<T>): Promise<T> {
  const context = Context.current();
  let latest = '';
  const beat = (text: string) => context.heartbeat((latest = text));
  const timer = setInterval(() => context.heartbeat(latest), beatEveryMs);
  const left = context.cancelled.catch(async (err: unknown) => {
    await sleep(stopsWithinMs, undefined, { ref: false });
    throw err;
  });
  try {
    return await Promise.race([work(beat, context.cancellationSignal), left]);
  } catch (err) {
    // Whatever the abort looks like to the one who worked, to Temporal it is the cancellation.
    if (context.cancellationSignal.aborted) await context.cancelled;
    throw err;
  } finally {
    clearInterval(timer);
  }
}
