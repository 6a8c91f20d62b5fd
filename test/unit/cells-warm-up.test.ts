import { expect } from 'chai';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { warmUpStepSchema, type Instance } from '../../blueprints/schema';
import type { TrafficReading } from '../../cells/warm-up/service-traffic';
import type { WarmUp } from '../../cells/warm-up/step';
import { warmUp } from '../../cells/warm-up/warm-up';

const stepOf = (step: object) => warmUpStepSchema.parse(step);

describe('Warm-up', () => {
  const servers: Server[] = [];

  afterEach(() => {
    for (const server of servers.splice(0)) server.close().closeAllConnections();
  });

  /** An instance that answers after that long: always, or by path and by how often it was asked before. */
  async function instanceOf(
    name: string,
    afterMs: number | ((path: string, asked: number) => number),
  ): Promise<{ instance: Instance; asked: () => number; paths: string[] }> {
    const paths: string[] = [];
    const server = createServer(({ url }, response) => {
      const waitMs = typeof afterMs === 'number' ? afterMs : afterMs(url!, paths.length);
      paths.push(url!);
      setTimeout(() => response.end('{}'), waitMs);
    });
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    return { instance: { name, address: '127.0.0.1', port }, asked: () => paths.length, paths };
  }

  it('does not wait for all the answers of an overloaded peer, and compares with those it got', async () => {
    const own = await instanceOf('synthetic-1', 0);
    const peer = await instanceOf('peer-1', 300);
    const evidence = await warmUp({
      plan: [stepOf({ kind: 'probe', path: '/', requests: 100, toleranceMs: 50 })],
      instances: [own.instance],
      peers: [peer.instance],
    });
    expect(evidence.warm, evidence.reasons.join()).to.equal(true);
    expect(own.asked()).to.equal(100);
    expect(peer.asked()).to.be.within(4, 99);
    expect(evidence.probe?.peersP95Ms).to.be.at.least(290);
    expect(evidence.steps.map(({ kind, ok }) => [kind, ok])).to.deep.equal([['probe', true]]);
  });

  describe('by probes', () => {
    it('gives a cell that becomes faster its time, and shows the p95 of each round', async () => {
      const own = await instanceOf('synthetic-1', (_, asked) => (asked < 4 ? 1000 : asked < 8 ? 500 : 0));
      const peer = await instanceOf('peer-1', 0);
      const told: string[] = [];
      const { warm, reasons, steps } = await warmUp({
        plan: [stepOf({ kind: 'probe', path: '/', requests: 4, toleranceMs: 300, atMostS: 50 })],
        instances: [own.instance],
        peers: [peer.instance],
        progress: (text) => told.push(text),
      });
      expect(warm, reasons.join()).to.equal(true);
      expect(steps[0]!.text).to.match(/^p95 1\d{3}, \d+, \d+/);
      expect(told.some((text) => text.startsWith('warm-up step 1 of 1, probe: round 2: p95 1'))).to.equal(true);
    });

    it('finds out a cell that stays slow, without waiting until the time is over', async () => {
      const own = await instanceOf('synthetic-1', 500);
      const peer = await instanceOf('peer-1', 0);
      const { warm, reasons } = await warmUp({
        plan: [stepOf({ kind: 'probe', path: '/', requests: 4, toleranceMs: 200, atMostS: 600 })],
        instances: [own.instance],
        peers: [peer.instance],
      });
      expect(warm).to.equal(false);
      expect(reasons[0]).to.match(/^probe of \/ on synthetic-1: p95 is .* its peers' .* accepted$/);
    });

    it('judges every code path by itself, and asks only the slow one again', async () => {
      const own = await instanceOf('synthetic-1', (path) => (path === '/report' ? 700 : 0));
      const peer = await instanceOf('peer-1', 0);
      const { warm, reasons } = await warmUp({
        plan: [stepOf({ kind: 'probe', paths: ['/item', '/report'], requests: 4, toleranceMs: 400 })],
        instances: [own.instance],
        peers: [peer.instance],
      });
      expect(warm).to.equal(false);
      expect(reasons).to.have.length(1);
      expect(reasons[0]).to.match(/^probe of \/report /);
      const of = (path: string) => own.paths.filter((asked) => asked === path).length;
      expect(of('/report')).to.be.greaterThan(of('/item'));
    });
  });

  describe('by copies of what callers ask for', () => {
    const before: TrafficReading = {
      proxies: 1,
      requestsPerSecond: 50,
      sourceBp: 5000,
      copies: { requests: 1000, errors: 10, inFlight: 0 },
      peers: { requests: 5000, errors: 50 },
    };

    /** Reads what was before, then that `requests` more copies came, of which some failed or have no answer yet. */
    function warmedBy(requests: number, errors: number, change: Partial<WarmUp> & { step?: object } = {}) {
      const { step, ...rest } = change;
      let reads = 0;
      const later = {
        ...before,
        copies: { requests: 1000 + requests, errors: 10 + errors, inFlight: 0 },
        peers: { requests: 5200, errors: 52 },
      };
      const read = async () => ((reads += 1) === 1 ? before : later);
      return warmUp({
        plan: [stepOf({ kind: 'mirror', requests: 100, timeoutS: 1, tolerance: 0.02, ...step })],
        instances: [{ name: 'synthetic-1', address: '127.0.0.1', port: 1 }],
        peers: [],
        callers: { read, mirrorPercent: 100, canaryBp: 100 },
        ...rest,
      });
    }

    it('is warm once enough were answered, of which no more failed than of the peers', async () => {
      const { warm, steps } = await warmedBy(100, 2);
      expect(warm).to.equal(true);
      expect(steps).to.have.length(1);
      expect(steps[0]).to.deep.include({
        kind: 'mirror',
        text: "100 copies of callers' requests answered, 2.0 % failed, of their peers' 1.0 %",
        ok: true,
      });
      expect(steps[0]!.tookMs).to.be.a('number');
    });

    it('is not warm if more failed than of the peers, also where copies are not required', async () => {
      const { warm, reasons } = await warmedBy(40, 8);
      expect(warm).to.equal(false);
      expect(reasons[0]).to.match(/^mirror: 40 copies .* 20\.0 % failed, .* more than the 3\.0 % accepted$/);
    });

    it('tells that too few came, which keeps it from being warm only where they are required', async () => {
      const [lenient, strict] = await Promise.all([warmedBy(7, 0), warmedBy(7, 0, { step: { required: true } })]);
      expect(lenient.warm).to.equal(true);
      expect(lenient.steps[0]!.ok).to.equal(null);
      expect(lenient.reasons.join()).to.contain('fewer than 100 within 1 s; 7 copies');
      expect(strict.warm).to.equal(false);
      expect(strict.steps[0]!.ok).to.equal(false);
    });

    it('says why it is not judged where nothing is mirrored, and never lets callers of a dead source wait', async () => {
      const nothing = await warmedBy(100, 0, {
        callers: { read: async () => before, mirrorPercent: 0, canaryBp: 100 },
        step: { required: true },
      });
      expect(nothing.reasons).to.deep.equal(['mirror: the service mirrors nothing (its mirror.percent is 0)']);
      expect(nothing.warm).to.equal(false);
      const rescue = await warmedBy(0, 0, { isRescue: true, step: { required: true, timeoutS: 600 } });
      expect(rescue.warm).to.equal(true);
      expect(rescue.steps[0]!.text).to.contain('left out: the source is dead');
    });
  });
});
