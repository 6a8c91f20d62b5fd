/**
 * What one stream has asked for, been sent and accepted of one resource type, and what it is due next. Does no I/O:
 * `hear` takes a request, `respond` answers what to send now, if anything. The two protocols differ in how they name
 * what they want and what they are sent; what is common to them is here.
 */
import { typeUrl, type ResourceType } from '../resources/resource';
import type { DiscoveryAnswer } from './encoding';
import type { ResourceView, VersionedResource } from './resource-set';
import { mayBeRemoved, mayBeSent } from './ordering';

/** One resource on this stream. `null`: told that it is gone. `undefined`: nothing said. */
export interface Entry {
  sent: VersionedResource | null | undefined;
  acked: VersionedResource | null | undefined;
  /** Versions this stream has refused, with its words. They are never sent to it again. */
  rejected?: Map<string, string>;
  /** Owed an answer whatever it has: it asked again. */
  forced?: boolean;
}

export interface Rejection {
  type: ResourceType;
  name: string;
  version: string;
  error: string;
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

/** The other subscriptions of the same stream, for ordering between types. */
export type Siblings = (type: ResourceType) => Subscription | undefined;

export type Verdict = 'settled' | 'wait' | 'send' | 'remove';

export abstract class Subscription {
  wildcard = false;
  readonly names = new Set<string>();
  readonly entries = new Map<string, Entry>();
  /** Names that may be owed something. */
  protected readonly dirty = new Set<string>();
  protected nonces = 0;
  protected heardBefore = false;
  /** At most one response is under way; whatever changes meanwhile is sent, in its latest version, after the answer. */
  inFlight: { nonce: string; items: Map<string, VersionedResource | null> } | null = null;

  constructor(
    readonly type: ResourceType,
    protected readonly resources: ResourceView,
    readonly siblings: Siblings,
  ) {}

  abstract hear(request: DiscoveryRequest): Heard;
  abstract respond(): DiscoveryAnswer | null;
  /** Whether this protocol can say that this resource is gone. */
  protected abstract tellsRemoval(): boolean;

  wants(name: string): boolean {
    return this.wildcard || this.names.has(name);
  }

  /** The resource was published anew, or removed. */
  touch(name: string): void {
    if (this.wants(name)) this.dirty.add(name);
  }

  /** What this stream has accepted of the resource; an older version counts. */
  holds(name: string): boolean {
    return Boolean(this.entries.get(name)?.acked);
  }

  /** The resource as it should be now. */
  lookUp(type: ResourceType, name: string): VersionedResource | undefined {
    return this.resources.get(type, name);
  }

  hasRejected(resource: VersionedResource): boolean {
    return this.entries.get(resource.name)?.rejected?.has(resource.version) ?? false;
  }

  /** Whether the stream has accepted what the update of that sequence, or a later one, made of the resource. */
  standing(name: string, sequence: number): Standing {
    const entry = this.entries.get(name);
    const resource = this.resources.get(this.type, name);
    if (!this.wants(name)) return 'unconcerned';
    if (!resource) return !this.tellsRemoval() || !entry?.acked ? 'acked' : 'pending';
    const error = entry?.rejected?.get(resource.version);
    if (error !== undefined) return { rejected: error };
    const { acked } = entry ?? {};
    return acked && (acked.version === resource.version || acked.sequence >= sequence) ? 'acked' : 'pending';
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

  protected forget(name: string): void {
    this.entries.delete(name);
    this.dirty.delete(name);
  }

  protected touchAll(): void {
    for (const name of this.resources.names(this.type)) this.dirty.add(name);
    for (const name of this.entries.keys()) this.dirty.add(name);
  }

  /** What to do about one name now. */
  protected judge(name: string): Verdict {
    if (!this.wants(name)) return 'settled';
    const entry = this.entries.get(name);
    const resource = this.resources.get(this.type, name);
    if (resource) {
      if (entry?.rejected?.has(resource.version)) return 'settled';
      if (!entry?.forced && entry?.sent?.version === resource.version) return 'settled';
      return mayBeSent(resource, this) ? 'send' : 'wait';
    }
    if (!this.tellsRemoval()) return 'settled';
    if (this.resources.isWithheld(name)) return 'wait';
    if (!entry?.forced && (entry?.sent === null || (!entry?.sent && !this.names.has(name)))) return 'settled';
    return !entry?.sent || mayBeRemoved(this.type, name, this) ? 'remove' : 'wait';
  }

  protected answer(items: Map<string, VersionedResource | null>, version: string): DiscoveryAnswer {
    const nonce = String((this.nonces += 1));
    for (const [name, resource] of items) {
      const entry = this.entry(name);
      const renewed = entry.sent && resource && entry.sent.version !== resource.version;
      entry.sent = resource;
      entry.forced = false;
      // Envoy warms a changed cluster and waits for its endpoints again (envoy#33607, #13009).
      if (renewed && this.type === 'cluster') this.demandReferenced(resource);
    }
    this.inFlight = { nonce, items };
    const resources: VersionedResource[] = [];
    const removed: string[] = [];
    for (const [name, resource] of items) {
      if (resource) resources.push(resource);
      else removed.push(name);
    }
    return { typeUrl: typeUrl(this.type), nonce, version, resources, removed };
  }

  /** "error_detail alone marks a NACK" (envoy#14841), whatever version the request carries. */
  protected settle(request: DiscoveryRequest): Heard {
    const { items } = this.inFlight!;
    this.inFlight = null;
    if (!request.error_detail) {
      for (const [name, resource] of items) {
        const entry = this.entries.get(name);
        if (!entry) continue;
        entry.acked = resource;
        if (resource === null && !this.names.has(name)) this.entries.delete(name);
      }
      return { kind: 'ack', rejected: [] };
    }
    return { kind: 'nack', rejected: this.reject(items, request.error_detail.message ?? '') };
  }

  /**
   * A proxy refuses a response as a whole but usually names the culprits. Those are held back; the rest is sent again
   * without them. If it names nobody, all that was new in the response is held back.
   */
  private reject(items: Map<string, VersionedResource | null>, error: string): Rejection[] {
    const fresh: VersionedResource[] = [];
    for (const [name, resource] of items) {
      const entry = this.entries.get(name);
      if (!entry) continue;
      if (resource && resource.version !== entry.acked?.version) fresh.push(resource);
      // What was only repeated, or told to be gone, is not what was refused.
      if (resource) entry.sent = entry.acked;
      this.dirty.add(name);
    }
    const named = fresh.filter((resource) => mentions(error, resource.name));
    const culprits = named.length > 0 ? named : fresh;
    return culprits.map((resource) => {
      const entry = this.entry(resource.name);
      (entry.rejected ??= new Map()).set(resource.version, error);
      return { type: this.type, name: resource.name, version: resource.version, error };
    });
  }

  private demandReferenced(cluster: VersionedResource): void {
    const endpoints = this.siblings('endpoints');
    for (const { name } of cluster.references === 'unknown' ? [] : cluster.references) {
      if (endpoints?.wants(name)) endpoints.demand(name);
    }
  }
}

/** Whether the text names the resource as a word of its own: `shop` is not named by `shop|a`. */
export function mentions(text: string, name: string): boolean {
  const literal = name.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  return new RegExp(`(^|[^\\w|-])${literal}($|[^\\w|-])`).test(text);
}
