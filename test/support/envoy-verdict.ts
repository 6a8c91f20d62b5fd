/** What Envoy itself says of resources: `envoy --mode validate` over a bootstrap that holds them. */
import { loadSync } from '@grpc/proto-loader';
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { apiDirectories, envoyProtos, type EnvoyMessage } from '../../envoy/protos';
import type { Resource } from '../../envoy/resources/resource';
import { partBinary } from '../../local/parts';
import { TestAuthority } from './certificates';

/** Files that resources name here are made for the occasion. */
const certificatesAt = '/etc/understudy';

/** `valid`, or what Envoy says against them. Routes and assignments are put where a bootstrap may hold them. */
export async function envoyVerdict(given: Resource[]): Promise<string> {
  const dir = mkdtempSync(join(tmpdir(), 'understudy-verdict-'));
  try {
    const authority = new TestAuthority();
    const { certificate, key } = authority.issue({ dns: ['proxy.test'] });
    writeFileSync(join(dir, 'ca.pem'), authority.certificate);
    writeFileSync(join(dir, 'proxy.pem'), certificate);
    writeFileSync(join(dir, 'proxy.key'), key);
    const text = JSON.stringify(given).replaceAll(certificatesAt, dir);
    const file = join(dir, 'bootstrap.pb');
    writeFileSync(file, bootstrapOf(JSON.parse(text) as Resource[]));
    return await new Promise((resolve) => {
      execFile(partBinary('envoy'), ['--mode', 'validate', '-c', file, '-l', 'error'], (error, stdout, stderr) =>
        resolve(error ? `${stdout}${stderr}` : 'valid'),
      );
    });
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

function bootstrapOf(resources: Resource[]): Buffer {
  const of = (type: Resource['type']): Resource[] => resources.filter((resource) => resource.type === type);
  const assignments = of('endpoints').map(({ name, message }) => ({
    name: `assignment of ${name}`,
    type: 'STATIC',
    common_lb_config: { locality_weighted_lb_config: {} },
    load_assignment: message,
  }));
  const xds = { name: 'xds', type: 'STATIC', typed_extension_protocol_options: http2 };
  const toControlPlane = { envoy_grpc: { cluster_name: 'xds' } };
  const definition = loadSync(['envoy/config/bootstrap/v3/bootstrap.proto', ...envoyProtos], {
    keepCase: true,
    longs: String,
    enums: String,
    includeDirs: apiDirectories,
  })['envoy.config.bootstrap.v3.Bootstrap'] as unknown as { serialize(message: object): Buffer };
  return definition.serialize({
    node: { id: 'verdict', cluster: 'test' },
    dynamic_resources: {
      ads_config: { api_type: 'DELTA_GRPC', transport_api_version: 'V3', grpc_services: [toControlPlane] },
    },
    static_resources: {
      clusters: [xds, ...of('cluster').map(({ message }) => message), ...assignments],
      // Envoy has no use for a listener of gRPC clients without a proxy, and is built without what would read it.
      listeners: of('listener')
        .filter(({ message }) => !message.api_listener)
        .map(({ message }) => withRoutes(message, of('route'))),
    },
  });
}

const http2 = {
  'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
    '@type': 'type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions',
    explicit_http_config: { http2_protocol_options: {} },
  },
};

/** The message with every `rds` replaced by the routes that it asks for. */
function withRoutes(value: EnvoyMessage, routes: Resource[]): EnvoyMessage {
  const replaced = Object.entries(value).map(([key, item]): [string, unknown] => {
    if (key === 'rds') {
      const { route_config_name: name } = item as { route_config_name: string };
      return [
        'route_config',
        { ...routes.find((route) => route.name === name)!.message, validate_clusters: { value: true } },
      ];
    }
    if (Array.isArray(item)) return [key, item.map((one: unknown) => (isMessage(one) ? withRoutes(one, routes) : one))];
    return [key, isMessage(item) ? withRoutes(item, routes) : item];
  });
  return Object.fromEntries(replaced);
}

function isMessage(value: unknown): value is EnvoyMessage {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
