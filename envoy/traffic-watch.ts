/** The stream of what happens to a service's traffic: every change in order, its progress, loads and the fleet-wide stop. */
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ServerWritableStream } from '@grpc/grpc-js';
import type { Logger } from 'pino';
import type { Replica } from './replicas/replica';
import { fleetStanding, whereabouts } from './replicas/standing';
import { BadRequestError, OutOfRangeError, UnknownServiceError } from './traffic-errors';
import { wireShare } from './traffic-client';
import type { TrafficChanges } from './traffic-changes';
import type { TrafficStore } from './traffic-store';
import { wireStop, type TrafficViews } from './traffic-view';

export interface WatchRequest {
  service: string;
  from_epoch: number;
  loads_every_ms: number;
}

export interface TrafficWatchOptions {
  store: TrafficStore;
  replica: Pick<Replica, 'id' | 'others' | 'standing' | 'onStanding'>;
  changes: Pick<TrafficChanges, 'current'>;
  views: TrafficViews;
  /** Ends every watch. */
  stopping: AbortSignal;
  log: Logger;
}

type Call = ServerWritableStream<WatchRequest, object>;

/** Without news it is looked again after this: notifications can be lost. */
const lookAgainMs = 1000;
const changesPerRead = 100;
const fastestLoadsMs = 100;

/**
 * Serves one watcher until it leaves. What is told is read from the store behind a cursor, so a slow reader or a lost
 * notification loses no change; progress and loads are only ever the newest. Throws before the first event, and if
 * the service is taken away. Returns when the watcher has left, or `stopping` is given.
 */
export async function watchTraffic(call: Call, options: TrafficWatchOptions): Promise<void> {
  const { store, replica, changes, stopping, log } = options;
  const { service, from_epoch, loads_every_ms } = call.request;
  if (loads_every_ms !== 0 && loads_every_ms < fastestLoadsMs) {
    const problem = `must be 0 (no loads) or at least ${fastestLoadsMs} ms, not ${loads_every_ms}`;
    throw new BadRequestError([{ field: 'loads_every_ms', problem }]);
  }
  const { epoch } = await changes.current(service);
  if (from_epoch > epoch) {
    throw new OutOfRangeError(`from_epoch: service ${service} is at epoch ${epoch}, ${from_epoch} is yet to come`);
  }
  const watch = new Watch(call, options);
  const wake = (about: string | null): void => {
    if (about === null || about === service) watch.wake();
  };
  const stops = [store.onChange(wake), replica.onStanding(wake), store.onHoldings?.(wake)];
  const end = (): void => watch.wake();
  stopping.addEventListener('abort', end, { once: true });
  try {
    while (!call.cancelled && !call.destroyed && !stopping.aborted) {
      const woken = watch.news();
      try {
        await watch.tellWhatIsNew();
      } catch (error) {
        // The service has been taken away: nothing more will come.
        if (error instanceof UnknownServiceError) throw error;
        // The stream stays: what could not be read is told once the store answers again.
        log.debug({ err: error }, `a watcher of ${service} waits for the store`);
      }
      await Promise.race([woken, sleep(Math.min(lookAgainMs, loads_every_ms || lookAgainMs))]);
    }
  } finally {
    stopping.removeEventListener('abort', end);
    for (const stop of stops) stop?.();
  }
}

class Watch {
  private cursor: number;
  private progressSaid = '';
  private stopSaid = '';
  private loadsAt = -Infinity;
  wake: () => void = () => undefined;

  constructor(
    private readonly call: Call,
    private readonly options: TrafficWatchOptions,
  ) {
    this.cursor = call.request.from_epoch;
    call.on('cancelled', () => this.wake());
  }

  /** Resolves at the next `wake`. */
  news(): Promise<void> {
    return new Promise((resolve) => (this.wake = resolve));
  }

  async tellWhatIsNew(): Promise<void> {
    const { store, changes, views } = this.options;
    const { service, loads_every_ms } = this.call.request;
    await this.tellChanges(service);
    const stop = wireStop(await store.fleetStop());
    if (JSON.stringify(stop) !== this.stopSaid) {
      // That nothing is stopped goes without saying at first.
      if (this.stopSaid !== '' || 'since' in stop) await this.tell({ fleet: stop });
      this.stopSaid = JSON.stringify(stop);
    }
    await this.tellProgress(service);
    if (loads_every_ms === 0 || performance.now() - this.loadsAt < loads_every_ms) return;
    this.loadsAt = performance.now();
    await this.tell({ loads: await views.view(await changes.current(service)) });
  }

  private async tellChanges(service: string): Promise<void> {
    const { store, changes } = this.options;
    for (;;) {
      const news = await store.splitChanges(service, changesPerRead, this.cursor);
      if (news.length === 0) break;
      for (const { epoch, split, reason, by, at, revertsEpoch } of news) {
        const change = { epoch, split: split.map(wireShare), reason, by, at, reverts_epoch: revertsEpoch ?? 0 };
        await this.tell({ change });
        this.cursor = epoch;
      }
    }
    if (this.cursor > 0) return;
    // Nobody has changed the split yet: it is the declared one.
    const { epoch, split } = await changes.current(service);
    await this.tell({ change: { epoch, split: split.map(wireShare), reason: 'declared', by: '', at: '' } });
    this.cursor = epoch;
  }

  private async tellProgress(service: string): Promise<void> {
    const { replica } = this.options;
    const [local, others] = await Promise.all([replica.standing(service, 0), replica.others(service)]);
    const beginning = whereabouts(replica.id, local, others);
    const { acknowledged, refused, pending } = fleetStanding(this.cursor, replica.id, local, others, beginning);
    const progress = { epoch: this.cursor, acknowledged: acknowledged.length, refused, pending };
    const said = JSON.stringify(progress);
    if (said === this.progressSaid) return;
    this.progressSaid = said;
    await this.tell({ progress });
  }

  /** A reader that does not read is waited for; meanwhile nothing is kept for it. */
  private async tell(event: object): Promise<void> {
    const { stopping } = this.options;
    if (this.call.cancelled || this.call.destroyed || stopping.aborted) return;
    if (this.call.write(event)) return;
    // Whichever comes, the others are listened for no longer: a slow reader drains thousands of times.
    const over = new AbortController();
    const { signal } = over;
    const heard = ['drain', 'cancelled', 'close'].map((event) => once(this.call, event, { signal }));
    heard.push(once(stopping, 'abort', { signal }));
    try {
      await Promise.race(heard);
    } finally {
      void Promise.allSettled(heard);
      over.abort();
    }
  }
}
