/** State of the world: each answer for clusters and listeners is the whole truth; for all others, news only. */
import { createHash } from 'node:crypto';
import { hasWildcard } from '../resources/resource';
import type { DiscoveryAnswer } from './encoding';
import type { VersionedResource } from './resource-set';
import { Subscription, type DiscoveryRequest, type Heard, type Recollection } from './subscription';

export class StateOfTheWorldSubscription extends Subscription {
  private lastNonce = '';
  /** The next answer is due whether or not something changed: the stream asked anew. */
  private owes = false;
  /** Everything is wanted because the first request named nothing, not because it named `*`. */
  private legacyWildcard = false;
  /** What a proxy that came back asked for first: until it has accepted an answer, nobody knows what it holds of that. */
  private fromBefore: Set<string> | undefined;

  hear(request: DiscoveryRequest): Heard {
    const nonce = request.response_nonce ?? '';
    // "the server should ignore" a request with a stale nonce: its sender will ask again once it has read the newer one.
    if (nonce !== '' && this.heardBefore && nonce !== this.lastNonce) return { kind: 'stale', rejected: [] };
    if (!this.heardBefore) this.begin();
    this.subscribe(request.resource_names ?? []);
    if (!this.heardBefore && this.stream.isReconnected) this.fromBefore = new Set(this.names);
    this.heardBefore = true;
    if (nonce === '' || nonce !== this.inFlight?.nonce) return { kind: 'request', rejected: [] };
    return this.settle(request);
  }

  respond(): DiscoveryAnswer | null {
    if (this.inFlight || this.mustKeepSilent()) return null;
    const waiting = new Set<string>();
    const news = new Map<string, VersionedResource | null>();
    for (const name of this.dirty) {
      const verdict = this.judge(name);
      if (verdict.kind === 'send') news.set(name, verdict.resource);
      if (verdict.kind === 'wait' || (verdict.kind === 'send' && verdict.more)) waiting.add(name);
      // A name that never was is no news to anybody.
      if (verdict.kind === 'remove' && this.entries.get(name)?.sent) news.set(name, null);
    }
    this.dirty.clear();
    for (const name of waiting) this.dirty.add(name);
    // An answer that tells everything confirms everything; leaving a name out would delete it.
    if (this.isWhole() && this.fading.size > 0) this.owes = true;
    if (news.size === 0 && this.fading.size === 0 && !this.owes) return null;
    const items = this.isWhole() ? this.everything(waiting) : news;
    if (this.isWhole()) this.fading.clear();
    // A client that named only what does not exist is kept waiting in silence, and answered when it does.
    if (items.size === 0 && this.fading.size === 0 && !this.wildcard && this.lastNonce === '') return null;
    this.owes = false;
    const answer = this.answer(items, versionOf(items));
    this.lastNonce = answer.nonce;
    return { ...answer, removed: [] };
  }

  override mayHoldMore(): boolean {
    if (this.isWhole()) return this.stream.isReconnected && this.lastNonce === '';
    return [...(this.fromBefore ?? [])].some((name) => this.names.has(name) && !this.entries.get(name)?.acked);
  }

  /** Clusters too that were taken away while it was gone: a proxy does not say which it holds. */
  override recollections(): Recollection[] {
    const recollections = super.recollections();
    if (this.type !== 'cluster') return recollections;
    const known = new Set(recollections.map(({ name }) => name));
    for (const [name, { acked }] of this.entries) {
      if (!acked || known.has(name)) continue;
      recollections.push({ type: this.type, name, refused: new Map(), lastGood: acked, isOwed: false });
    }
    return recollections;
  }

  protected tellsRemoval(): boolean {
    return this.isWhole();
  }

  protected override isWhole(): boolean {
    return hasWildcard(this.type);
  }

  /** A proxy that comes back holds what it accepted, and refuses what it refused. */
  private begin(): void {
    for (const { name, refused, lastGood } of this.stream.recall(this.type)) {
      this.refusals.take(name, refused);
      if (lastGood) Object.assign(this.entry(name), { sent: lastGood, acked: lastGood });
    }
  }

  /** While a service cannot be built, the whole truth is not known, and what is left out would be deleted. */
  private mustKeepSilent(): boolean {
    return this.isWhole() && this.lastNonce === '' && this.stream.isReconnected && this.stream.resources.isIncomplete;
  }

  /** Every request carries the full list of names. */
  private subscribe(list: string[]): void {
    const names = new Set(list);
    const explicit = hasWildcard(this.type) && names.delete('*');
    // "if the first request names nothing, it asks for everything"; naming anything ends that for good.
    const legacy = this.isWhole() && list.length === 0 && (!this.heardBefore || this.legacyWildcard);
    this.legacyWildcard = legacy;
    const wildcard = explicit || legacy;
    if (wildcard && !this.wildcard) {
      this.owes = true;
      this.touchAll();
    }
    this.wildcard = wildcard;
    for (const name of this.names) {
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
    for (const name of new Set([...this.stream.resources.names(this.type), ...this.entries.keys()])) {
      if (!this.wants(name)) continue;
      const resource = this.current(name);
      const entry = this.entries.get(name);
      const isHeldBack = waiting.has(name) || (resource && this.hasRejected(resource));
      const effective = isHeldBack ? (entry?.acked ?? entry?.sent) : resource;
      if (effective) items.set(name, effective);
      else if (entry?.sent) items.set(name, null);
    }
    return items;
  }
}

function versionOf(items: Map<string, VersionedResource | null>): string {
  const hash = createHash('sha256');
  for (const [name, resource] of [...items].sort(([a], [b]) => (a < b ? -1 : 1))) {
    if (resource) hash.update(`${name}=${resource.version}\n`);
  }
  return hash.digest('hex').slice(0, 16);
}
