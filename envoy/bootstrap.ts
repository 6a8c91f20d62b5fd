/** What Envoy is started with: where its control plane is. Everything else comes over xDS. */
import { isIP } from 'node:net';

export interface BootstrapOptions {
  /** Unique per proxy: acknowledgements and load reports are told apart by it. */
  nodeId: string;
  /** Names the group of proxies this one belongs to. */
  cluster: string;
  /** host:port of the control plane's ADS and load reporting. */
  xdsAddress: string;
  /** Port of Envoy's admin interface on 127.0.0.1; 0 lets the system choose. */
  adminPort: number;
  /** Incremental xDS (default) or state of the world. */
  apiType?: 'DELTA_GRPC' | 'GRPC';
}

/** The bootstrap configuration as an object to be written as JSON: `envoy -c FILE.json`. */
export function envoyBootstrap(options: BootstrapOptions): Record<string, unknown> {
  const { host, port } = splitAddress(options.xdsAddress);
  const viaAds = { resource_api_version: 'V3', ads: {} };
  const toControlPlane = {
    envoy_grpc: {
      cluster_name: 'xds',
      // A control plane that comes back is found within seconds, not half a minute.
      retry_policy: { retry_back_off: { base_interval: '0.25s', max_interval: '3s' } },
    },
  };
  return {
    node: { id: options.nodeId, cluster: options.cluster },
    admin: { address: { socket_address: { address: '127.0.0.1', port_value: options.adminPort } } },
    dynamic_resources: {
      ads_config: {
        api_type: options.apiType ?? 'DELTA_GRPC',
        transport_api_version: 'V3',
        set_node_on_first_message_only: true,
        grpc_services: [toControlPlane],
      },
      cds_config: viaAds,
      lds_config: viaAds,
    },
    cluster_manager: {
      load_stats_config: { api_type: 'GRPC', transport_api_version: 'V3', grpc_services: [toControlPlane] },
    },
    static_resources: {
      clusters: [
        {
          name: 'xds',
          type: isIP(host) ? 'STATIC' : 'STRICT_DNS',
          connect_timeout: '1s',
          typed_extension_protocol_options: {
            'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
              '@type': 'type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions',
              // A control plane that vanished without closing is noticed within 15 s.
              explicit_http_config: {
                http2_protocol_options: { connection_keepalive: { interval: '10s', timeout: '5s' } },
              },
            },
          },
          load_assignment: {
            cluster_name: 'xds',
            endpoints: [
              {
                lb_endpoints: [{ endpoint: { address: { socket_address: { address: host, port_value: port } } } }],
              },
            ],
          },
        },
      ],
    },
    layered_runtime: {
      layers: [
        {
          name: 'understudy',
          // A cell whose requests all hang issues nothing new; without this it would vanish from the load reports.
          static_layer: { 'envoy.reloadable_features.report_load_for_non_zero_stats': true },
        },
      ],
    },
  };
}

/** `host:port` in two. Throws an Error that names what was given. */
export function splitAddress(address: string): { host: string; port: number } {
  const colon = address.lastIndexOf(':');
  const host = address.slice(0, colon).replace(/^\[|\]$/g, '');
  const port = Number(address.slice(colon + 1));
  if (colon < 1 || !Number.isInteger(port) || port < 0 || port > 65535) {
    throw new Error(`address ${address}: expected host:port with a port from 0 to 65535`);
  }
  return { host, port };
}
