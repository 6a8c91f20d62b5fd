/** One request to an instance that speaks HTTP/2 from its first byte, and gRPC's health check, which is such a request. */
import http2, { type IncomingHttpHeaders, type OutgoingHttpHeaders } from 'node:http2';
import type { Target } from './http';
import { connectionOptions } from './identity/target-tls';

export interface Http2Answer {
  status: number;
  /** With what came behind the body. */
  headers: IncomingHttpHeaders;
  body: Buffer;
}

const maxBodyBytes = 1_048_576;

/** Rejects if there is no whole answer in time. Any status is an answer. Each request has a connection of its own. */
export function requestHttp2(
  { address, port, tls }: Target,
  headers: OutgoingHttpHeaders,
  { body, timeoutMs }: { body?: Buffer; timeoutMs: number },
): Promise<Http2Answer> {
  return new Promise((resolve, reject) => {
    const host = address.includes(':') ? `[${address}]` : address;
    const session = http2.connect(
      `${tls ? 'https' : 'http'}://${host}:${port}`,
      tls ? { ...connectionOptions(tls), ALPNProtocols: ['h2'] } : {},
    );
    const end = () => {
      clearTimeout(timer);
      session.destroy();
    };
    const fail = (error: Error) => {
      end();
      reject(error);
    };
    const timer = setTimeout(() => fail(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs);
    session.on('error', fail);
    session.once('close', () => fail(new Error('it ended the connection')));
    const answer: Http2Answer = { status: 0, headers: {}, body: Buffer.alloc(0) };
    const stream = session.request(headers);
    stream.on('error', fail);
    stream.on('response', (received) => {
      answer.status = received[':status'] ?? 0;
      answer.headers = { ...received };
    });
    stream.on('trailers', (received: IncomingHttpHeaders) => {
      answer.headers = { ...answer.headers, ...received };
    });
    stream.on('data', (chunk: Buffer) => {
      answer.body = Buffer.concat([answer.body, chunk]);
      if (answer.body.length > maxBodyBytes) fail(new Error(`answered more than ${maxBodyBytes} bytes`));
    });
    stream.on('end', () => {
      end();
      resolve(answer);
    });
    stream.end(body);
  });
}

export type GrpcHealth = 'SERVING' | 'NOT_SERVING' | 'UNKNOWN' | 'SERVICE_UNKNOWN' | 'UNIMPLEMENTED';

/** By number, from grpc.health.v1. */
const servingStatus: readonly GrpcHealth[] = ['UNKNOWN', 'SERVING', 'NOT_SERVING', 'SERVICE_UNKNOWN'];
/** Statuses of a call: it is not there at all, or knows no such service. */
const ofCall: Record<string, GrpcHealth> = { '5': 'SERVICE_UNKNOWN', '12': 'UNIMPLEMENTED' };

/**
 * What `grpc.health.v1.Health/Check` answers for the service, empty for the whole server. Rejects if nothing usable does.
 * Message and answer have one field each: a few bytes that need no generated code.
 */
export async function grpcHealth(target: Target, service: string, timeoutMs: number): Promise<GrpcHealth> {
  const name = Buffer.from(service);
  if (name.length > 127) throw new Error(`the name of the health service is too long: ${service}`);
  const message = name.length === 0 ? name : Buffer.concat([Buffer.from([0x0a, name.length]), name]);
  const { status, headers, body } = await requestHttp2(
    target,
    {
      ':method': 'POST',
      ':path': '/grpc.health.v1.Health/Check',
      'content-type': 'application/grpc',
      te: 'trailers',
    },
    { body: Buffer.concat([Buffer.from([0, 0, 0, 0, message.length]), message]), timeoutMs },
  );
  const code = String(headers['grpc-status'] ?? '');
  const known = ofCall[code];
  if (known) return known;
  if (status !== 200 || code !== '0')
    throw new Error(`its health check answered ${status}, grpc-status ${code || 'missing'}`);
  // After a frame's five bytes: field 1 (0x08) and its value; left out it is 0.
  const value = body[5] === 0x08 ? (body[6] ?? 0) : 0;
  return servingStatus[value] ?? 'UNKNOWN';
}
