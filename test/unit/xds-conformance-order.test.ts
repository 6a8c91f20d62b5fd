/** Make before break, and no more than needed, by the items of the conformance list. */
import { expect } from 'chai';
import type { ResourceType } from '../../envoy/resources/resource';
import type { ScriptedClient } from '../support/scripted-client';
import { cluster, endpoints, listener, route, secret, XdsWorld } from '../support/xds-world';

describe('xDS conformance, order', () => {
  let world: XdsWorld;
  beforeEach(async () => (world = await XdsWorld.start()));
  afterEach(() => world.stop());

  const shop = [cluster('a'), endpoints('a'), listener('l'), route('l', ['a'])];
  /** A proxy that has all of `shop`. */
  const served = async (protocol: 'delta' | 'sotw', node = 'scripted'): Promise<ScriptedClient> => {
    world.publish(...shop);
    const client = world.connect(protocol, { node });
    client.asks('cluster');
    await client.hearsAndAcks('cluster a@1');
    client.asks('endpoints', 'a');
    await client.hearsAndAcks('endpoints a@1');
    client.asks('listener');
    await client.hearsAndAcks('listener l@1');
    client.asks('route', 'l');
    await client.hearsAndAcks('route l@1');
    return client;
  };

  for (const protocol of ['delta', 'sotw'] as const) {
    const only = (full: string, changed: string): string => (protocol === 'sotw' ? full : changed);

    it(`ORDER-1 clusters, endpoints, listeners, routes and secrets go in this order, however asked for (${protocol})`, async () => {
      world.publish(secret('s'), listener('l'), endpoints('a'), cluster('a'), route('l', ['a']));
      const client = world.connect(protocol);
      // The first request is answered before those behind it are read; the others come in one burst.
      client.asks('secret', 's');
      await client.hearsAndAcks('secret s@1');
      const all = [secret('s', 2), route('l', ['a'], 2), listener('l', 2), endpoints('a', 2), cluster('a', 2)];
      client.asks('route', 'l');
      client.asks('listener');
      client.asks('endpoints', 'a');
      client.asks('cluster');
      const order: ResourceType[] = [];
      while (order.length < 4) {
        const answer = await client.next();
        order.push(answer.type);
        client.acks(answer);
      }
      await client.isLeftInPeace();
      world.publish(...all);
      await client.hearsAndAcks('cluster a@2');
      await client.hearsAndAcks('endpoints a@2');
      await client.hearsAndAcks('listener l@2');
      await client.hearsAndAcks('route l@2');
      await client.hearsAndAcks('secret s@2');
      await client.isLeftInPeace();
    });

    it(`ORDER-2 a route is held back until the cluster it names, and its endpoints, are accepted (${protocol})`, async () => {
      const client = await served(protocol);
      world.publish(...shop.slice(0, 3), cluster('b'), endpoints('b'), route('l', ['a', 'b'], 2));
      const added = await client.hears(only('cluster a@1 b@1', 'cluster b@1'));
      await client.isLeftInPeace();
      client.acks(added);
      await client.isLeftInPeace();
      client.asks('endpoints', 'b');
      const assignment = await client.hears('endpoints b@1');
      await client.isLeftInPeace();
      client.acks(assignment);
      await client.hearsAndAcks('route l@2');
      await client.isLeftInPeace();
    });

    it(`ORDER-2 a route that names a refused cluster stays as it was, and goes on once the cluster is mended (${protocol})`, async () => {
      const client = await served(protocol);
      world.publish(...shop.slice(0, 3), cluster('b'), endpoints('b'), route('l', ['b'], 2));
      await client.hears(only('cluster a@1 b@1', 'cluster b@1'));
      client.nacks('cluster b: no');
      await client.isLeftInPeace();
      world.publish(...shop.slice(0, 3), cluster('b', 2), endpoints('b'), route('l', ['b'], 2));
      await client.hearsAndAcks(only('cluster a@1 b@2', 'cluster b@2'));
      client.asks('endpoints', 'b');
      await client.hearsAndAcks('endpoints b@1');
      await client.hearsAndAcks('route l@2');
      await client.isLeftInPeace();
    });

    it(`ORDER-3 an old cluster stays until the routes that named it are replaced, in one transaction (${protocol})`, async () => {
      const client = await served(protocol);
      // a leaves and b comes in one publication: both are there until the route has moved.
      world.publish(cluster('b'), endpoints('b'), listener('l'), route('l', ['b'], 2));
      await client.hearsAndAcks(only('cluster a@1 b@1', 'cluster b@1'));
      client.asks('endpoints', 'b');
      await client.hearsAndAcks('endpoints b@1');
      const moved = await client.hears('route l@2');
      await client.isLeftInPeace();
      client.acks(moved);
      await client.hearsAndAcks(only('cluster b@1', 'cluster -a'));
      // Its endpoints follow when nothing names them; by state of the world nobody says so.
      if (protocol === 'delta') await client.hearsAndAcks('endpoints -a');
      await client.isLeftInPeace();
    });

    it(`ORDER-3 a service is taken away from its listener down to its endpoints (${protocol})`, async () => {
      const client = await served(protocol);
      world.publish();
      const gone = await client.hears(only('listener', 'listener -l'));
      await client.isLeftInPeace();
      client.acks(gone);
      if (protocol === 'delta') await client.hearsAndAcks('route -l');
      else client.drops('route', 'l');
      await client.hearsAndAcks(only('cluster', 'cluster -a'));
      if (protocol === 'delta') await client.hearsAndAcks('endpoints -a');
      await client.isLeftInPeace();
    });

    it(`ORDER-4 endpoints are sent again after any change of their cluster: Envoy warms it anew (${protocol})`, async () => {
      const client = await served(protocol);
      world.publish(cluster('a', 2), ...shop.slice(1));
      await client.hearsAndAcks('cluster a@2');
      await client.hearsAndAcks('endpoints a@1');
      await client.isLeftInPeace();
    });

    it(`ORDER-4 a proxy that comes back to a changed cluster is sent the endpoints it says it holds (${protocol})`, async () => {
      const before = await served(protocol);
      before.leave();
      world.publish(cluster('a', 2), ...shop.slice(1));
      const after = world.connect(protocol, { brings: before.held });
      after.asks('cluster');
      await after.hears('cluster a@2');
      after.asks('endpoints', 'a');
      await after.hearsAndAcks('endpoints a@1');
      await after.isLeftInPeace();
    });

    it(`ORDER-4 a proxy that left while it waited for endpoints is sent them when it is back (${protocol})`, async () => {
      const before = await served(protocol);
      world.publish(cluster('a', 2), ...shop.slice(1));
      await before.hearsAndAcks('cluster a@2');
      await before.hears('endpoints a@1');
      before.leave();
      await before.ended;
      const after = world.connect(protocol, { brings: before.held });
      after.asks('cluster');
      if (protocol === 'sotw') await after.hearsAndAcks('cluster a@2');
      after.asks('endpoints', 'a');
      await after.hearsAndAcks('endpoints a@1');
      await after.isLeftInPeace();
    });

    it(`ORDER-5 clusters are not spammed: whatever happens during one response is one more (${protocol})`, async () => {
      const client = await served(protocol);
      world.publish(cluster('a', 2), ...shop.slice(1));
      const first = await client.hears('cluster a@2');
      await client.hearsAndAcks('endpoints a@1');
      for (let revision = 3; revision <= 20; revision += 1) world.publish(cluster('a', revision), ...shop.slice(1));
      await client.isLeftInPeace();
      client.acks(first);
      await client.hearsAndAcks('cluster a@20');
      await client.hearsAndAcks('endpoints a@1');
      await client.isLeftInPeace();
      expect(client.heard.cluster).to.equal(3);
    });

    it(`ORDER-6 a weight step is one resource, and nothing else (${protocol})`, async () => {
      const client = await served(protocol);
      const before = world.xds.counts.responses;
      world.publish(cluster('a'), endpoints('a', 2), listener('l'), route('l', ['a']));
      await client.hearsAndAcks('endpoints a@2');
      expect(world.xds.counts.responses - before).to.equal(1);
      await client.isLeftInPeace();
    });

    it(`ORDER-7 publishing the same again sends nothing (${protocol})`, async () => {
      const client = await served(protocol);
      const before = world.xds.counts.responses;
      expect(world.publish(...shop)).to.deep.equal([]);
      expect(world.publish(...[...shop].reverse())).to.deep.equal([]);
      expect(world.xds.counts.responses).to.equal(before);
      await client.isLeftInPeace();
    });

    it(`ORDER-8 the barrier tells apart who accepted, refused, gave no answer in time, and has gone (${protocol})`, async () => {
      world.publish(endpoints('a'));
      const all = ['accepts', 'refuses', 'waits', 'leaves'].map((node) => world.connect(protocol, { node }));
      for (const client of all) {
        client.asks('endpoints', 'a');
        await client.hearsAndAcks('endpoints a@1');
      }
      // An acknowledgement is on its way no longer than a round trip.
      for (const client of all) await client.isLeftInPeace();
      const outcome = world.publishAndWait(1000, endpoints('a', 2));
      const [accepts, refuses, waits, leaves] = all as [ScriptedClient, ScriptedClient, ScriptedClient, ScriptedClient];
      await accepts.hearsAndAcks('endpoints a@2');
      await refuses.hears('endpoints a@2');
      refuses.nacks('no');
      await waits.hears('endpoints a@2');
      await leaves.hears('endpoints a@2');
      leaves.leave();
      const { acked, nacked, pending, gone } = await outcome;
      expect({ acked, pending, gone }).to.deep.equal({ acked: ['accepts'], pending: ['waits'], gone: ['leaves'] });
      expect(nacked).to.deep.equal([{ node: 'refuses', type: 'endpoints', resource: 'a', error: 'no' }]);
    });
  }

  it('ORDER-3 a proxy that comes back keeps a cluster that is gone until it has said which routes it holds', async () => {
    const before = await served('delta');
    before.leave();
    world.publish(cluster('b'), endpoints('b'), listener('l'), route('l', ['b'], 2));
    const after = world.connect('delta', { brings: before.held });
    after.asks('cluster');
    await after.hearsAndAcks('cluster b@1');
    await after.isLeftInPeace();
    after.asks('endpoints', 'a', 'b');
    await after.hearsAndAcks('endpoints b@1');
    after.asks('listener');
    after.asks('route', 'l');
    const moved = await after.hears('route l@2');
    after.acks(moved);
    await after.hearsAndAcks('cluster -a');
    await after.hearsAndAcks('endpoints -a');
    await after.isLeftInPeace();
  });

  it('ORDER-3 by state of the world too, a proxy that comes back keeps a gone cluster until its routes have left it', async () => {
    const before = await served('sotw');
    await before.isLeftInPeace();
    before.leave();
    await before.ended;
    world.publish(cluster('b'), endpoints('b'), listener('l'), route('l', ['b'], 2));
    const after = world.connect('sotw', { brings: before.held });
    after.asks('cluster');
    await after.hearsAndAcks('cluster a@1 b@1');
    after.asks('endpoints', 'a', 'b');
    await after.hearsAndAcks('endpoints b@1');
    after.asks('listener');
    await after.hearsAndAcks('listener l@1');
    await after.isLeftInPeace();
    after.asks('route', 'l');
    const moved = await after.hears('route l@2');
    await after.isLeftInPeace();
    after.acks(moved);
    await after.hearsAndAcks('cluster b@1');
    await after.isLeftInPeace();
  });

  it('ORDER-3 a proxy that has no routes is told within moments of its return which clusters are gone', async () => {
    world.publish(cluster('a'), cluster('b'));
    const before = world.connect('delta');
    before.asks('cluster');
    await before.hearsAndAcks('cluster a@1 b@1');
    before.leave();
    world.publish(cluster('a'));
    const after = world.connect('delta', { brings: before.held });
    after.asks('cluster');
    await after.hearsAndAcks('cluster -b');
    await after.isLeftInPeace();
  });

  it('ORDER-8 the barrier waits for endpoints that a proxy has yet to ask for, and not for proxies that never will', async () => {
    const client = await served('delta', 'follows');
    const other = world.connect('delta', { node: 'other' });
    other.asks('secret', 'none');
    await other.hearsAndAcks('secret -none');
    let isOver = false;
    const outcome = world.publishAndWait(20_000, ...shop, cluster('b'), endpoints('b')).finally(() => (isOver = true));
    await client.hearsAndAcks('cluster b@1');
    await client.isLeftInPeace();
    expect(isOver).to.equal(false);
    client.asks('endpoints', 'b');
    await client.hearsAndAcks('endpoints b@1');
    expect(await outcome).to.deep.include({ acked: ['follows'], nacked: [], pending: [], gone: [] });
  });
});
