import { expect } from 'chai';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { answersHealthCheck } from '../../activities/instance-health';
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

  it('is a connection where nobody here can ask: by HTTP/2, or by TLS without an identity', async () => {
    status = 503;
    const [free] = (await reservePorts(1)) as [number];
    const tls = { trustedCa: { file: '/ca.pem' }, subjectAltName: { kind: 'dns', value: '{cell}.test' } };
    for (const change of [{ protocol: 'http/2' }, { protocol: 'grpc' }, { tls }]) {
      expect(await answersHealthCheck(instance(), service(change)), JSON.stringify(change)).to.equal(true);
      expect(await answersHealthCheck({ ...instance(), port: free }, service(change))).to.equal(false);
    }
    releasePorts([free]);
  });
});
