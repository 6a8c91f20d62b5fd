/** Incremental xDS, by the items of the conformance list: each exchange to the letter, and nothing beyond it. */
import { expect } from 'chai';
import { resourceProblems } from '../../envoy/validate';
import { cluster, endpoints, listener, route, secret, XdsWorld } from '../support/xds-world';

describe('xDS conformance, delta', () => {
  let world: XdsWorld;
  beforeEach(async () => (world = await XdsWorld.start()));
  afterEach(() => world.stop());

  it('DELTA-1 only what changed is sent, each resource under its own version', async () => {
    world.publish(cluster('a'), cluster('b'));
    const client = world.connect('delta');
    client.asks('cluster');
    const first = await client.hearsAndAcks('cluster a@1 b@1');
    expect(new Set(first.items.map(({ version }) => version)).size).to.equal(2);
    world.publish(cluster('a'), cluster('b', 2));
    const second = await client.hearsAndAcks('cluster b@2');
    expect(first.items.map(({ version }) => version)).not.to.include(second.items[0]!.version);
    world.publish(cluster('a'), cluster('b'));
    const back = await client.hearsAndAcks('cluster b@1');
    expect(
      first.items.map(({ version }) => version),
      'versions are of the content',
    ).to.include(back.items[0]!.version);
    await client.isLeftInPeace();
  });

  it('DELTA-1 a first request that names nothing is answered even when there is nothing', async () => {
    world.publish();
    const client = world.connect('delta');
    client.asks('cluster');
    await client.hearsAndAcks('cluster');
    await client.isLeftInPeace();
  });

  it('DELTA-1 a first request that names nothing asks for nothing but of clusters and listeners', async () => {
    world.publish(endpoints('a'), route('r', []), secret('s'), listener('l'));
    const client = world.connect('delta');
    client.asks('endpoints');
    client.asks('route');
    client.asks('secret');
    client.asks('listener');
    await client.hearsAndAcks('listener l@1');
    await client.isLeftInPeace();
  });

  it('DELTA-2 an unknown name is said not to exist, is kept, and is sent when it is created', async () => {
    world.publish();
    const client = world.connect('delta');
    client.asks('endpoints', 'late');
    await client.hearsAndAcks('endpoints -late');
    await client.isLeftInPeace();
    world.publish(endpoints('late'));
    await client.hearsAndAcks('endpoints late@1');
    await client.isLeftInPeace();
  });

  it('DELTA-3 what was deleted is named as removed, and sent when it comes back', async () => {
    world.publish(cluster('a'), cluster('b'));
    const client = world.connect('delta');
    client.asks('cluster');
    await client.hearsAndAcks('cluster a@1 b@1');
    world.publish(cluster('a'));
    await client.hearsAndAcks('cluster -b');
    await client.isLeftInPeace();
    world.publish(cluster('a'), cluster('b'));
    await client.hearsAndAcks('cluster b@1');
    await client.isLeftInPeace();
  });

  it('DELTA-4 nothing more is sent of a name that was unsubscribed, and others go on', async () => {
    world.publish(endpoints('a'), endpoints('b'));
    const client = world.connect('delta');
    client.asks('endpoints', 'a', 'b');
    await client.hearsAndAcks('endpoints a@1 b@1');
    client.drops('endpoints', 'a', 'never-asked-for');
    await client.isLeftInPeace();
    world.publish(endpoints('a', 2), endpoints('b', 2));
    await client.hearsAndAcks('endpoints b@2');
    world.publish(endpoints('b', 2));
    await client.isLeftInPeace();
  });

  it('DELTA-4 a wildcard is given up with `*`; what is named besides stays', async () => {
    world.publish(cluster('a'), cluster('b'));
    const client = world.connect('delta');
    client.asks('cluster', '*', 'a');
    await client.hearsAndAcks('cluster a@1 b@1');
    client.drops('cluster', '*');
    await client.isLeftInPeace();
    world.publish(cluster('a', 2), cluster('b', 2), cluster('c'));
    await client.hearsAndAcks('cluster a@2');
    await client.isLeftInPeace();
  });

  it('DELTA-5 the subscriptions of a request whose nonce is stale count all the same', async () => {
    world.publish(endpoints('a'), endpoints('b'));
    const client = world.connect('delta');
    client.asks('endpoints', 'a');
    const first = await client.hearsAndAcks('endpoints a@1');
    client.send('endpoints', { response_nonce: first.nonce, resource_names_subscribe: ['b'] });
    await client.hearsAndAcks('endpoints b@1');
    client.send('endpoints', { response_nonce: first.nonce, resource_names_unsubscribe: ['a'] });
    await client.isLeftInPeace();
    world.publish(endpoints('a', 2), endpoints('b'));
    await client.isLeftInPeace();
    expect(world.xds.counts.stale).to.equal(2);
  });

  it('DELTA-5 a stale nonce does not settle the response that is under way', async () => {
    world.publish(endpoints('a'));
    const client = world.connect('delta');
    client.asks('endpoints', 'a');
    const first = await client.hearsAndAcks('endpoints a@1');
    world.publish(endpoints('a', 2));
    const second = await client.hears('endpoints a@2');
    world.publish(endpoints('a', 3));
    client.send('endpoints', { response_nonce: first.nonce });
    await client.isLeftInPeace();
    client.acks(second);
    await client.hearsAndAcks('endpoints a@3');
  });

  it('DELTA-6 a known name that is subscribed again is sent again', async () => {
    world.publish(endpoints('a'), endpoints('b'));
    const client = world.connect('delta');
    client.asks('endpoints', 'a', 'b');
    await client.hearsAndAcks('endpoints a@1 b@1');
    client.send('endpoints', { resource_names_subscribe: ['a'] });
    await client.hearsAndAcks('endpoints a@1');
    await client.isLeftInPeace();
  });

  it('DELTA-7 after a reconnect what is the same is not sent, what changed is, and what was deleted is removed', async () => {
    const names = ['same', 'changed', 'gone'];
    world.publish(...names.map((name) => endpoints(name)));
    const before = world.connect('delta');
    before.asks('endpoints', ...names);
    await before.hearsAndAcks('endpoints changed@1 gone@1 same@1');
    before.leave();
    world.publish(endpoints('same'), endpoints('changed', 2));
    const after = world.connect('delta', { brings: before.held });
    after.asks('endpoints', ...names);
    await after.hearsAndAcks('endpoints changed@2 -gone');
    await after.isLeftInPeace();
    expect(after.holds('endpoints')).to.deep.equal({ changed: 2, same: 1 });
  });

  it('DELTA-7 after a reconnect without any change nothing is sent at all', async () => {
    world.publish(cluster('a'), endpoints('a'), listener('l'), route('l', ['a']));
    const before = world.connect('delta');
    before.asks('cluster');
    await before.hearsAndAcks('cluster a@1');
    before.asks('endpoints', 'a');
    await before.hearsAndAcks('endpoints a@1');
    before.asks('listener');
    await before.hearsAndAcks('listener l@1');
    before.asks('route', 'l');
    await before.hearsAndAcks('route l@1');
    before.leave();
    const after = world.connect('delta', { brings: before.held });
    after.asks('cluster');
    after.asks('endpoints', 'a');
    after.asks('listener');
    after.asks('route', 'l');
    await after.isLeftInPeace();
  });

  it('DELTA-8 under a wildcard, a name that is unsubscribed is answered with what it is, or as removed', async () => {
    world.publish(cluster('a'), cluster('b'));
    const client = world.connect('delta');
    client.asks('cluster', '*', 'a', 'nowhere');
    await client.hearsAndAcks('cluster a@1 b@1 -nowhere');
    client.drops('cluster', 'a');
    await client.hearsAndAcks('cluster a@1');
    client.drops('cluster', 'nowhere');
    await client.hearsAndAcks('cluster -nowhere');
    await client.isLeftInPeace();
  });

  it('DELTA-9 one request per name is answered together', async () => {
    const names = Array.from({ length: 20 }, (_, i) => `e${i}`);
    world.publish(...names.map((name) => endpoints(name)));
    const client = world.connect('delta');
    for (const name of names) client.asks('endpoints', name);
    const seen: string[] = [];
    while (seen.length < names.length) {
      const answer = await client.next();
      seen.push(...answer.items.map(({ name }) => name));
      client.acks(answer);
    }
    expect(seen.sort()).to.deep.equal([...names].sort());
    expect(client.heard.endpoints).to.be.below(names.length / 2);
    await client.isLeftInPeace();
  });

  it('DELTA-10 two clusters on one assignment, which would stall Envoy for 15 s, are refused before they are published', () => {
    const twin = {
      ...cluster('twin'),
      message: { ...cluster('twin').message, eds_cluster_config: { service_name: 'a' } },
    };
    expect(resourceProblems([cluster('a'), twin]).join('\n')).to.contain("cluster twin: assignment a is already a's");
  });

  it('DELTA-11 what has a time to live is confirmed without its body, again and again, and still sent when it changes', async () => {
    world.publish(endpoints('mortal', 1, { ttlMs: 300 }), endpoints('everlasting'));
    const client = world.connect('delta', { features: ['xds.config.supports-resource-ttl'] });
    client.asks('endpoints', 'mortal', 'everlasting');
    const told = await client.hearsAndAcks('endpoints everlasting@1 mortal@1 ttl=300');
    const version = told.items.find(({ name }) => name === 'mortal')!.version;
    for (let beat = 0; beat < 3; beat += 1) {
      const { items } = await client.hearsAndAcks('endpoints ~mortal ttl=300');
      expect(items[0]!.version).to.equal(version);
    }
    world.publish(endpoints('mortal', 2, { ttlMs: 300 }), endpoints('everlasting'));
    await client.hearsAndAcks('endpoints mortal@2 ttl=300');
    await client.hearsAndAcks('endpoints ~mortal ttl=300');
    // "To remove the TTL, the management server resends the resource with the TTL field unset."
    world.publish(endpoints('mortal', 2), endpoints('everlasting'));
    await client.hearsAndAcks('endpoints mortal@2');
    await client.isLeftInPeace();
  });

  it('DELTA-11 a client that does not declare times to live is told the resource without one, and no heartbeat', async () => {
    world.publish(endpoints('mortal', 1, { ttlMs: 60 }));
    const plain = world.connect('delta', { node: 'plain' });
    const able = world.connect('delta', { node: 'able', features: ['xds.config.supports-resource-ttl'] });
    plain.asks('endpoints', 'mortal');
    await plain.hearsAndAcks('endpoints mortal@1');
    able.asks('endpoints', 'mortal');
    await able.hearsAndAcks('endpoints mortal@1 ttl=60');
    // The other client's heartbeats are the proof that the time for one has passed.
    await able.hearsAndAcks('endpoints ~mortal ttl=60');
    await able.hearsAndAcks('endpoints ~mortal ttl=60');
    await plain.isLeftInPeace();
  });

  it('DELTA-11 by state of the world the wrapper is only for clients that can unwrap it, and whole types are told whole', async () => {
    const mortal = { ttlMs: 300 };
    world.publish(endpoints('e', 1, mortal), cluster('c', 1, mortal), cluster('d'));
    const client = world.connect('sotw', { features: ['xds.config.resource-in-sotw'] });
    client.asks('endpoints', 'e');
    await client.hearsAndAcks('endpoints e@1 ttl=300');
    await client.hearsAndAcks('endpoints ~e ttl=300');
    client.drops('endpoints', 'e');
    client.asks('cluster');
    await client.hearsAndAcks('cluster c@1 ttl=300 d@1');
    await client.hearsAndAcks('cluster c@1 ttl=300 d@1');
    const plain = world.connect('sotw', { node: 'plain' });
    plain.asks('cluster');
    await plain.hearsAndAcks('cluster c@1 d@1');
  });

  it('DELTA-12 several types share one stream, each with its own nonces and its own course', async () => {
    world.publish(cluster('a'), endpoints('a'), listener('l'), route('l', []), secret('s'));
    const client = world.connect('delta');
    client.asks('cluster');
    const clusters = await client.hears('cluster a@1');
    client.asks('endpoints', 'a');
    await client.hearsAndAcks('endpoints a@1');
    client.asks('listener');
    await client.hearsAndAcks('listener l@1');
    client.asks('route', 'l');
    await client.hearsAndAcks('route l@1');
    client.asks('secret', 's');
    await client.hearsAndAcks('secret s@1');
    world.publish(cluster('a', 2), endpoints('a', 2), listener('l'), route('l', []), secret('s'));
    await client.hearsAndAcks('endpoints a@2');
    await client.isLeftInPeace();
    client.acks(clusters);
    await client.hears('cluster a@2');
  });
});
