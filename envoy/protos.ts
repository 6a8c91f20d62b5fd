/** The protocol buffers of Envoy's API and of our traffic API: loaded once, encoded strictly. */
import { join } from 'node:path';
import {
  loadSync,
  type AnyDefinition,
  type MessageTypeDefinition,
  type Options,
  type PackageDefinition,
  type ServiceDefinition,
} from '@grpc/proto-loader';
import { packageRoot } from '../package-root';

/** A message as Envoy's own documentation writes it: snake_case fields, wrappers as `{value}`, Any by its `@type`. */
export type EnvoyMessage = { [field: string]: unknown };

const options: Options = { keepCase: true, longs: String, enums: String, arrays: false };

// The Envoy API of 2024-07 travels inside grpc-js-xds: pinned with it, nothing to fetch.
const apiRoot = join(dirOf('@grpc/grpc-js-xds'), 'deps');

/** Where imports of its files are found. */
export const apiDirectories = ['envoy-api', 'googleapis', 'protoc-gen-validate', 'xds'].map((dir) =>
  join(apiRoot, dir),
);

/** The files of it that are used here. */
export const envoyProtos = [
  'envoy/service/discovery/v3/ads.proto',
  'envoy/service/load_stats/v3/lrs.proto',
  'envoy/config/cluster/v3/cluster.proto',
  'envoy/config/endpoint/v3/endpoint.proto',
  'envoy/config/listener/v3/listener.proto',
  'envoy/config/route/v3/route.proto',
  'envoy/extensions/transport_sockets/tls/v3/secret.proto',
  'envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto',
  'envoy/extensions/filters/http/router/v3/router.proto',
  'envoy/service/accesslog/v3/als.proto',
  'envoy/extensions/access_loggers/grpc/v3/als.proto',
  'envoy/extensions/filters/http/stateful_session/v3/stateful_session.proto',
  'envoy/extensions/http/stateful_session/cookie/v3/cookie.proto',
  'envoy/extensions/transport_sockets/tls/v3/tls.proto',
  'envoy/extensions/upstreams/http/v3/http_protocol_options.proto',
  'envoy/extensions/retry/host/previous_hosts/v3/previous_hosts.proto',
  'envoy/extensions/retry/priority/previous_priorities/v3/previous_priorities_config.proto',
];

let envoyPackage: PackageDefinition | undefined;

function envoyApi(): PackageDefinition {
  envoyPackage ??= loadSync(envoyProtos, {
    ...options,
    includeDirs: apiDirectories,
  });
  return envoyPackage;
}

/** A gRPC service of Envoy's API by its full name, for `Server.addService` or a client. */
export function envoyService(name: string): ServiceDefinition {
  return serviceIn(envoyApi(), name);
}

export const trafficServiceName = 'understudy.traffic.v1.Traffic';

let loadedTraffic: PackageDefinition | undefined;

/** Everything in `envoy/traffic.proto`, for reflection. */
export function trafficPackage(): PackageDefinition {
  // The whole message is ours: numbers and empty lists rather than strings and gaps.
  loadedTraffic ??= loadSync(join(packageRoot, 'envoy', 'traffic.proto'), {
    ...options,
    longs: Number,
    arrays: true,
    defaults: true,
    oneofs: true,
  });
  return loadedTraffic;
}

/** The service of `envoy/traffic.proto`. */
export function trafficService(): ServiceDefinition {
  return serviceIn(trafficPackage(), trafficServiceName);
}

/** What was encoded before, by the message itself: nobody changes a message once it is built. */
const encoded = new WeakMap<EnvoyMessage, { type: string; bytes: Buffer }>();

/**
 * Encodes a message of Envoy's API after checking that nothing of it gets lost. protobufjs drops fields it does not
 * know, and a typo in `locality_weighted_lb_config` would switch the weights off without a word: so a field, value, enum
 * value or `@type` that does not survive the round trip throws an Error that names its path. The same message is encoded
 * once, however often it is asked for.
 */
