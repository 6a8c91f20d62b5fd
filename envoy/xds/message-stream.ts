/**
 * The messages of one gRPC call, as bytes, below the message layer of grpc-js. grpc-js accepts the connection, runs TLS,
 * HTTP/2, keepalive and connection age, finds the method, sends headers and status; only the messages themselves go
 * straight to and from its HTTP/2 stream. Per message that leaves out grpc-js' object
 * stream, its promises and its copy; docs/control-plane.md says what is known of the gain. What one reader is behind with is bounded here.
 */
import { Metadata, type ServerDuplexStream, type status } from '@grpc/grpc-js';
import type { ServerHttp2Stream } from 'node:http2';
import { StreamError } from './gate';

/** Handed to HTTP/2 at a time. Two of them, and the small frames of five types that wait, stay below 64 KiB. */
const chunkBytes = 16 * 1024;
const prefixBytes = 5;
/** As grpc-js itself has it. */
const defaultMaxRequestBytes = 4 * 1024 * 1024;

export interface MessageListener {
  /** A whole message. Throws StreamError to end the stream. */
  message(bytes: Buffer): void;
  /** The other end will say nothing more. */
  ended(): void;
  /** The stream is no more, for whatever reason. Called once. */
  gone(): void;
}

export type RawCall = ServerDuplexStream<Buffer, Buffer>;

export class MessageStream {
  private readonly http2: ServerHttp2Stream;
  /** Parts of frames that HTTP/2 has not taken yet; whole responses are shared with other streams, not copied. */
  private readonly queue: Buffer[] = [];
  private partial: Buffer[] = [];
  private partialBytes = 0;
  private isGone = false;

  constructor(
    readonly call: RawCall,
    private readonly listener: MessageListener,
    private readonly maxRequestBytes = defaultMaxRequestBytes,
  ) {
    this.http2 = http2StreamOf(call);
    call.on('error', () => undefined);
    this.http2.once('close', () => this.leave());
  }

  /** Begins to read. Until then the other end's requests wait in its own flow-control window. */
  start(): void {
    if (this.isGone) return;
    this.http2.removeAllListeners('data');
    this.http2.removeAllListeners('end');
    this.call.sendMetadata(new Metadata());
    this.http2.on('data', (chunk: Buffer) => this.read(chunk));
    this.http2.on('end', () => this.listener.ended());
    this.http2.on('drain', () => this.pump());
    this.http2.resume();
  }

  /** Bytes of its own that this reader is behind with; responses shared with others do not count twice. */
  get heldBytes(): number {
    const queued = this.queue.reduce((sum, part) => sum + (part.length <= chunkBytes ? part.length : 0), 0);
    return this.http2.writableLength + queued;
  }

  /** Sends one frame, prefix included, in parts. A reader that does not keep up makes it wait here, chunk by chunk. */
  send(frame: readonly Buffer[]): void {
    if (this.isGone) return;
    if (this.queue.length === 0 && !this.http2.writableNeedDrain && frame.length === 1) this.http2.write(frame[0]);
    else {
      this.queue.push(...frame);
      this.pump();
    }
  }

  /** Ends the call with OK; what is under way is sent first. */
  end(): void {
    this.call.end();
  }

  /** Ends the call with a status. */
  fail(code: status, message: string): void {
    this.call.emit('error', Object.assign(new Error(message), { code }));
  }

  /** Whether the connection may take no further calls, because of its age or because we are shutting down. */
  get isBeingRetired(): boolean {
    return this.http2.session?.closed ?? true;
  }

  /** Whether the reader has not taken what was sent long ago. */
  get isBlocked(): boolean {
    return this.queue.length > 0 || this.http2.writableLength > 0;
  }

  /** Gives up on the whole connection: a reader that takes nothing would not take a status either. */
  destroyConnection(): void {
    this.http2.session?.destroy();
  }

  private read(chunk: Buffer): void {
    if (this.isGone) return;
    try {
      // Nearly every request comes in one piece and alone.
      if (this.partialBytes === 0 && frameBytes(chunk, this.maxRequestBytes) === chunk.length) {
        this.listener.message(chunk.subarray(prefixBytes));
        return;
      }
      this.partial.push(chunk);
      this.partialBytes += chunk.length;
      this.readPartial();
    } catch (error) {
      if (!(error instanceof StreamError)) throw error;
      this.fail(error.code, error.message);
      this.leave();
    }
  }

  private readPartial(): void {
    for (;;) {
      const [first] = this.partial;
      if (!first || this.partialBytes < prefixBytes) return;
      const head = first.length >= prefixBytes ? first : Buffer.concat(this.partial);
      const bytes = frameBytes(head, this.maxRequestBytes);
      if (this.partialBytes < bytes) return;
      const all = this.partial.length === 1 ? first : Buffer.concat(this.partial);
      this.partial = all.length > bytes ? [all.subarray(bytes)] : [];
      this.partialBytes = all.length - bytes;
      this.listener.message(all.subarray(prefixBytes, bytes));
    }
  }

  private pump(): void {
    while (this.queue.length > 0 && !this.isGone && !this.http2.writableNeedDrain) {
      const part = this.queue[0]!;
      if (part.length <= chunkBytes) this.queue.shift();
      else this.queue[0] = part.subarray(chunkBytes);
      this.http2.write(part.subarray(0, chunkBytes));
    }
  }

  private leave(): void {
    if (this.isGone) return;
    this.isGone = true;
    this.queue.length = 0;
    this.partial = [];
    this.listener.gone();
  }
}

/**
 * Lets the connection of a call take no further calls. Who was refused for its certificate is known by it as long as
 * the connection lasts: it must connect anew to be known by a renewed one.
 */
export function retireConnection(call: object): void {
  // After the status of the call is on its way.
  setImmediate(() => http2StreamOf(call).session?.close());
}

/** Length of the frame that begins there, prefix included. */
function frameBytes(bytes: Buffer, most: number): number {
  if (bytes.length < prefixBytes) return Infinity;
  if (bytes[0] !== 0) throw new StreamError('compressed requests are not taken; send them as they are', 12);
  const length = bytes.readUInt32BE(1);
  if (length > most) throw new StreamError(`a request has ${length} bytes; at most ${most} are taken`, 8);
  return prefixBytes + length;
}

/**
 * grpc-js does not show its HTTP/2 stream: a call wraps interceptors, the innermost of which has it. The version of
 * grpc-js is pinned, and every test of the xDS server goes through here.
 */
function http2StreamOf(call: object): ServerHttp2Stream {
  interface Layer {
    call?: Layer;
    nextCall?: Layer;
    stream?: ServerHttp2Stream;
  }
  for (let layer: Layer | undefined = call; layer; layer = layer.call ?? layer.nextCall) {
    if (layer.stream) return layer.stream;
  }
  throw new Error('this version of @grpc/grpc-js keeps its HTTP/2 stream elsewhere; see envoy/xds/message-stream.ts');
}
