/** Cookie affinity: a caller that has a session goes on to the instance that has it. */
import type { ServiceDocument } from '../../blueprints/schema';
import { duration, type EnvoyMessage } from '../protos';
import { anyOf } from './resource';

/**
 * The filters, before the router, that a service's affinity needs. The cookie names the instance, so a session stays
 * where it is whatever the weights become; a caller without one follows the weights and is given one. A session ends,
 * and the caller is served by another instance and given its cookie, as soon as its instance is unhealthy, ejected,
 * draining or no longer assigned: that is how a cell whose share becomes 0 is drained.
 */
export function affinityFilters({ affinity }: ServiceDocument): EnvoyMessage[] {
  if (!affinity) return [];
  const { cookie: name, path, ttlS } = affinity;
  return [
    {
      name: 'envoy.filters.http.stateful_session',
      typed_config: {
        '@type': anyOf('envoy.extensions.filters.http.stateful_session.v3.StatefulSession'),
        session_state: {
          name: 'envoy.http.stateful_session.cookie',
          typed_config: {
            '@type': anyOf('envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState'),
            cookie: { name, path, ...(ttlS > 0 && { ttl: duration(1000 * ttlS) }) },
          },
        },
      },
    },
  ];
}
