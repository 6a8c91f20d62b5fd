import { expect } from 'chai';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Instance } from '../../blueprints/schema';
import { warmUp } from '../../cells/warm-up';

describe('Warm-up', () => {
  const servers: Server[] = [];

  after(() => {
    for (const server of servers) server.close();
  });

  /** An instance that answers after that long, and how often it was asked. */
  async function instanceOf(name: string, afterMs: number): Promise<{ instance: Instance; asked: () => number }> {
    let asked = 0;
    const server = createServer((_, response) => {
      asked += 1;
      setTimeout(() => response.end('{}'), afterMs);
    });
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    return { instance: { name, address: '127.0.0.1', port }, asked: () => asked };
  }

  it('does not wait for all the answers of an overloaded peer, and compares with those it got', async () => {
    const own = await instanceOf('synthetic-1', 0);
    const peer = await instanceOf('peer-1', 300);
    const evidence = await warmUp({
      plan: [{ kind: 'probe', path: '/', requests: 100, maxLatencyRatio: 2, toleranceMs: 50 }],
      instances: [own.instance],
      peers: [peer.instance],
    });
    expect(evidence.warm, evidence.reasons.join()).to.equal(true);
    expect(own.asked()).to.equal(100);
    expect(peer.asked()).to.be.within(4, 99);
    expect(evidence.probe?.peersP95Ms).to.be.at.least(290);
  });
});
