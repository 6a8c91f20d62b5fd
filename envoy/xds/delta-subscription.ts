/** Incremental xDS: only what changed, each resource under its own version, removals named. */
import { hasWildcard, type ResourceType } from '../resources/resource';
import type { DiscoveryAnswer } from './encoding';
import { isAwaited } from './ordering';
import type { VersionedResource } from './resource-set';
import { Subscription, type DiscoveryRequest, type Heard } from './subscription';

export class DeltaSubscription extends Subscription {
  /** "the server must respond" to a first wildcard request: Envoy waits for it at start, even for nothing. */
  private owesFirst = false;

  hear(request: DiscoveryRequest): Heard {
    const subscribe = request.resource_names_subscribe ?? [];
    const unsubscribe = request.resource_names_unsubscribe ?? [];
    // "initial_resource_versions" count in the first request of a type only.
    const held = this.heardBefore ? undefined : this.begin(request, subscribe, unsubscribe);
    this.heardBefore = true;
    for (const name of subscribe) {
      if (name === '*' && hasWildcard(this.type)) {
        if (!this.wildcard) this.beginWildcard(!held?.size);
        continue;
      }
      this.names.add(name);
      // "the server must provide the resource again" if a name is subscribed anew, unless the client brought it along.
      if (held?.has(name) && !this.entries.get(name)?.forced) this.dirty.add(name);
      else this.demand(name);
    }
    for (const name of unsubscribe) this.unsubscribe(name);
    if (held) for (const name of held.keys()) if (!this.wants(name)) this.forget(name);

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
      if (verdict.kind === 'wait') continue;
      if (verdict.kind === 'send') items.set(name, verdict.resource);
      if (verdict.kind === 'remove') items.set(name, null);
      if (verdict.kind !== 'send' || !verdict.more) this.dirty.delete(name);
    }
    if (items.size === 0 && this.fading.size === 0 && !this.owesFirst) return null;
    this.owesFirst = false;
    return this.answer(items, String(this.stream.resources.sequence));
  }

  protected tellsRemoval(): boolean {
    return true;
  }

  /** What the proxy brings from an earlier stream is taken as held. Answers that, by name. */
  private begin(request: DiscoveryRequest, subscribe: string[], unsubscribe: string[]): Map<string, string> {
    const held = new Map(Object.entries(request.initial_resource_versions ?? {}));
    const recalled = new Map(this.stream.recall(this.type).map((recollection) => [recollection.name, recollection]));
    for (const [name, { refused }] of recalled) this.refusals.take(name, refused);
    for (const [name, version] of held) {
      const { lastGood, isOwed = false } = recalled.get(name) ?? {};
      const known = [this.current(name), lastGood].find((resource) => resource?.version === version);
      const entry = this.entry(name);
      entry.acked = entry.sent = known ?? broughtAlong(this.type, name, version);
      entry.forced = isOwed || isAwaited(this.type, name, this);
      this.dirty.add(name);
    }
    // "If the first request names nothing, it asks for everything"; that is for clusters and listeners alone.
    const isEmpty = subscribe.length === 0 && !unsubscribe.includes('*');
    if (isEmpty && hasWildcard(this.type)) this.beginWildcard(held.size === 0);
    return held;
  }

  private beginWildcard(owesFirst: boolean): void {
    this.wildcard = true;
    this.owesFirst = owesFirst;
    this.touchAll();
  }

  private unsubscribe(name: string): void {
    if (name === '*' && hasWildcard(this.type)) {
      this.wildcard = false;
      this.owesFirst = false;
      for (const known of [...this.entries.keys()]) if (!this.names.has(known)) this.forget(known);
      return;
    }
    if (!this.names.delete(name)) return;
    // Under a wildcard it stays wanted, and the client must be told either way what it is now.
    if (this.wildcard) this.demand(name);
    else this.forget(name);
  }
}

function broughtAlong(type: ResourceType, name: string, version: string): VersionedResource {
  const empty = Buffer.alloc(0);
  return { type, name, version, sequence: 0, references: 'unknown', packed: empty, wrapped: empty };
}
