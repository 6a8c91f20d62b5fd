import { expect } from 'chai';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { exactQuantile, OpenLoopLoad } from '../../lab/load';

describe('Open-loop load', () => {
  let server: Server;
  let url: string;
  let answered = 0;
  let respond: (path: string) => number;

  beforeEach(async () => {
    answered = 0;
    respond = () => 200;
    server = createServer((message, response) => {
      answered++;
      response.writeHead(respond(message.url ?? '')).end();
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });

  afterEach(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });

  const load = (options: Partial<ConstructorParameters<typeof OpenLoopLoad>[0]> = {}): OpenLoopLoad =>
    new OpenLoopLoad({
      urls: url,
      ratePerSecond: 200,
      paths: ['/'],
      sloMs: 100,
      timeoutMs: 10_000,
      seed: 1,
      ...options,
    });

  const until = async (condition: () => boolean): Promise<void> => {
    while (!condition()) await new Promise((resolve) => setImmediate(resolve));
  };

  it('counts a latency from the time the request was meant to leave, also when this process was paused', async () => {
    const running = load();
    running.start();
    await until(() => answered >= 5);
    const pauseMs = 400;
    const end = performance.now() + pauseMs;
    while (performance.now() < end); // the event loop stands still, as in a long garbage collection
    await until(() => answered >= 90);
    const { totals } = await running.stop();
    // At 200 requests per second 80 were due in the pause; those due in its first 300 ms are at least 100 ms late.
    expect(totals.overSlo).to.be.at.least(50);
    expect(totals.p99Ms).to.be.at.least(0.75 * pauseMs);
  });

  it('sends every request that was due, however slow the answers are', async () => {
    const held: (() => void)[] = [];
    server.removeAllListeners('request');
    server.on('request', (_, response) => held.push(() => void response.end()));
    const running = load();
    running.start();
    await until(() => held.length >= 30);
    expect(running.snapshot().requests).to.equal(0);
    const answering = setInterval(() => held.splice(0).forEach((answer) => answer()), 5);
    const { totals } = await running.stop();
    clearInterval(answering);
    expect(totals.requests).to.be.at.least(30);
    expect(totals.failed).to.equal(0);
  });

  it('takes targets in turn and names the reason of each failure', async () => {
    respond = (path) => (path === '/broken' ? 503 : 200);
    const refusing = createServer();
    await new Promise<void>((resolve) => refusing.listen(0, '127.0.0.1', resolve));
    const closedPort = (refusing.address() as AddressInfo).port;
    await new Promise((resolve) => refusing.close(resolve));
    const running = load({ urls: [url, `http://127.0.0.1:${closedPort}`], paths: ['/broken'] });
    running.start();
    await until(() => running.snapshot().requests >= 20);
    const { totals, failures } = await running.stop();
    expect(totals.failed).to.equal(totals.requests);
    expect(Object.keys(failures).sort()).to.deep.equal(['ECONNREFUSED', 'HTTP 503']);
    expect(Math.abs((failures.ECONNREFUSED ?? 0) - (failures['HTTP 503'] ?? 0))).to.be.at.most(1);
  });

  it('counts a request without an answer in time as failed', async () => {
    server.removeAllListeners('request');
    const running = load({ timeoutMs: 50, ratePerSecond: 50 });
    running.start();
    await until(() => running.snapshot().requests >= 3);
    const { failures, totals } = await running.stop();
    expect(failures.timeout).to.equal(totals.requests);
  });

  it('reports quantiles that are among the measured values', () => {
    expect(exactQuantile([], 0.99)).to.equal(null);
    expect(exactQuantile([7], 0.5)).to.equal(7);
    const hundred = Array.from({ length: 100 }, (_, i) => i + 1);
    expect(exactQuantile(hundred, 0.5)).to.equal(50);
    expect(exactQuantile(hundred, 0.99)).to.equal(99);
  });
});
