/** What callers would meet is told when documents are applied, not by callers. */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect } from 'chai';
import { firstLook } from '../../cells/first-look';
import { cellDocument, serviceDocument } from '../support/documents';

describe('The first look at declared instances', () => {
  let server: Server;
  let port: number;
  before(async () => {
    server = createServer((request, response) => {
      response.writeHead(request.url === '/health' ? 200 : 404).end();
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    ({ port } = server.address() as AddressInfo);
  });
  after(() => server.close());

  const cellAt = (at: number) =>
    cellDocument('shop-a', { instances: [{ name: 'a-1', address: '127.0.0.1', port: at }] });
  const lookAt = (path: string, at = port, change: object = {}) =>
    firstLook([serviceDocument({ healthCheck: { path }, ...change }), cellAt(at)]);

  it('has nothing to say where all answer', async () => {
    expect(await lookAt('/health')).to.deep.equal([]);
  });

  it('names the path that would do, where the one of the service is refused', async () => {
    const [sentence] = await lookAt('/healthz');
    expect(sentence).to.match(
      /a-1 answered \/healthz with 404.*no requests there\. \/health was answered: set healthCheck\.path/,
    );
  });

  it('names who is not reached', async () => {
    expect(await lookAt('/health', 1)).to.deep.equal(['Service shop: not reached from here: a-1 (127.0.0.1:1).']);
  });

  it('asks nobody who speaks otherwise', async () => {
    expect(await lookAt('/healthz', port, { protocol: 'http/2' })).to.deep.equal([]);
  });
});
