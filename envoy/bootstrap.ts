/** What Envoy is started with: where its control plane is. Everything else comes over xDS. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { dirname, join } from 'node:path';

export interface BootstrapOptions {
  /** Unique per proxy: acknowledgements and load reports are told apart by it. */
  nodeId: string;
  /** Names the group of proxies this one belongs to. */
  cluster: string;
  /** host:port of the control plane's ADS and load reporting. */
  xdsAddress: string;
  /** Port of Envoy's admin interface on 127.0.0.1; 0 lets the system choose. */
  adminPort: number;
  /** Mutual TLS towards the control plane; plaintext without it. */
  tls?: BootstrapTls;
  /** Incremental xDS (default) or state of the world. */
  apiType?: 'DELTA_GRPC' | 'GRPC';
  /** With `tls`: the folder in which `sdsFiles` are, as `identity.json` and `authorities.json`. */
  sdsDir?: string;
}

/** Where this proxy finds its certificate, and whom it takes for its control plane. */
export interface BootstrapTls {
  certificateFile: string;
  privateKeyFile: string;
  /** Authorities that may have signed the control plane's certificate. */
  caFile: string;
  /** Name in the control plane's certificate: a DNS name, an IP address or a SPIFFE id. Any other is refused. */
  controlPlaneName: string;
}

/**
 * The files by which Envoy finds certificate and authorities, to be written beside the bootstrap: Envoy reads files anew
 * only when they come by SDS, and then when something in their folder is moved (a rename, or a changed symbolic link).
 */
export function sdsFiles(tls: BootstrapTls): { identity: object; authorities: object } {
  const watched = (file: string): object => ({ watched_directory: { path: dirname(file) } });
  const secret = (name: string, content: object): object => ({
    resources: [{ '@type': 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret', name, ...content }],
  });
  const kind = isIP(tls.controlPlaneName) ? 'IP_ADDRESS' : tls.controlPlaneName.includes('://') ? 'URI' : 'DNS';
  return {
    identity: secret('identity', {
      tls_certificate: {
        certificate_chain: { filename: tls.certificateFile },
        private_key: { filename: tls.privateKeyFile },
        ...watched(tls.certificateFile),
      },
    }),
    authorities: secret('authorities', {
      validation_context: {
        trusted_ca: { filename: tls.caFile },
        match_typed_subject_alt_names: [{ san_type: kind, matcher: { exact: tls.controlPlaneName } }],
        ...watched(tls.caFile),
      },
    }),
  };
}

/** @param dir where `sdsFiles` were written as `identity.json` and `authorities.json`. */
function mutualTls({ controlPlaneName }: BootstrapTls, dir: string): object {
  const fromFile = (name: string): object => ({
    name,
    sds_config: { path_config_source: { path: join(dir, `${name}.json`) }, resource_api_version: 'V3' },
  });
  return {
    name: 'envoy.transport_sockets.tls',
    typed_config: {
      '@type': 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext',
      ...(!isIP(controlPlaneName) && !controlPlaneName.includes('://') && { sni: controlPlaneName }),
      common_tls_context: {
        tls_params: { tls_minimum_protocol_version: 'TLSv1_2', tls_maximum_protocol_version: 'TLSv1_3' },
        tls_certificate_sds_secret_configs: [fromFile('identity')],
        validation_context_sds_secret_config: fromFile('authorities'),
      },
    },
  };
}

/** Writes `bootstrap.json`, and with TLS the files it refers to, into the folder. Answers the path for `envoy -c`. */
export function writeBootstrap(dir: string, options: BootstrapOptions): string {
  const file = join(dir, 'bootstrap.json');
  mkdirSync(dir, { recursive: true });
  if (options.tls) {
    const { identity, authorities } = sdsFiles(options.tls);
    writeFileSync(join(dir, 'identity.json'), JSON.stringify(identity, null, 2));
    writeFileSync(join(dir, 'authorities.json'), JSON.stringify(authorities, null, 2));
  }
  writeFileSync(file, JSON.stringify(envoyBootstrap({ ...options, sdsDir: dir }), null, 2));
  return file;
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
          ...(options.tls && { transport_socket: mutualTls(options.tls, sdsDirOf(options)) }),
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

function sdsDirOf({ sdsDir }: BootstrapOptions): string {
  if (sdsDir === undefined) throw new Error('a bootstrap with TLS needs sdsDir, the folder of its SDS files');
  return sdsDir;
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
