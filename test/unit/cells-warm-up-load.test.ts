/** The load proof of a warm-up: at the rate that the cell gets first, ended at once when it sheds, without loading its peers. */
import { expect } from 'chai';
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { warmUpStepSchema, type Instance } from '../../blueprints/schema';
import type { TrafficReading } from '../../cells/warm-up/service-traffic';
import { warmUp } from '../../cells/warm-up/warm-up';

/** 200 requests/s, of which the canary brings 10 % and the source carries half. */
const reading: TrafficReading = {
  proxies: 1,
  requestsPerSecond: 200,
  sourceBp: 5000,
  copies: { requests: 0, errors: 0, inFlight: 0 },
  peers: { requests: 0, errors: 0 },
};

describe('Warm-up by load', () => {
  const servers: Server[] = [];

  afterEach(() => {
    for (const server of servers.splice(0)) server.close().closeAllConnections();
  });

  async function serverOf(name: string, answer: (response: ServerResponse, nth: number) => void) {
    let asked = 0;
    const server = createServer((_, response) => answer(response, (asked += 1)));
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const instance: Instance = { name, address: '127.0.0.1', port: (server.address() as AddressInfo).port };
    return { instance, asked: () => asked };
  }

  const well = (response: ServerResponse) => void response.end('{}');
  const peer = () => serverOf('peer-1', well);

  function loaded(instance: Instance, peers: Instance[], step: object = {}, read = async () => reading) {
    return warmUp({
      plan: [warmUpStepSchema.parse({ kind: 'load', paths: ['/'], forS: 1, toleranceMs: 1500, ...step })],
      instances: [instance],
      peers,
      callers: { read, mirrorPercent: 0, canaryBp: 1000 },
    });
  }

  it('asks at the rate that the canary, or the whole share of the source, brings, within its bound', async () => {
    const beside = await peer();
    const cases: [object, number][] = [
      [{}, 20],
      [{ share: 'source' }, 100],
      [{ share: 'source', atMostRequestsPerSecond: 30 }, 30],
    ];
    await Promise.all(
      cases.map(async ([step, requests]) => {
        const own = await serverOf('synthetic-1', well);
        const { warm, steps, reasons } = await loaded(own.instance, [beside.instance], step);
        expect(warm, reasons.join()).to.equal(true);
        expect(own.asked()).to.equal(requests);
        expect(steps[0]!.text).to.match(
          /^load of \d+ requests\/s .* p95 \d+ ms against its peers' \d+ ms, 0\.0 % of \d+ failed$/,
        );
      }),
    );
    expect(beside.asked(), 'peers are not loaded').to.equal(30);
  });

  it('ends at once when the cell sheds', async () => {
    const own = await serverOf('synthetic-1', (response, nth) => {
      response.statusCode = nth > 5 ? 503 : 200;
      response.end('{}');
    });
    const { warm, reasons } = await loaded(own.instance, [(await peer()).instance], { share: 'source', forS: 600 });
    expect(warm).to.equal(false);
    expect(reasons[0]).to.contain('ended, the cell sheds (answered 503)');
  });

  it('ends when the cell falls behind, though none of its answers is wrong', async () => {
    let until = Promise.resolve();
    // One request at a time, of a fifth of a second each: alone it is quick enough.
    const own = await serverOf('synthetic-1', (response) => {
      until = until.then(() => new Promise((resolve) => setTimeout(resolve, 200))).then(() => void response.end('{}'));
    });
    const step = { share: 'source', forS: 600, atMostRequestsPerSecond: 50 };
    const { warm, reasons } = await loaded(own.instance, [(await peer()).instance], step);
    expect(warm).to.equal(false);
    expect(reasons[0]).to.contain('ended, ');
  });

  it('is not warm where it is slower under the load than its peers are without it', async () => {
    const own = await serverOf('synthetic-1', (response) => void setTimeout(() => response.end('{}'), 900));
    const { warm, reasons } = await loaded(own.instance, [(await peer()).instance], { toleranceMs: 300 });
    expect(warm).to.equal(false);
    expect(reasons[0]).to.match(/^load on synthetic-1: p95 is .* accepted$/);
  });

  it('does not judge what it will get where nobody calls', async () => {
    const own = await serverOf('synthetic-1', well);
    const quiet = async () => ({ ...reading, requestsPerSecond: 0 });
    const { warm, steps } = await loaded(own.instance, [], {}, quiet);
    expect(warm).to.equal(true);
    expect(steps[0]!.ok).to.equal(null);
    expect(own.asked()).to.equal(0);
  });
});
