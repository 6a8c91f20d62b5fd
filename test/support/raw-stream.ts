/** An ADS stream by bare HTTP/2: for what a well-behaved gRPC client never does, such as not reading. */
import { connect, type ClientHttp2Session, type ClientHttp2Stream, type IncomingHttpHeaders } from 'node:http2';
import { envoyService } from '../../envoy/protos';
import { typeUrl, type ResourceType } from '../../envoy/resources/resource';

const ads = envoyService('envoy.service.discovery.v3.AggregatedDiscoveryService');
const method = ads.DeltaAggregatedResources!;
/** The gRPC status OK. */
export const ok = '0';

export class RawStream {
  readonly stream: ClientHttp2Stream;
  /** Resolves with the gRPC status when the call has one, or with what else ended it. */
  readonly ended: Promise<string>;
  receivedBytes = 0;
  private readonly session: ClientHttp2Session;

  constructor(
    port: number,
    readonly node: string,
    headers: Record<string, string> = {},
  ) {
    this.session = connect(`http://127.0.0.1:${port}`);
    this.session.on('error', () => undefined);
    this.stream = this.session.request({
      ':method': 'POST',
      ':path': method.path,
      'content-type': 'application/grpc',
      te: 'trailers',
      ...headers,
    });
    this.ended = new Promise((resolve) => {
      const read = (fields: IncomingHttpHeaders): void => {
        const code = fields['grpc-status'];
        if (code !== undefined) resolve(String(code));
      };
      this.stream.on('response', read);
      this.stream.on('trailers', read);
      this.stream.on('error', (error: Error) => resolve(error.message));
      this.stream.on('close', () => resolve('closed'));
      this.session.on('close', () => resolve('closed'));
    });
    void this.ended.then(() => this.leave());
  }

  /** Counts what comes. Without it nothing is read, and the server's window fills. */
  read(): void {
    this.stream.on('data', (chunk: Buffer) => (this.receivedBytes += chunk.length));
  }

  asks(type: ResourceType, request: object = {}): void {
    this.stream.write(this.frame({ node: { id: this.node }, type_url: typeUrl(type), ...request }));
  }

  /** A request as it goes over the wire. */
  frame(request: object): Buffer {
    const body = method.requestSerialize(request);
    const head = Buffer.alloc(5);
    head.writeUInt32BE(body.length, 1);
    return Buffer.concat([head, body]);
  }

  leave(): void {
    this.session.destroy();
  }
}