export function encodeStrictly(type: string, message: EnvoyMessage): Buffer {
  const before = encoded.get(message);
  if (before?.type === type) return before.bytes;
  const definition = messageType(type, type);
  let bytes: Buffer;
  try {
    bytes = definition.serialize(message);
  } catch (error) {
    throw new Error(`${type}: cannot be encoded: ${(error as Error).message}`, { cause: error });
  }
  checkSurvived(message, definition.deserialize(bytes), type);
  encoded.set(message, { type, bytes });
  return bytes;
}

/** Decodes bytes of the named message; unset fields are absent, 64-bit numbers are strings. */
export function decodeMessage(type: string, bytes: Buffer): EnvoyMessage {
  return messageType(type, type).deserialize(bytes) as EnvoyMessage;
}

/** google.protobuf.Struct of texts. */
export function struct(values: Record<string, string>): EnvoyMessage {
  return { fields: Object.fromEntries(Object.entries(values).map(([key, text]) => [key, { stringValue: text }])) };
}

/** google.protobuf.Duration. */
export function duration(milliseconds: number): EnvoyMessage {
  const seconds = Math.floor(milliseconds / 1000);
  return { seconds, nanos: Math.round((milliseconds - seconds * 1000) * 1e6) };
}

/** Milliseconds of a decoded google.protobuf.Duration. */
export function milliseconds(value: { seconds?: string | number; nanos?: number } | null | undefined): number {
  return Number(value?.seconds ?? 0) * 1000 + Number(value?.nanos ?? 0) / 1e6;
}

function checkSurvived(given: unknown, kept: unknown, path: string): void {
  if (Array.isArray(given)) {
    const list = Array.isArray(kept) ? (kept as unknown[]) : [];
    given.forEach((item, i) => checkSurvived(item, list[i], `${path}[${i}]`));
    return;
  }
  if (given === null || Buffer.isBuffer(given)) return;
  if (typeof given !== 'object') {
    // A text where a number belongs becomes 0; 64-bit numbers come back as text.
    if (kept !== given && String(kept) !== `${given as string | number | boolean}`)
      throw new Error(`${path}: ${JSON.stringify(given)} would arrive as ${JSON.stringify(kept)}. Check its type.`);
    return;
  }
  const { '@type': anyType, ...fields } = given as EnvoyMessage;
  if (kept === null || typeof kept !== 'object')
    throw new Error(`${path}: a message would arrive as ${JSON.stringify(kept)}. Check its type.`);
  let decoded = kept as EnvoyMessage;
  if (typeof anyType === 'string') {
    const name = anyType.slice(anyType.lastIndexOf('/') + 1);
    decoded = messageType(name, path).deserialize(decoded.value as Buffer) as EnvoyMessage;
  }
  for (const [field, value] of Object.entries(fields)) {
    if (value === undefined || (Array.isArray(value) && value.length === 0)) continue;
    if (!(field in decoded)) {
      throw new Error(`${path}.${field}: unknown field or value; it would be dropped on the wire. Check its spelling.`);
    }
    checkSurvived(value, decoded[field], `${path}.${field}`);
  }
}

function messageType(name: string, path: string): MessageTypeDefinition<object, object> {
  const definition: AnyDefinition | undefined = envoyApi()[name];
  if (definition && 'serialize' in definition && typeof definition.serialize === 'function') {
    return definition as MessageTypeDefinition<object, object>;
  }
  throw new Error(`${path}: no message type ${name} among the loaded protos; add its file to envoy/protos.ts`);
}

function serviceIn(definitions: PackageDefinition, name: string): ServiceDefinition {
  const definition = definitions[name];
  if (!definition || 'format' in definition) throw new Error(`no gRPC service ${name} among the loaded protos`);
  return definition;
}

function dirOf(packageName: string): string {
  return join(require.resolve(`${packageName}/package.json`), '..');
}
