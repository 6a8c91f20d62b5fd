/** Waits until the proxies of all replicas have answered for an epoch of a service's split, and says who has not. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Replica } from './replica';
import { fleetStanding, whereabouts, type FleetStanding, type OtherReplica, type Whereabouts } from './standing';

/** Word comes by notification; should one be lost, it is looked for after this time. */
const lookAgainMs = 100;

export interface FleetAnswer extends FleetStanding {
  /** From the beginning of the wait to the last answer. */
  tookMs: number;
}

export class FleetWait {
  private readonly waiting = new Set<(service: string | null) => void>();

  /** @param onHoldings tells that another replica has said what its proxies hold. */
  constructor(
    private readonly replica: Pick<Replica, 'id' | 'others' | 'standing'>,
    onHoldings: ((listener: (service: string | null) => void) => () => void) | undefined,
  ) {
    this.stop = onHoldings?.((service) => this.tell(service)) ?? ((): void => undefined);
  }

  /** Stops listening. */
  readonly stop: () => void;

  /**
   * The service has been published here at that epoch or a later one. Waits until nobody is pending, `enough` is
   * content, or the time is up. With a single replica Postgres is asked once only, who else there is.
   * `awaited` are proxies that were connected to a replica that is gone: waited for until they answer elsewhere. `hasLeft`: nobody waits any more.
   */
  async answers(
    service: string,
    epoch: number,
    waitMs: number,
    enough: (standing: FleetStanding) => boolean,
    { awaited = [], hasLeft = () => false }: { awaited?: readonly string[]; hasLeft?: () => boolean } = {},
  ): Promise<FleetAnswer> {
    const began = performance.now();
    let others: OtherReplica[] = await this.replica.others(service);
    let beginning: Whereabouts | undefined;
    let answered = -1;
    let tookMs = 0;
    for (;;) {
      const leftMs = Math.max(0, waitMs - (performance.now() - began));
      beginning ??= whereabouts(this.replica.id, await this.replica.standing(service, 0), others);
      const news = this.news(service);
      try {
        const local = await this.replica.standing(service, Math.min(leftMs, lookAgainMs));
        const isOver = performance.now() - began >= waitMs;
        if (others.length > 0) others = await this.replica.others(service);
        const standing = fleetStanding(epoch, this.replica.id, local, others, beginning);
        const answers = standing.acknowledged.length + standing.refused.length;
        if (answers !== answered) tookMs = performance.now() - began;
        answered = answers;
        const here = new Set([...standing.acknowledged, ...standing.refused.map(({ node }) => node)]);
        const isWhole = standing.pending.length === 0 && awaited.every((node) => here.has(node));
        if (isOver || isWhole || hasLeft() || enough(standing)) return { ...standing, tookMs };
        // If some are pending here, the time has been spent; else it is the others that are waited for.
        if (local.pending.length === 0) await Promise.race([news.promise, sleep(Math.min(leftMs, lookAgainMs))]);
      } finally {
        // Also when the store fails in mid-wait: nobody is told of it any more.
        news.cancel();
      }
    }
  }

  private news(service: string): { promise: Promise<void>; cancel: () => void } {
    let listener: (about: string | null) => void = () => undefined;
    const promise = new Promise<void>((resolve) => {
      listener = (about) => {
        if (about === null || about === service) resolve();
      };
    });
    this.waiting.add(listener);
    return { promise, cancel: () => void this.waiting.delete(listener) };
  }

  private tell(service: string | null): void {
    for (const listener of this.waiting) listener(service);
  }
}
