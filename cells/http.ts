/** One HTTP request to an instance, with its time; over TLS where the instance has an identity. */
import http from 'node:http';
import https from 'node:https';
import type { Instance } from '../blueprints/schema';
import { connectionOptions, type TargetTls } from './identity/target-tls';

export interface Target {
  address: string;
  port: number;
  /** Left out: the instance is spoken to without TLS. */
  tls?: TargetTls | undefined;
}

/** An instance and how it is spoken to. */
export type Reached = Instance & Target;

export interface HttpAnswer {
  status: number;
  body: string;
  /** Milliseconds from the call to the end of the body. */
  tookMs: number;
}

export interface HttpCall {
  method?: 'GET' | 'POST' | 'PUT';
  /** Sent as JSON. */
  body?: unknown;
  headers?: Record<string, string>;
  timeoutMs: number;
  agent?: http.Agent;
}

const maxBodyBytes = 1_048_576;

/** Keeps up to so many connections to the target, for requests that are given it. */
export function keptConnections({ tls }: Target, maxSockets: number): http.Agent {
  const options = { keepAlive: true, maxSockets };
  return tls ? new https.Agent(options) : new http.Agent(options);
}

/** Rejects if there is no whole answer in time. Any status is an answer. */
export function request(target: Target, path: string, call: HttpCall): Promise<HttpAnswer> {
  const { method = 'GET', body, headers, timeoutMs, agent } = call;
  const payload = body === undefined ? undefined : JSON.stringify(body);
  const began = performance.now();
  return new Promise((resolve, reject) => {
    const send = target.tls ? https.request : http.request;
    const req = send(
      {
        ...(target.tls && connectionOptions(target.tls)),
        host: target.address,
        port: target.port,
        path,
        method,
        // Without an agent of the caller's, each call has a connection of its own.
        agent: agent ?? false,
        signal: AbortSignal.timeout(timeoutMs),
        headers: {
          ...headers,
          ...(payload !== undefined && {
            'content-type': 'application/json',
            'content-length': Buffer.byteLength(payload),
          }),
        },
      },
      (res) => {
        const chunks: Buffer[] = [];
        let bytes = 0;
        res.on('data', (chunk: Buffer) => {
          bytes += chunk.length;
          if (bytes > maxBodyBytes) req.destroy(new Error(`${path} answered more than ${maxBodyBytes} bytes`));
          else chunks.push(chunk);
        });
        res.on('error', reject);
        res.on('end', () =>
          resolve({
            status: res.statusCode ?? 0,
            body: Buffer.concat(chunks).toString('utf8'),
            tookMs: performance.now() - began,
          }),
        );
      },
    );
    req.on('error', (error) =>
      reject(
        error.name === 'AbortError' || error.name === 'TimeoutError'
          ? new Error(`no answer within ${timeoutMs} ms`)
          : error,
      ),
    );
    req.end(payload);
  });
}
