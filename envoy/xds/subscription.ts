/**
 * What one stream has asked for, been sent and accepted of one resource type, and what it is due next. Does no I/O:
 * `hear` takes a request, `respond` answers what to send now, if anything. The two protocols differ in how they name
 * what they want and what they are sent; what is common to them is here.
 */
import { typeUrl, type ResourceType } from '../resources/resource';
import type { DiscoveryAnswer } from './encoding';
import { mayBeRemoved, mayBeSent } from './ordering';
import { culpritsOf, Refusals, type Rejection } from './refusals';
import type { ResourceView, VersionedResource } from './resource-set';

/** One resource on this stream. `null`: told that it is gone. `undefined`: nothing said. */
export interface Entry {
  sent: VersionedResource | null | undefined;
  acked: VersionedResource | null | undefined;
  /** Owed an answer whatever it has: it asked again. */
  forced?: boolean;
  /** When it was last sent or confirmed, epoch milliseconds; only for what has a time to live. */
  confirmedAt?: number;
}

/** What a request turned out to be. */
export interface Heard {
  kind: 'request' | 'ack' | 'nack' | 'stale';
  rejected: Rejection[];
}

/** How a stream stands towards one resource. */
export type Standing = 'unconcerned' | 'acked' | 'pending' | { rejected: string };

export interface DiscoveryRequest {
  response_nonce?: string;
  version_info?: string;
  error_detail?: { code?: number; message?: string } | null;
  /** State of the world. */
  resource_names?: string[];
  /** Delta. */
  resource_names_subscribe?: string[];
  resource_names_unsubscribe?: string[];
  initial_resource_versions?: Record<string, string>;
}

/** What is known of a proxy's resource from its streams before this one. */
export interface Recollection {
  type: ResourceType;
  name: string;
  refused: ReadonlyMap<string, string>;
  /** What it accepted last. */
  lastGood: VersionedResource | undefined;
  /** It waited for the resource, although it may hold that very version. */
  isOwed: boolean;
}

/** What a subscription must know of the stream it is part of. */
export interface StreamContext {
  resources: ResourceView;
  /** The other subscriptions of the same stream, for ordering between types. */
  siblings(type: ResourceType): Subscription | undefined;
  /** The proxy holds things from an earlier stream. */
  readonly isReconnected: boolean;
  /** The proxy has had time to ask for all it holds; until then silence about a type means nothing. */
  readonly hasSettled: boolean;
  /** The proxy understands a time to live and its renewal. */
  readonly supportsTtl: boolean;
  /** What earlier streams of a proxy that came back have left behind; nothing for one that started anew. */
  recall(type: ResourceType): Recollection[];
}

export type Verdict =
  | { kind: 'settled' | 'wait' | 'remove' }
  /** `more`: something newer has to wait and is due later. */
  | { kind: 'send'; resource: VersionedResource; more?: boolean };

export abstract class Subscription {
  wildcard = false;
  readonly names = new Set<string>();
  readonly entries = new Map<string, Entry>();
  readonly refusals = new Refusals();
  /** Names that may be owed something. */
  protected readonly dirty = new Set<string>();
  /** Names whose time to live is to be renewed. */
  protected readonly fading = new Set<string>();
  protected nonces = 0;
  protected heardBefore = false;
  /** At most one response is under way; whatever changes meanwhile is sent, in its latest version, after the answer. */
  inFlight: { nonce: string; items: Map<string, VersionedResource | null> } | null = null;

  constructor(
    readonly type: ResourceType,
    readonly stream: StreamContext,
  ) {}

  abstract hear(request: DiscoveryRequest): Heard;
  abstract respond(): DiscoveryAnswer | null;
  /** Whether this protocol can say that a resource of this type is gone. */
  protected abstract tellsRemoval(): boolean;

  wants(name: string): boolean {
    return this.wildcard || this.names.has(name);
  }

  /** The resource was published anew, or removed. */
  touch(name: string): void {
    if (this.wants(name)) this.dirty.add(name);
  }

