/**
 * One proxy as lean as it gets: a TLS connection, just enough HTTP/2 and gRPC for one delta ADS stream, and the
 * acknowledgement of whatever comes. It shares the machine with the server it measures, so it does no more per message
 * than read its type, nonce and resource versions. Not a client for anything else: no flow control, no header decoding.
 */
import { Reader, Writer } from 'protobufjs/minimal';
import { connect, type TLSSocket, type SecureContext } from 'node:tls';

export const typeUrls = {
  cluster: 'type.googleapis.com/envoy.config.cluster.v3.Cluster',
  endpoints: 'type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment',
  listener: 'type.googleapis.com/envoy.config.listener.v3.Listener',
  route: 'type.googleapis.com/envoy.config.route.v3.RouteConfiguration',
};
/** Whose resources name those of another type; here both have the same names. */
const childOf: Record<string, string> = {
  [typeUrls.cluster]: typeUrls.endpoints,
  [typeUrls.listener]: typeUrls.route,
};

const frameType = { data: 0, headers: 1, reset: 3, settings: 4, ping: 6, goAway: 7, windowUpdate: 8 };
const flagEnd = 1;
const frameHead = 9;
const grpcPrefix = 5;
/** The largest window: 2 GiB come before it would have to be widened. */
const window = 0x7fffffff;

