/** The sample of live requests that proxies tell the control plane of, from which it knows each cell's latency. */
import type { ServiceDocument } from '../../blueprints/schema';
import { cellTag } from '../access-logs';
import { duration, type EnvoyMessage } from '../protos';
import { anyOf } from './resource';

/** Where an instance's metadata names its cell. */
export const cellMetadata = { key: 'understudy', path: 'cell' };

/** The access log of a service; none if nothing is sampled. */
export function sampledAccessLog({ name, latency: { samplePercent } }: ServiceDocument): EnvoyMessage[] {
  if (samplePercent === 0) return [];
  return [
    {
      name: 'envoy.access_loggers.http_grpc',
      filter: {
        runtime_filter: {
          runtime_key: `understudy.latency.${name}`,
          percent_sampled: { numerator: Math.round(10_000 * samplePercent), denominator: 'MILLION' },
          // Otherwise chosen by the request's id, which callers can set.
          use_independent_randomness: true,
        },
      },
      typed_config: {
        '@type': anyOf('envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig'),
        common_config: {
          log_name: 'understudy-latency',
          transport_api_version: 'V3',
          // The cluster of the bootstrap that reaches the control plane.
          grpc_service: { envoy_grpc: { cluster_name: 'xds' } },
          buffer_flush_interval: duration(500),
          custom_tags: [
            {
              tag: cellTag,
              metadata: {
                kind: { host: {} },
                metadata_key: { key: cellMetadata.key, path: [{ key: cellMetadata.path }] },
              },
            },
          ],
        },
      },
    },
  ];
}
