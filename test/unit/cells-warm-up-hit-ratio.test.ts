/** A warm-up beside real small services with caches: one that says it was preloaded and holds nothing is found out. */
import { expect } from 'chai';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { warmUpStepSchema, type Instance } from '../../blueprints/schema';
import { figureIn } from '../../cells/warm-up/cache-counters';
import { warmUp } from '../../cells/warm-up/warm-up';

const entries = 1000;
const stepOf = (step: object) => warmUpStepSchema.parse(step);
const preload = stepOf({ kind: 'preload', path: '/preload', minEntries: entries });
const probe = stepOf({ kind: 'probe', path: '/healthz', requests: 4, toleranceMs: 2000 });
const asked = { kind: 'hitRatio', paths: ['/items/{n}'], requests: 40 };
const byPointer = stepOf({ ...asked, counters: '/stats', hits: '/cache/hits', misses: '/cache/misses' });
const bySeries = stepOf({
  ...asked,
  counters: '/metrics',
  hits: 'cache_requests_total{result="hit"}',
  misses: 'cache_requests_total{result="miss"}',
});

describe('Warm-up by hit ratio', () => {
  const servers: Server[] = [];

  afterEach(() => {
    for (const server of servers.splice(0)) server.close().closeAllConnections();
  });

  /** Keeps what it was asked for; a preload fills it, unless it only says so. */
  async function cacheOf(name: string, { isFull = false, lies = false } = {}): Promise<Instance> {
    const fill = (to: Set<string>) => Array.from({ length: entries }, (_, n) => to.add(`/items/${n + 1}`));
    const held = new Set<string>();
    if (isFull) fill(held);
    const counted = { hits: 0, misses: 0 };
    const answers: Record<string, () => string> = {
      '/healthz': () => '{}',
      '/preload': () => {
        if (!lies) fill(held);
        return JSON.stringify({ entries });
      },
      '/stats': () => JSON.stringify({ cache: counted }),
      '/metrics': () =>
        [
          '# TYPE cache_requests_total counter',
          `cache_requests_total{result="hit",tier="1"} ${counted.hits}`,
          `cache_requests_total{result="miss",tier="1"} ${counted.misses}`,
        ].join('\n'),
    };
    const server = createServer(({ url = '' }: IncomingMessage, response) => {
      if (answers[url]) return void response.end(answers[url]());
      counted[held.has(url) ? 'hits' : 'misses'] += 1;
      held.add(url);
      response.end(url);
    });
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return { name, address: '127.0.0.1', port: (server.address() as AddressInfo).port };
  }

  for (const [how, step] of [
    ['JSON counters', byPointer],
    ['Prometheus counters', bySeries],
  ] as const)
    it(`finds out a cell that says it preloaded 1,000 entries and holds none, by its ${how}`, async () => {
      const peers = [await cacheOf('peer-1', { isFull: true })];
      const plan = [preload, probe, step];
      const honest = await warmUp({ plan, instances: [await cacheOf('honest-1')], peers });
      expect(honest.warm, honest.reasons.join()).to.equal(true);
      expect(honest.steps.at(-1)).to.deep.include({
        kind: 'hitRatio',
        text: "hit ratio 100.0 %, its peers' 100.0 %",
        ok: true,
      });
      const liar = await warmUp({ plan, instances: [await cacheOf('liar-1', { lies: true })], peers });
      expect(liar.entries).to.equal(entries);
      expect(liar.warm).to.equal(false);
      // Neither what it says nor how fast it answers gives it away.
      expect(liar.steps.map(({ kind, ok }) => [kind, ok])).to.deep.equal([
        ['preload', true],
        ['probe', true],
        ['hitRatio', false],
      ]);
      expect(liar.reasons[0]).to.equal("hit ratio of liar-1: 0.0 %, its peers' 100.0 %: less than the 90.0 % accepted");
    });

  it('finds one empty instance beside a full one', async () => {
    const { warm, reasons } = await warmUp({
      plan: [byPointer],
      instances: [await cacheOf('own-1', { isFull: true }), await cacheOf('own-2')],
      peers: [await cacheOf('peer-1', { isFull: true })],
    });
    expect(warm).to.equal(false);
    expect(reasons).to.have.length(1);
    expect(reasons[0]).to.contain('own-2');
  });

  it('asks no more of a cell than its peers have, tells where there is nothing to compare, and takes no silence for hits', async () => {
    const among = (peers: Instance[], instances: Instance[], step: object = byPointer) =>
      warmUp({ plan: [stepOf(step)], instances, peers });
    const cold = await among([await cacheOf('peer-1')], [await cacheOf('own-1')]);
    expect(cold.warm, cold.reasons.join()).to.equal(true);
    const alone = await among([], [await cacheOf('own-1')]);
    expect(alone.steps[0]!.ok).to.equal(null);
    const needed = await among([], [await cacheOf('own-1')], { ...byPointer, atLeast: 0.5 });
    expect(needed.reasons[0]).to.contain('less than the 50.0 % accepted');
    const silent = await among([], [await cacheOf('own-1')], { ...byPointer, hits: '/cache/found' });
    expect(silent.reasons[0]).to.equal('hit ratio of own-1: /stats does not tell /cache/found');
    const uncounted = await among([], [await cacheOf('own-1')], { ...byPointer, paths: ['/healthz'] });
    expect(uncounted.reasons[0]).to.contain('counted none of 40 requests');
  });

  it('reads figures by pointer and by series with their labels', () => {
    expect(figureIn('{"a/b":{"~c":[7]}}', '/a~1b/~0c/0')).to.equal(7);
    expect(figureIn('{"a":"7"}', '/a')).to.equal(undefined);
    expect(figureIn('no JSON', '/a')).to.equal(undefined);
    const text =
      '# HELP hits x\nhits{zone="a",of="items"} 3 1700000000\nhits{zone="b",of="items"} 4\nhits_total 9\nhits{of="carts"} 1\n';
    expect(figureIn(text, 'hits{of="items"}')).to.equal(7);
    expect(figureIn(text, 'hits')).to.equal(8);
    expect(figureIn(text, 'hits{of="none"}')).to.equal(undefined);
  });
});