function frame(type: number, flags: number, stream: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(frameHead);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** HPACK literals without indexing and without Huffman coding; every text here is shorter than 127 bytes. */
function headers(fields: Record<string, string>): Buffer {
  const text = (value: string) => Buffer.concat([Buffer.from([value.length]), Buffer.from(value)]);
  return Buffer.concat(Object.entries(fields).flatMap(([name, value]) => [Buffer.from([0]), text(name), text(value)]));
}

const initialWindowSetting = 4;
const opening = (() => {
  const settings = Buffer.alloc(6);
  settings.writeUInt16BE(initialWindowSetting, 0);
  settings.writeUInt32BE(window, 2);
  const widen = Buffer.alloc(4);
  widen.writeUInt32BE(window - 65_535);
  const method = headers({
    ':method': 'POST',
    ':scheme': 'https',
    ':path': '/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources',
    ':authority': 'localhost',
    'content-type': 'application/grpc',
    te: 'trailers',
  });
  const flagHeadersEnd = 4;
  return Buffer.concat([
    Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
    frame(frameType.settings, 0, 0, settings),
    frame(frameType.windowUpdate, 0, 0, widen),
    frame(frameType.headers, flagHeadersEnd, 1, method),
  ]);
})();

interface Request {
  type: string;
  node?: string;
  nonce?: string;
  subscribe?: Iterable<string>;
  held?: ReadonlyMap<string, string>;
}

/** DeltaDiscoveryRequest in a gRPC message in an HTTP/2 frame. */
function requestFrame({ type, node, nonce, subscribe = [], held }: Request): Buffer {
  const tag = (field: number) => (field << 3) | 2;
  const writer = Writer.create();
  if (node !== undefined) writer.uint32(tag(1)).fork().uint32(tag(1)).string(node).ldelim();
  writer.uint32(tag(2)).string(type);
  for (const name of subscribe) writer.uint32(tag(3)).string(name);
  for (const [name, version] of held ?? [])
    writer.uint32(tag(5)).fork().uint32(tag(1)).string(name).uint32(tag(2)).string(version).ldelim();
  if (nonce !== undefined) writer.uint32(tag(6)).string(nonce);
  const body = writer.finish();
  const message = Buffer.alloc(grpcPrefix + body.length);
  message.writeUInt32BE(body.length, 1);
  message.set(body, grpcPrefix);
  return frame(frameType.data, 0, 1, message);
}

export interface ConnectionListener {
  /** A whole response has come; nothing of it has been read yet. */
  response(type: string, resources: number, atMs: number, bytes: number): void;
  /** The connection has ended without our doing. */
  lost(reason: string): void;
}

export class ProxyConnection {
  /** Versions by name, by type: what a proxy knows when it connects again. */
  readonly held = new Map<string, Map<string, string>>();
  private socket: TLSSocket | undefined;
  private rest: Buffer = Buffer.alloc(0);
  private message: Buffer = Buffer.alloc(0);
  private isClosing = false;

  constructor(
    readonly node: string,
    private readonly listener: ConnectionListener,
  ) {}

  /** Connects and asks for everything, telling what it holds. Resolves once the requests are written. */
  open(port: number, secureContext: SecureContext): Promise<void> {
    this.isClosing = false;
    this.rest = this.message = Buffer.alloc(0);
    return new Promise((resolve) => {
      const socket = connect({
        host: '127.0.0.1',
        port,
        servername: 'localhost',
        secureContext,
        ALPNProtocols: ['h2'],
      });
      this.socket = socket;
      socket.setNoDelay(true);
      socket.on('data', (chunk: Buffer) => this.read(chunk));
      socket.on('error', (error: Error) => this.lose(error.message));
      socket.on('close', () => this.lose('the connection was closed'));
      socket.once('secureConnect', () => {
        const known = [...this.held].filter(([type]) => type === typeUrls.endpoints || type === typeUrls.route);
        socket.write(
          Buffer.concat([
            opening,
            requestFrame({ type: typeUrls.cluster, node: this.node, ...this.holding(typeUrls.cluster) }),
            ...known.map(([type, held]) => requestFrame({ type, subscribe: held.keys(), held })),
            requestFrame({ type: typeUrls.listener, ...this.holding(typeUrls.listener) }),
          ]),
          () => resolve(),
        );
      });
    });
  }

  close(): Promise<void> {
    this.isClosing = true;
    const { socket } = this;
    if (!socket || socket.destroyed) return Promise.resolve();
    return new Promise((resolve) => {
      socket.once('close', () => resolve());
      socket.destroy();
    });
  }

  private holding(type: string): { held?: ReadonlyMap<string, string> } {
    const held = this.held.get(type);
    return held ? { held } : {};
  }

  private lose(reason: string): void {
    if (this.isClosing) return;
    this.isClosing = true;
    this.listener.lost(`${this.node}: ${reason}`);
  }

  private read(chunk: Buffer): void {
    let bytes = this.rest.length > 0 ? Buffer.concat([this.rest, chunk]) : chunk;
    while (bytes.length >= frameHead) {
      const end = frameHead + bytes.readUIntBE(0, 3);
      if (bytes.length < end) break;
      this.take(bytes[3]!, bytes[4]!, bytes.subarray(frameHead, end));
      bytes = bytes.subarray(end);
    }
    this.rest = bytes;
  }

  private take(type: number, flags: number, payload: Buffer): void {
    const isAck = (flags & flagEnd) !== 0;
    if (type === frameType.data) this.receive(payload);
    else if (type === frameType.settings && !isAck)
      this.socket!.write(frame(frameType.settings, flagEnd, 0, Buffer.alloc(0)));
    else if (type === frameType.ping && !isAck) this.socket!.write(frame(frameType.ping, flagEnd, 0, payload));
    else if (type === frameType.reset || type === frameType.goAway) this.lose(`HTTP/2 frame of type ${type}`);
    else if (type === frameType.headers && isAck) this.lose('the server ended the stream');
  }

  private receive(payload: Buffer): void {
    this.message = this.message.length > 0 ? Buffer.concat([this.message, payload]) : payload;
    while (this.message.length >= grpcPrefix) {
      const end = grpcPrefix + this.message.readUInt32BE(1);
      if (this.message.length < end) return;
      const at = performance.now();
      this.answer(this.message.subarray(grpcPrefix, end), at);
      this.message = this.message.subarray(end);
    }
  }

  /** DeltaDiscoveryResponse: resources = 2, type_url = 4, nonce = 5, removed_resources = 6 */
  private answer(bytes: Buffer, at: number): void {
    const reader = Reader.create(bytes);
    const versions: [name: string, version: string][] = [];
    let type = '';
    let nonce = '';
    while (reader.pos < reader.len) {
      const tag = reader.uint32();
      if (tag >>> 3 === 2) versions.push(readVersion(reader));
      else if (tag >>> 3 === 4) type = reader.string();
      else if (tag >>> 3 === 5) nonce = reader.string();
      else reader.skipType(tag & 7);
    }
    const held = this.held.get(type) ?? new Map<string, string>();
    this.held.set(type, held);
    const child = childOf[type];
    const fresh = child === undefined ? [] : versions.flatMap(([name]) => (held.has(name) ? [] : [name]));
    for (const [name, version] of versions) held.set(name, version);
    let reply = requestFrame({ type, nonce });
    if (fresh.length > 0) reply = Buffer.concat([reply, requestFrame({ type: child!, subscribe: fresh })]);
    this.socket!.write(reply);
    this.listener.response(type, versions.length, at, bytes.length);
  }
}

/** Resource: version = 1, name = 3 */
function readVersion(reader: Reader): [name: string, version: string] {
  const end = reader.uint32() + reader.pos;
  let name = '';
  let version = '';
  while (reader.pos < end) {
    const tag = reader.uint32();
    if (tag >>> 3 === 1) version = reader.string();
    else if (tag >>> 3 === 3) name = reader.string();
    else reader.skipType(tag & 7);
  }
  return [name, version];
}
