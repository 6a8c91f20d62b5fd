/** A real xDS server on loopback for tests of the protocol, small resources with revisions, and clients that follow a script. */
import { Server, ServerCredentials, type ServerOptions } from '@grpc/grpc-js';
import { pino } from 'pino';
import { duration, type EnvoyMessage } from '../../envoy/protos';
import type { Resource, ResourceKey, ResourceType } from '../../envoy/resources/resource';
import { XdsServer, type XdsServerOptions } from '../../envoy/xds/server';
import type { Protocol } from '../../envoy/xds/stream';
import { ScriptedClient, type ClientOptions } from './scripted-client';

type More = Partial<Pick<Resource, 'references' | 'visibleTo' | 'ttlMs'>>;

/** A cluster with an assignment of the same name. */
export const cluster = (name: string, revision = 1, more: More = {}): Resource => ({
  type: 'cluster',
  name,
  references: [{ type: 'endpoints', name }],
  message: {
    name,
    type: 'EDS',
    eds_cluster_config: { service_name: name },
    connect_timeout: duration(revision * 1000),
  },
  ...more,
});
export const endpoints = (name: string, revision = 1, more: More = {}): Resource => ({
  type: 'endpoints',
  name,
  references: [],
  message: { cluster_name: name, policy: { overprovisioning_factor: { value: 100 + revision } } },
  ...more,
});
export const listener = (name: string, revision = 1, more: More = {}): Resource => ({
  type: 'listener',
  name,
  references: [{ type: 'route', name }],
  message: { name, per_connection_buffer_limit_bytes: { value: revision } },
  ...more,
});
/** Routes to these clusters. */
export const route = (name: string, clusters: string[], revision = 1): Resource => ({
  type: 'route',
  name,
  references: clusters.map((c) => ({ type: 'cluster', name: c })),
  message: {
    name,
    max_direct_response_body_size_bytes: { value: revision },
    virtual_hosts: clusters.map((c) => ({
      name: c,
      domains: [c],
      routes: [{ match: { prefix: '/' }, route: { cluster: c } }],
    })),
  },
});
export const secret = (name: string, revision = 1, visibleTo: string[] = ['scripted']): Resource => ({
  type: 'secret',
  name,
  references: [],
  visibleTo,
  message: { name, generic_secret: { secret: { inline_string: String(revision) } } },
});

/** The revision that one of the builders above put into a message. */
export function revisionOf(type: ResourceType, message: EnvoyMessage): number {
  const field: Record<ResourceType, () => unknown> = {
    cluster: () => (message.connect_timeout as { seconds: string }).seconds,
    endpoints: () =>
      (message.policy as { overprovisioning_factor: { value: number } }).overprovisioning_factor.value - 100,
    listener: () => (message.per_connection_buffer_limit_bytes as { value: number }).value,
    route: () => (message.max_direct_response_body_size_bytes as { value: number }).value,
    secret: () => (message.generic_secret as { secret: { inline_string: string } }).secret.inline_string,
  };
  return Number(field[type]());
}

export const keyOf = ({ type, name }: Resource): ResourceKey => ({ type, name });

export class XdsWorld {
  private readonly clients: ScriptedClient[] = [];
  private published: Resource[] = [];
  private withheld: ReadonlySet<string> = new Set();
  private readonly barriers: Resource[] = [];

  private constructor(
    readonly xds: XdsServer,
    private readonly server: Server,
    readonly port: number,
  ) {}

  static async start(options: Partial<XdsServerOptions> = {}, onPort = 0, grpc: ServerOptions = {}): Promise<XdsWorld> {
    const xds = new XdsServer({ log: pino({ level: 'silent' }), ...options });
    const server = new Server(grpc);
    xds.addTo(server);
    const port = await new Promise<number>((resolve, reject) =>
      server.bindAsync(`127.0.0.1:${onPort}`, ServerCredentials.createInsecure(), (error, bound) =>
        error ? reject(error) : resolve(bound),
      ),
    );
    return new XdsWorld(xds, server, port);
  }

  /** Exactly these resources from now on; barriers of clients stay. */
  publish(...resources: Resource[]): ResourceKey[] {
    return this.publishWithout([], ...resources);
  }

  /** The same, while these services cannot be built. */
  publishWithout(withheld: string[], ...resources: Resource[]): ResourceKey[] {
    this.published = resources;
    this.withheld = new Set(withheld);
    return this.xds.publish([...resources, ...this.barriers], this.withheld);
  }

  publishAndWait(waitMs: number, ...resources: Resource[]) {
    return this.xds.acknowledgements(this.publish(...resources), waitMs);
  }

  connect(protocol: Protocol, options: ClientOptions = {}): ScriptedClient {
    const client = new ScriptedClient(this.port, protocol, (name) => this.raise(name), options);
    this.clients.push(client);
    return client;
  }

  stop(): void {
    for (const client of this.clients) client.leave();
    this.xds.close();
    this.server.forceShutdown();
  }

  private raise(barrier: string): void {
    this.barriers.push({ ...secret(barrier), visibleTo: this.clients.map(({ node }) => node) });
    this.xds.publish([...this.published, ...this.barriers], this.withheld);
  }
}
