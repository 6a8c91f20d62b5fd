/** Instances of cells that speak what a service can be told to speak: TLS, slowness, gRPC. */
import {
  Server as GrpcServer,
  ServerCredentials,
  status,
  type sendUnaryData,
  type ServerUnaryCall,
} from '@grpc/grpc-js';
import { service as healthService } from 'grpc-health-check';
import { createServer as createHttp, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createHttps } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { Instance } from '../../blueprints/schema';
import type { Pem } from './certificates';

export class Cells {
  /** Requests answered, health checks left out, by cell. */
  readonly hits = new Map<string, number>();
  /** Their methods, in order, by cell. */
  readonly methods = new Map<string, string[]>();
  private readonly stops: (() => void)[] = [];

  /**
   * An instance that answers with its cell's name, over TLS if it has a certificate, after `delayMs` or once what it waits
   * `until` is so; at /lost it does its work and dies.
   */
  async http(
    cell: string,
    { tls, delayMs = 0, until }: { tls?: Pem; delayMs?: number; until?: Promise<void> } = {},
  ): Promise<Instance[]> {
    const answer = (request: IncomingMessage, response: ServerResponse): void => {
      if (request.url === '/healthz') return void response.end();
      this.count(cell, request.method!);
      if (request.url === '/lost') return void request.socket.destroy();
      if (until) void until.then(() => response.end(cell));
      else setTimeout(() => response.end(cell), delayMs);
    };
    const server = tls
      ? // As strict as a cell may be.
        createHttps({ cert: tls.certificate, key: tls.key, minVersion: 'TLSv1.3' }, answer)
      : createHttp(answer);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    this.stops.push(() => {
      server.close();
      server.closeAllConnections();
    });
    return [{ name: `${cell}-1`, address: '127.0.0.1', port: (server.address() as AddressInfo).port }];
  }

  /**
   * A gRPC server whose one method, the health check, answers SERVING. Asked for the health of `flaky` it refuses as
   * many times as `refusals` says.
   */
  async grpc(cell: string, refusals = { left: 0 }): Promise<Instance[]> {
    const server = new GrpcServer();
    server.addService(healthService, {
      Check: (call: ServerUnaryCall<{ service: string }, object>, callback: sendUnaryData<object>) => {
        if (call.request.service === 'flaky' && refusals.left-- > 0)
          return callback({ code: status.UNAVAILABLE, details: `${cell} has no time` });
        if (call.request.service !== '') this.count(cell, call.request.service);
        callback(null, { status: 'SERVING' });
      },
      Watch: () => undefined,
      List: () => undefined,
    });
    const port = await new Promise<number>((resolve, reject) =>
      server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
        error ? reject(error) : resolve(bound),
      ),
    );
    this.stops.push(() => server.forceShutdown());
    return [{ name: `${cell}-1`, address: '127.0.0.1', port }];
  }

  of(cell: string): number {
    return this.hits.get(cell) ?? 0;
  }

  forget(): void {
    this.hits.clear();
    this.methods.clear();
  }

  stop(): void {
    for (const stop of this.stops) stop();
  }

  private count(cell: string, method: string): void {
    this.hits.set(cell, this.of(cell) + 1);
    this.methods.set(cell, [...(this.methods.get(cell) ?? []), method]);
  }
}
