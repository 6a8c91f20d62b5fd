/** Listeners: where callers reach a service. */
import type { ServiceDocument } from '../../blueprints/schema';
import type { EnvoyMessage } from '../protos';
import { sampledAccessLog } from './access-log';
import { affinityFilters } from './affinity';
import { anyOf, proxylessName, type Resource } from './resource';

/** One listener per service on its declared address, with its routes over RDS. */
export function serviceListener(service: ServiceDocument): Resource {
  const { address, port } = service.listener;
  const accessLog = sampledAccessLog(service);
  return {
    type: 'listener',
    name: service.name,
    references: [{ type: 'route', name: service.name }],
    message: {
      name: service.name,
      address: { socket_address: { address, port_value: port } },
      filter_chains: [
        {
          filters: [
            {
              name: 'envoy.filters.network.http_connection_manager',
              typed_config: {
                ...connectionManager(service, affinityFilters(service)),
                ...(accessLog.length > 0 && { access_log: accessLog }),
              },
            },
          ],
        },
      ],
    },
  };
}

/**
 * For gRPC clients that take xDS themselves: the routes and clusters of the service without a socket. They know no
 * filter but the router and reject a listener with another. Envoy takes such a listener from its bootstrap only: from
 * us it acknowledges and ignores it (tried on 1.40.0).
 */
export function proxylessListener(service: ServiceDocument): Resource {
  const name = proxylessName(service.name);
  return {
    type: 'listener',
    name,
    references: [{ type: 'route', name: service.name }],
    message: { name, api_listener: { api_listener: connectionManager(service) } },
  };
}

function connectionManager(service: ServiceDocument, before: EnvoyMessage[] = []): EnvoyMessage {
  return {
    '@type': anyOf('envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager'),
    stat_prefix: service.name,
    codec_type: 'AUTO',
    rds: { route_config_name: service.name, config_source: { resource_api_version: 'V3', ads: {} } },
    http_filters: [
      ...before,
      {
        name: 'envoy.filters.http.router',
        typed_config: { '@type': anyOf('envoy.extensions.filters.http.router.v3.Router') },
      },
    ],
  };
}
