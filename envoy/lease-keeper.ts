/** Returns splits whose lease has run out to the declared safe one: at any replica, once, by compare-and-swap. */
import type { Logger } from 'pino';
import { FleetStoppedError, RefusedError, StaleEpochError, type SplitLease } from '../blueprints/records';
import { safeSplit } from '../blueprints/splits';
import type { TrafficStore } from './traffic-store';

export class LeaseKeeper {
  /** Why a lease that has run out could not be acted upon, told once. */
  private readonly told = new Map<string, string>();

  constructor(
    private readonly store: Pick<TrafficStore, 'expiredLeases' | 'services' | 'changeTraffic'>,
    /**
     * Whether the store has answered long enough for holders to renew: while it was away nobody could, and a lease
     * that ran out meanwhile says nothing about its holder.
     */
    private readonly canJudge: () => boolean,
    private readonly log: Logger,
  ) {}

  /** Called again and again; what does not succeed now is tried at the next call. */
  async review(): Promise<void> {
    if (!this.canJudge()) return;
    const expired = await this.store.expiredLeases();
    if (expired.length === 0) return this.told.clear();
    const services = await this.store.services();
    for (const lease of expired) {
      const spec = services.find(({ name }) => name === lease.service)?.spec;
      if (spec) await this.returnSplit(lease, safeSplit(spec));
    }
  }

  private async returnSplit(
    { service, epoch, holder, durationMs }: SplitLease,
    split: ReturnType<typeof safeSplit>,
  ): Promise<void> {
    const reason = `${holder} has not renewed its lease of ${durationMs} ms on epoch ${epoch}: back to the declared safe split`;
    const idempotencyKey = `lease-expired/${epoch}`;
    try {
      const change = { service, expectedEpoch: epoch, split, reason, by: 'control-plane', idempotencyKey };
      const { state, repeated } = await this.store.changeTraffic({ ...change, onExpiredLease: true });
      if (!repeated) this.log.warn({ service, epoch: state.epoch, holder, split }, `service ${service}: ${reason}`);
    } catch (error) {
      // Another replica was faster, or the holder has renewed: as it should be.
      if (error instanceof StaleEpochError) return;
      if (!(error instanceof RefusedError || error instanceof FleetStoppedError)) throw error;
      const { message } = error;
      if (this.told.get(service) === message) return;
      this.told.set(service, message);
      this.log.warn(
        { service, epoch, holder },
        `the lease of ${holder} on ${service} has run out and its split stays: ${message}`,
      );
    }
  }
}
