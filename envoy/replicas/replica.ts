/**
 * This process among the control planes over one store: shows that it lives, says what its proxies hold and carry, and
 * knows the others. Postgres is the truth; nothing here decides anything that another replica could decide otherwise.
 */
import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { ReplicaTable } from '../../blueprints/replicas';
import type { ResourceKey } from '../resources/resource';
import type { Acknowledgements } from '../xds/server';
import type { ReplicaLoads } from './loads';
import type { OtherReplica, Standing } from './standing';

/** Signs of life come this often; a replica that misses all for `lostAfterMs` is waited for no longer. */
const beatEveryMs = 1000;
export const lostAfterMs = 5000;

/** An acknowledgement usually comes within this; what is said before is said twice. */
const firstLookMs = 50;
const nextLookMs = 500;

export interface ReplicaOptions {
  /** Left out: a store of this process alone. */
  table: ReplicaTable | undefined;
  proxies: () => string[];
  acknowledgements: (keys: ResourceKey[], waitMs: number) => Promise<Acknowledgements>;
  /** The epoch of the service that is published here. */
  epochOf: (service: string) => number | undefined;
  services: () => string[];
  /** The resources that a change of the service's split changes. */
  splitKeys: (service: string) => ResourceKey[];
  loads: (service: string) => ReplicaLoads;
  log: Logger;
  /** Called at every sign of life, while the store answers. */
  onBeat?: () => Promise<void>;
}

interface Tracked {
  /** As it was last written, to write only what changed. */
  said: string;
  standing: Standing;
  epoch: number;
  dirty: boolean;
  running: boolean;
  wake: () => void;
}

export class Replica {
  readonly id = `${hostname()}-${process.pid}-${randomUUID().slice(0, 8)}`;
  private readonly tracked = new Map<string, Tracked>();
  private readonly listeners = new Set<(service: string) => void>();
  private proxiesSaid = '';
  private lastBeatAt = -Infinity;
  private unbrokenSince = -Infinity;
  private alive: ReadonlySet<string> = new Set();
  private failure: string | undefined;
  private closing = false;
  private beating: Promise<void> = Promise.resolve();
  private timer: NodeJS.Timeout | undefined;

  constructor(private readonly options: ReplicaOptions) {}

  /** Resolves once it is known to the others: before its first proxy is served. */
  async start(): Promise<void> {
    if (!this.options.table) return;
    await this.beat();
    this.schedule();
  }

  async close(): Promise<void> {
    this.closing = true;
    clearTimeout(this.timer);
    for (const tracked of this.tracked.values()) tracked.wake();
    // A store that hangs must not keep the process.
    await Promise.race([
      this.beating.then(() => this.options.table?.leave(this.id)).catch(() => undefined),
      sleep(1000),
    ]);
  }

  /** Why changes cannot be made here now; undefined while the store answers. */
  problem(): string | undefined {
    if (!this.options.table) return undefined;
    const silentMs = performance.now() - this.lastBeatAt;
    if (silentMs < 3 * beatEveryMs) return undefined;
    return `the Configuration Data Store has not answered for ${(silentMs / 1000).toFixed(1)} s${this.failure ? ` (${this.failure})` : ''}`;
  }

  /**
   * Whether the store has answered for so long without a break that the silence of others is their own: after a stop
   * of Postgres all have been silent, and leases have run out that nobody could renew.
   */
  get canJudge(): boolean {
    return this.problem() === undefined && performance.now() - this.unbrokenSince >= lostAfterMs;
  }

  /** Whether that control plane has ended, by its own word or by its silence. What cannot be judged now is not gone. */
  isGone(id: string): boolean {
    return id !== this.id && this.canJudge && !this.alive.has(id);
  }

  /** The other replicas, with what they hold of the service. */
  async others(service: string): Promise<OtherReplica[]> {
    const { table } = this.options;
    if (!table) return [];
    const others = (await table.list()).filter(({ id }) => id !== this.id);
    this.heard(others);
    if (others.length === 0) return [];
    const holdings = await table.holdings(service);
    return others.map(({ id, silentMs, proxies }) => ({
      id,
      silentMs,
      proxies,
      lost: silentMs >= lostAfterMs && this.canJudge,
      holding: holdings.find((holding) => holding.replica === id),
    }));
  }

  /** How the proxies connected here stand. Waits that long at most for all to answer. */
  async standing(service: string, waitMs: number): Promise<Standing> {
    const { acked, nacked, pending } = await this.options.acknowledgements(this.options.splitKeys(service), waitMs);
    const refused = nacked.map(({ node, type, resource, error }) => ({
      node,
      resource: `${type} ${resource}`,
      // Postgres keeps no zero character; a refusal with one is a refusal all the same.
      reason: error.replaceAll('\0', '\ufffd'),
    }));
    return { acknowledged: [...acked].sort(), refused, pending: [...pending].sort() };
  }

