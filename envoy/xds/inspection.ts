/** How a stream stands, resource by resource, for people: who has which version of what, and who refused what and why. */
import type { ResourceType } from '../resources/resource';
import type { ResourceView } from './resource-set';
import type { Subscription } from './subscription';

export interface ProxyStatus {
  node: string;
  identity: string;
  protocol: string;
  /** What the proxy says it is: name and version. */
  agent: string;
  /** ISO 8601. */
  connectedAt: string;
  /** `in sync`: has accepted all that it asked for as it is now. */
  state: 'in sync' | 'waiting' | 'refusing';
  types: TypeStatus[];
}

export interface TypeStatus {
  type: ResourceType;
  /** `*`, or how many names. */
  subscribed: number | '*';
  resources: ResourceStatus[];
}

export interface ResourceStatus {
  name: string;
  /** The version it has accepted last; null if none. */
  holds: string | null;
  /** The version it should have; null if the resource is gone. */
  wanted: string | null;
  state: 'accepted' | 'sent' | 'refused' | 'unsent';
  /** In the proxy's own words. */
  error?: string;
}

export function describeSubscription(subscription: Subscription, view: ResourceView): TypeStatus {
  const { type, wildcard, names } = subscription;
  const wanted = new Set([...view.names(type), ...subscription.entries.keys()].filter((n) => subscription.wants(n)));
  const resources = [...wanted].sort().flatMap((name): ResourceStatus[] => {
    const entry = subscription.entries.get(name);
    const current = view.get(type, name);
    // Asked for, never there: there is nothing to say of it.
    if (!current && !entry?.acked && !entry?.sent) return [];
    const holds = entry?.acked?.version ?? null;
    const error = current && subscription.refusals.error(current);
    const state =
      error !== undefined
        ? 'refused'
        : holds === (current?.version ?? null)
          ? 'accepted'
          : entry?.sent && entry.sent.version === current?.version
            ? 'sent'
            : 'unsent';
    return [{ name, holds, wanted: current?.version ?? null, state, ...(error !== undefined && { error }) }];
  });
  return { type, subscribed: wildcard ? '*' : names.size, resources };
}

export function stateOf(types: readonly TypeStatus[]): ProxyStatus['state'] {
  const states = new Set(types.flatMap(({ resources }) => resources.map(({ state }) => state)));
  if (states.has('refused')) return 'refusing';
  return states.has('sent') || states.has('unsent') ? 'waiting' : 'in sync';
}
