import { expect } from 'chai';
import { createServer, type Server } from 'node:http';
import { createServer as createHttp2 } from 'node:http2';
import { promisify } from 'node:util';
import { Server as GrpcServer, ServerCredentials } from '@grpc/grpc-js';
import { HealthImplementation } from 'grpc-health-check';
import type { AddressInfo } from 'node:net';
import { answersHealthCheck } from '../../activities/instance-health';
import { whyNotReady, type Asked } from '../../cells/readiness';
import { documentSchema, type ServiceDocument } from '../../blueprints/schema';
import { releasePorts, reservePorts } from '../../local/ports';
import { serviceDocument } from '../support/documents';

describe("A cell's health check", () => {
  let server: Server;
  let status = 200;

  before(async () => {
    server = createServer((_, response) => response.writeHead(status).end());
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  });

  after(() => server.close());

  const service = (change: Record<string, unknown> = {}) =>
    documentSchema.parse(serviceDocument(change)) as ServiceDocument;
  const instance = () => ({ name: 'shop-a-1', address: '127.0.0.1', port: (server.address() as AddressInfo).port });

  it('is the answer of its path, where that can be asked for', async () => {
    status = 200;
    expect(await answersHealthCheck(instance(), service())).to.equal(true);
    status = 503;
    expect(await answersHealthCheck(instance(), service())).to.equal(false);
  });

  it('is a connection where nobody here can ask: by TLS without an identity', async () => {
    status = 503;
    const [free] = (await reservePorts(1)) as [number];
    const tls = { trustedCa: { file: '/ca.pem' }, subjectAltName: { kind: 'dns', value: '{cell}.test' } };
    expect(await answersHealthCheck(instance(), service({ tls }))).to.equal(true);
    expect(await answersHealthCheck({ ...instance(), port: free }, service({ tls }))).to.equal(false);
    releasePorts([free]);
  });

  it('is the answer of its path over HTTP/2, too, and readiness as well', async () => {
    let said = 200;
    const h2 = createHttp2((_, response) => response.writeHead(said).end('x'));
    await new Promise<void>((resolve) => h2.listen(0, '127.0.0.1', resolve));
    const place = { name: 'shop-a-1', address: '127.0.0.1', port: (h2.address() as AddressInfo).port };
    const ready = (protocol: Asked['protocol']) => whyNotReady(place, { path: '/healthz', protocol });
    try {
      expect(await answersHealthCheck(place, service({ protocol: 'http/2' }))).to.equal(true);
      expect(await ready('http/2')).to.equal(undefined);
      expect(await ready('http/1.1')).to.contain('/healthz on 127.0.0.1:');
      expect(await ready('grpc')).to.contain('health check on 127.0.0.1:');
      said = 503;
      expect(await answersHealthCheck(place, service({ protocol: 'http/2' }))).to.equal(false);
      expect(await ready('http/2')).to.equal('/healthz answered 503');
    } finally {
      h2.close();
    }
    // A server that speaks something else is not healthy, and does not hold us up.
    expect(await answersHealthCheck(instance(), service({ protocol: 'http/2' }))).to.equal(false);
  });

  it('is what a gRPC server says of its health, by service; one that says nothing of it is asked for no more than an answer', async () => {
    const health = new HealthImplementation({ '': 'SERVING', 'shop.Cart': 'SERVING' });
    const started = async (fill: (grpcServer: GrpcServer) => void) => {
      const grpcServer = new GrpcServer();
      fill(grpcServer);
      const bind = promisify(grpcServer.bindAsync.bind(grpcServer));
      return { grpcServer, port: await bind('127.0.0.1:0', ServerCredentials.createInsecure()) };
    };
    const with_ = await started((grpcServer) => health.addToServer(grpcServer));
    const without = await started(() => undefined);
    const place = { name: 'shop-a-1', address: '127.0.0.1', port: with_.port };
    const cart = service({ protocol: 'grpc', grpc: { healthService: 'shop.Cart' } });
    const other = service({ protocol: 'grpc', grpc: { healthService: 'shop.Other' } });
    const asked: Asked = { path: '/', protocol: 'grpc' };
    try {
      expect(await answersHealthCheck(place, cart)).to.equal(true);
      expect(await answersHealthCheck(place, other)).to.equal(false);
      expect(await whyNotReady(place, asked)).to.equal(undefined);
      health.setStatus('shop.Cart', 'NOT_SERVING');
      health.setStatus('', 'NOT_SERVING');
      expect(await answersHealthCheck(place, cart)).to.equal(false);
      expect(await whyNotReady(place, asked)).to.equal('its health check says NOT_SERVING');
      const silent = { ...place, port: without.port };
      expect(await answersHealthCheck(silent, cart)).to.equal(true);
      expect(await whyNotReady(silent, asked)).to.equal('its health check says UNIMPLEMENTED');
    } finally {
      with_.grpcServer.forceShutdown();
      without.grpcServer.forceShutdown();
    }
  });
});