  /** These services were published anew. */
  touch(services: string[]): void {
    // Before the first sign of life nobody knows this replica; that sign says all there is to say.
    if (this.options.table && this.lastBeatAt === -Infinity) return;
    for (const service of services) this.track(service);
  }

  /** Called when the standing of a service's proxies here has changed. Answers how to stop. */
  onStanding(listener: (service: string) => void): () => void {
    this.listeners.add(listener);
    return () => void this.listeners.delete(listener);
  }

  private heard(replicas: { id: string; silentMs: number }[]): void {
    const lively = replicas.filter(({ id, silentMs }) => id !== this.id && silentMs < lostAfterMs);
    this.alive = new Set(lively.map(({ id }) => id));
  }

  private schedule(): void {
    this.timer = setTimeout(() => {
      this.beating = this.beat()
        .catch((error: Error) => {
          if (!this.failure) this.options.log.warn(`replica ${this.id} cannot show that it lives: ${error.message}`);
          this.failure = error.message;
        })
        .finally(() => {
          if (!this.closing) this.schedule();
        });
    }, beatEveryMs);
    this.timer.unref();
  }

  private async beat(): Promise<void> {
    const { table, proxies, services, loads, onBeat } = this.options;
    const connected = proxies();
    const said = connected.join('\n');
    // After a silence others may have forgotten this replica, and with it all that it said: everything is said anew.
    const wasSilent = this.failure !== undefined || performance.now() - this.lastBeatAt > 3 * beatEveryMs;
    const isNews = said !== this.proxiesSaid || wasSilent;
    const replicas = await table!.beat(this.id, isNews ? connected : undefined);
    const now = performance.now();
    if (now - this.lastBeatAt > 3 * beatEveryMs) this.unbrokenSince = now;
    this.lastBeatAt = now;
    this.failure = undefined;
    this.heard(replicas);
    // Who came or went changes what is held; and what failed to be written is written now.
    const due = services().filter((service) => isNews || this.tracked.get(service)?.said === '');
    if (wasSilent) for (const tracked of this.tracked.values()) tracked.said = '';
    this.proxiesSaid = said;
    this.touch(due);
    if (this.alive.size > 0) {
      const all = services().map((service) => ({ service, loads: loads(service) }));
      await table!.reportLoads(this.id, all);
    }
    if (this.canJudge) await table!.forgetLost();
    await onBeat?.();
  }

  private track(service: string): void {
    let tracked = this.tracked.get(service);
    if (!tracked) {
      const standing = { acknowledged: [], refused: [], pending: [] };
      tracked = { said: '', standing, epoch: 0, dirty: false, running: false, wake: () => undefined };
      this.tracked.set(service, tracked);
    }
    tracked.dirty = true;
    tracked.wake();
    if (tracked.running) return;
    tracked.running = true;
    void this.follow(service, tracked);
  }

  /** Says what the proxies here hold, until all have answered. Ends in the same turn in which it sees nothing left. */
  private async follow(service: string, tracked: Tracked): Promise<void> {
    let lookMs = firstLookMs;
    while (!this.closing) {
      const epoch = this.options.epochOf(service);
      if (epoch === undefined) break;
      if (tracked.dirty) lookMs = firstLookMs;
      tracked.dirty = false;
      const woken = new Promise<undefined>((resolve) => (tracked.wake = () => resolve(undefined)));
      const standing = await Promise.race([this.standing(service, lookMs), woken]);
      if (!standing || this.options.epochOf(service) !== epoch) {
        tracked.dirty = true;
        continue;
      }
      if (!(await this.say(service, tracked, epoch, standing))) break;
      if (standing.pending.length === 0 && !tracked.dirty) break;
      lookMs = nextLookMs;
    }
    tracked.running = false;
  }

  private async say(service: string, tracked: Tracked, epoch: number, standing: Standing): Promise<boolean> {
    const { table, log } = this.options;
    const said = JSON.stringify([epoch, standing]);
    if (said === tracked.said) return true;
    try {
      await table?.hold({ replica: this.id, service, epoch, ...standing });
      tracked.said = said;
    } catch (error) {
      log.warn(`what the proxies of ${service} hold could not be written: ${(error as Error).message}`);
      tracked.said = '';
      return false;
    }
    for (const listener of this.listeners) listener(service);
    return true;
  }
}
