/** Incremental xDS: only what changed, each resource under its own version, removals named. */
import type { DiscoveryAnswer } from './encoding';
import type { VersionedResource } from './resource-set';
import { Subscription, type DiscoveryRequest, type Heard } from './subscription';

export class DeltaSubscription extends Subscription {
  /** "the server must respond" to a first wildcard request: Envoy waits for it at start, even for nothing. */
  private owesFirst = false;

  hear(request: DiscoveryRequest): Heard {
    const subscribe = request.resource_names_subscribe ?? [];
    const unsubscribe = request.resource_names_unsubscribe ?? [];
    const held = new Map(Object.entries(request.initial_resource_versions ?? {}));
    if (!this.heardBefore) this.begin(subscribe, held);
    this.heardBefore = true;

    for (const name of subscribe) {
      if (name === '*') {
        if (!this.wildcard) this.beginWildcard(held.size === 0);
        continue;
      }
      this.names.add(name);
      // "the server must provide the resource again" if a name is subscribed anew, unless the client brought it along.
      if (held.has(name)) this.dirty.add(name);
      else this.demand(name);
    }
    for (const name of unsubscribe) this.unsubscribe(name);

    if (!request.response_nonce) return { kind: 'request', rejected: [] };
    // A stale nonce is no answer to what is under way, but what it subscribes counts.
    if (request.response_nonce !== this.inFlight?.nonce) return { kind: 'stale', rejected: [] };
    return this.settle(request);
  }

  respond(): DiscoveryAnswer | null {
    if (this.inFlight) return null;
    const items = new Map<string, VersionedResource | null>();
    for (const name of this.dirty) {
      const verdict = this.judge(name);
      if (verdict === 'wait') continue;
      this.dirty.delete(name);
      if (verdict === 'send') items.set(name, this.resources.get(this.type, name)!);
      if (verdict === 'remove') items.set(name, null);
    }
    if (items.size === 0 && !this.owesFirst) return null;
    this.owesFirst = false;
    return this.answer(items, String(this.resources.sequence));
  }

  protected tellsRemoval(): boolean {
    return true;
  }

  /** A first request without names means everything; versions it brings from an earlier stream are taken as held. */
  private begin(subscribe: string[], held: Map<string, string>): void {
    for (const [name, version] of held) {
      const current = this.resources.get(this.type, name);
      const known = current?.version === version ? current : broughtAlong(this.type, name, version);
      this.entries.set(name, { sent: known, acked: known });
      this.dirty.add(name);
    }
    if (subscribe.length === 0) this.beginWildcard(held.size === 0);
  }

  private beginWildcard(owesFirst: boolean): void {
    this.wildcard = true;
    this.owesFirst = owesFirst;
    this.touchAll();
  }

  private unsubscribe(name: string): void {
    if (name === '*') {
      this.wildcard = false;
      for (const known of [...this.entries.keys()]) if (!this.names.has(known)) this.forget(known);
      return;
    }
    if (!this.names.delete(name)) return;
    // Under a wildcard it stays wanted, and the client must be told either way what it is now.
    if (this.wildcard) this.demand(name);
    else this.forget(name);
  }
}

function broughtAlong(type: VersionedResource['type'], name: string, version: string): VersionedResource {
  const empty = Buffer.alloc(0);
  return { type, name, version, sequence: 0, references: 'unknown', packed: empty, wrapped: empty };
}