  /** Notes what has to be confirmed before the proxy drops it: each a third of its time to live after the last word. */
  beat(now: number): void {
    if (!this.stream.supportsTtl) return;
    for (const resource of this.stream.resources.fading(this.type)) {
      const entry = this.entries.get(resource.name);
      if (!entry?.acked || entry.acked !== entry.sent || entry.acked.version !== resource.version) continue;
      if (now - (entry.confirmedAt ?? 0) >= resource.ttl!.ms / 3) this.fading.add(resource.name);
    }
  }

  /** Whether this stream has accepted the resource; an older version counts. */
  holds(name: string): boolean {
    return Boolean(this.entries.get(name)?.acked);
  }

  /** Whether the proxy came back and may hold something of this type that it has not told the version of. */
  mayHoldMore(): boolean {
    return false;
  }

  hasRejected(resource: VersionedResource): boolean {
    return this.refusals.error(resource) !== undefined;
  }

  /** Whether the stream has accepted what the update of that sequence, or a later one, made of the resource. */
  standing(name: string, sequence: number): Standing {
    if (!this.wants(name)) return 'unconcerned';
    const entry = this.entries.get(name);
    const resource = this.current(name);
    if (!resource) return !this.tellsRemoval() || !entry?.acked ? 'acked' : 'pending';
    const error = this.refusals.error(resource);
    if (error !== undefined) return { rejected: error };
    const { acked } = entry ?? {};
    return acked && (acked.version === resource.version || acked.sequence >= sequence) ? 'acked' : 'pending';
  }

  /** What a later stream of the same proxy should know. */
  recollections(): Recollection[] {
    const names = new Set(this.refusals.names());
    for (const [name, { forced }] of this.entries) if (forced) names.add(name);
    for (const name of this.inFlight?.items.keys() ?? []) if (this.isRepeated(name)) names.add(name);
    return [...names].map((name) => ({
      type: this.type,
      name,
      refused: this.refusals.of(name),
      lastGood: this.entries.get(name)?.acked ?? undefined,
      isOwed: Boolean(this.entries.get(name)?.forced) || this.isRepeated(name),
    }));
  }

  /** The resource as it should be now. */
  protected current(name: string): VersionedResource | undefined {
    return this.stream.resources.get(this.type, name);
  }

  protected entry(name: string): Entry {
    let entry = this.entries.get(name);
    if (!entry) this.entries.set(name, (entry = { sent: undefined, acked: undefined }));
    return entry;
  }

  /** The stream asked for this name: it is owed an answer even if it had one. */
  protected demand(name: string): void {
    this.entry(name).forced = true;
    this.dirty.add(name);
  }

  /** Its refusals are remembered: should it ask again, it must not be sent them. */
  protected forget(name: string): void {
    this.entries.delete(name);
    this.dirty.delete(name);
    this.fading.delete(name);
  }

  protected touchAll(): void {
    for (const name of this.stream.resources.names(this.type)) this.dirty.add(name);
    for (const name of this.entries.keys()) this.dirty.add(name);
  }

  /** What to do about one name now. */
  protected judge(name: string): Verdict {
    if (!this.wants(name)) return { kind: 'settled' };
    const entry = this.entries.get(name);
    const resource = this.current(name);
    if (!resource) return this.judgeAbsent(name, entry);
    const isRefused = this.hasRejected(resource);
    if (!isRefused && mayBeSent(resource, this)) {
      const isKnown = !entry?.forced && entry?.sent?.version === resource.version;
      return isKnown ? { kind: 'settled' } : { kind: 'send', resource };
    }
    // It asks again while what it should have is refused or has to wait: the answer is what it accepted before.
    const { acked } = entry ?? {};
    if (entry?.forced && acked && acked.packed.length > 0 && !this.hasRejected(acked))
      return { kind: 'send', resource: acked, more: !isRefused };
    return { kind: isRefused ? 'settled' : 'wait' };
  }

