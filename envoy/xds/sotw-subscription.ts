/** State of the world: each answer for clusters and listeners is the whole truth; for endpoints and routes, news only. */
import { createHash } from 'node:crypto';
import type { DiscoveryAnswer } from './encoding';
import type { VersionedResource } from './resource-set';
import { Subscription, type DiscoveryRequest, type Heard } from './subscription';

export class StateOfTheWorldSubscription extends Subscription {
  private lastNonce = '';
  /** The next answer is due whether or not something changed: the stream asked anew. */
  private owes = false;
  /** Everything is wanted because the first request named nothing, not because it named `*`. */
  private legacyWildcard = false;

  hear(request: DiscoveryRequest): Heard {
    const nonce = request.response_nonce ?? '';
    // "the server should ignore" a request with a stale nonce: its sender will ask again once it has read the newer one.
    if (nonce !== '' && this.heardBefore && nonce !== this.lastNonce) return { kind: 'stale', rejected: [] };
    this.subscribe(request.resource_names ?? []);
    this.heardBefore = true;
    if (nonce === '' || nonce !== this.inFlight?.nonce) return { kind: 'request', rejected: [] };
    return this.settle(request);
  }

  respond(): DiscoveryAnswer | null {
    if (this.inFlight) return null;
    const waiting = new Set<string>();
    const news = new Set<string>();
    for (const name of this.dirty) {
      const verdict = this.judge(name);
      if (verdict === 'wait') waiting.add(name);
      // A name that never was is no news to anybody.
      else if (verdict === 'send' || (verdict === 'remove' && this.entries.get(name)?.sent)) news.add(name);
    }
    const isDue = this.owes || news.size > 0;
    if (!isDue) {
      this.keepDirty(waiting);
      return null;
    }
    const items = this.isWhole() ? this.everything(waiting) : this.only(news);
    // A client that named what does not exist is kept waiting in silence, and answered when it does.
    if (items.size === 0 && !this.wildcard && !this.hasSent()) return null;
    this.keepDirty(waiting);
    this.owes = false;
    const answer = this.answer(items, versionOf(items));
    this.lastNonce = answer.nonce;
    return { ...answer, removed: [] };
  }

  protected tellsRemoval(): boolean {
    return this.isWhole();
  }

  /** Clusters and listeners: what an answer leaves out is deleted. */
  private isWhole(): boolean {
    return this.type === 'cluster' || this.type === 'listener';
  }

  /** Every request carries the full list of names. */
  private subscribe(list: string[]): void {
    const names = new Set(list);
    const explicit = names.delete('*');
    // "if the first request names nothing, it asks for everything"; naming anything ends that for good.
    const legacy = this.isWhole() && list.length === 0 && (!this.heardBefore || this.legacyWildcard);
    this.legacyWildcard = legacy;
    const wildcard = explicit || legacy;
    if (wildcard && !this.wildcard) {
      this.owes = true;
      this.touchAll();
    }
    this.wildcard = wildcard;
    for (const name of [...this.names]) {
      if (names.has(name)) continue;
      this.names.delete(name);
      if (!wildcard) this.forget(name);
    }
    for (const name of names) {
      if (this.names.has(name)) continue;
      this.names.add(name);
      this.demand(name);
    }
    if (!wildcard) for (const name of [...this.entries.keys()]) if (!names.has(name)) this.forget(name);
  }

  /** All there is to say, in place of what was refused what was good before, and what must not go yet. */
  private everything(waiting: Set<string>): Map<string, VersionedResource | null> {
    const items = new Map<string, VersionedResource | null>();
    for (const name of new Set([...this.resources.names(this.type), ...this.entries.keys()])) {
      if (!this.wants(name)) continue;
      const resource = this.resources.get(this.type, name);
      const entry = this.entries.get(name);
      const isHeldBack = waiting.has(name) || (resource && entry?.rejected?.has(resource.version));
      const effective = isHeldBack ? (entry?.acked ?? entry?.sent) : resource;
      if (effective) items.set(name, effective);
      else if (entry?.sent) items.set(name, null);
    }
    return items;
  }

  private only(news: Set<string>): Map<string, VersionedResource | null> {
    return new Map([...news].map((name) => [name, this.resources.get(this.type, name)!]));
  }

  private keepDirty(waiting: Set<string>): void {
    this.dirty.clear();
    for (const name of waiting) this.dirty.add(name);
  }

  private hasSent(): boolean {
    return this.lastNonce !== '';
  }
}

function versionOf(items: Map<string, VersionedResource | null>): string {
  const hash = createHash('sha256');
  for (const [name, resource] of [...items].sort(([a], [b]) => (a < b ? -1 : 1))) {
    if (resource) hash.update(`${name}=${resource.version}\n`);
  }
  return hash.digest('hex').slice(0, 16);
}