  protected answer(items: Map<string, VersionedResource | null>, version: string): DiscoveryAnswer {
    const nonce = String((this.nonces += 1));
    const now = Date.now();
    for (const [name, resource] of items) {
      const entry = this.entry(name);
      const isRenewed = entry.sent && resource && entry.sent.version !== resource.version;
      entry.sent = resource;
      entry.forced = false;
      if (resource?.ttl) entry.confirmedAt = now;
      if (isRenewed && this.type === 'cluster') this.demandEndpoints(resource);
    }
    const heartbeats = this.heartbeats(items, now);
    this.inFlight = { nonce, items };
    const resources: VersionedResource[] = [];
    const removed: string[] = [];
    for (const [name, resource] of items) {
      if (resource) resources.push(resource);
      else removed.push(name);
    }
    const { supportsTtl } = this.stream;
    return { typeUrl: typeUrl(this.type), nonce, version, resources, removed, heartbeats, supportsTtl };
  }

  /** "error_detail alone marks a NACK" (envoy#14841), whatever version the request carries. */
  protected settle(request: DiscoveryRequest): Heard {
    const { items } = this.inFlight!;
    this.inFlight = null;
    if (request.error_detail) return { kind: 'nack', rejected: this.reject(items, request.error_detail.message ?? '') };
    for (const [name, resource] of items) this.accept(name, resource);
    return { kind: 'ack', rejected: [] };
  }

  private judgeAbsent(name: string, entry: Entry | undefined): Verdict {
    if (!this.tellsRemoval()) return { kind: 'settled' };
    if (this.stream.resources.isWithheld(name)) return { kind: 'wait' };
    if (!entry?.forced && (entry?.sent === null || (!entry?.sent && !this.names.has(name)))) return { kind: 'settled' };
    return { kind: !entry?.sent || mayBeRemoved(this.type, name, this) ? 'remove' : 'wait' };
  }

  private accept(name: string, resource: VersionedResource | null): void {
    const entry = this.entries.get(name);
    // It was unsubscribed meanwhile.
    if (!entry) return;
    entry.acked = resource;
    if (resource === null && !this.names.has(name)) this.entries.delete(name);
  }

  /**
   * A proxy refuses a response as a whole but usually names the culprits. Those are held back; the rest is sent again
   * without them. If it names nobody, all that was new in the response is held back.
   */
  private reject(items: Map<string, VersionedResource | null>, error: string): Rejection[] {
    const sent = [...items.values()].filter((resource) => resource !== null);
    const isFresh = ({ name, version }: VersionedResource): boolean =>
      this.entries.get(name)?.acked?.version !== version;
    const culprits = culpritsOf(sent, sent.filter(isFresh), error);
    for (const [name, resource] of items) {
      const entry = this.entries.get(name);
      if (!entry) continue;
      // Nobody can refuse an absence: told alone, it has been taken.
      if (!resource && culprits.length === 0) {
        this.accept(name, resource);
        continue;
      }
      // What was repeated for a reason was refused together with the culprit, so the reason stands.
      if (resource && !isFresh(resource) && !culprits.includes(resource) && !this.isWhole()) entry.forced = true;
      entry.sent = entry.acked;
      this.dirty.add(name);
    }
    return culprits.map((resource) => this.refusals.add(resource, error));
  }

  /** Clusters and listeners by state of the world: what an answer leaves out is deleted. */
  protected isWhole(): boolean {
    return false;
  }

  private isRepeated(name: string): boolean {
    const resource = this.inFlight?.items.get(name);
    return Boolean(resource) && this.entries.get(name)?.acked?.version === resource?.version;
  }

  private heartbeats(items: Map<string, unknown>, now: number): VersionedResource[] {
    const heartbeats: VersionedResource[] = [];
    for (const name of this.fading) {
      const entry = this.entries.get(name);
      if (items.has(name) || !entry?.acked?.ttl) continue;
      entry.confirmedAt = now;
      heartbeats.push(entry.acked);
    }
    this.fading.clear();
    return heartbeats;
  }

  /** Envoy warms a changed cluster and waits for its endpoints again (envoy#33607, #13009). */
  private demandEndpoints(cluster: VersionedResource): void {
    const endpoints = this.stream.siblings('endpoints');
    for (const { type, name } of cluster.references === 'unknown' ? [] : cluster.references)
      if (type === 'endpoints' && endpoints?.wants(name)) endpoints.demand(name);
  }
}
