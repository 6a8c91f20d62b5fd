/** What the xDS server withstands, by the items of the conformance list that concern the protocol alone. */
import { expect } from 'chai';
import { waitUntil } from '../../local/wait';
import { cluster, endpoints, listener, route, secret, XdsWorld } from '../support/xds-world';

describe('xDS conformance, resilience', () => {
  let world: XdsWorld;
  beforeEach(async () => (world = await XdsWorld.start()));
  afterEach(() => world.stop());

  const shop = [cluster('a'), endpoints('a'), listener('l'), route('l', ['a'])];

  it('RES-2 a proxy that moves to another replica, or to one that was started anew, is sent nothing', async () => {
    world.publish(...shop);
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
    const replica = await XdsWorld.start();
    try {
      // Its updates have other numbers and come in another order.
      replica.publish();
      replica.publish(...[...shop].reverse());
      const after = replica.connect('delta', { brings: before.held });
      after.asks('cluster');
      after.asks('endpoints', 'a');
      after.asks('listener');
      after.asks('route', 'l');
      await after.isLeftInPeace();
      expect(after.heard).to.deep.equal({ cluster: 0, endpoints: 0, listener: 0, route: 0, secret: 0 });
      const { acked, pending } = await replica.xds.acknowledgements([{ type: 'endpoints', name: 'a' }], 1000);
      expect({ acked, pending }, 'and counts as served').to.deep.equal({ acked: ['scripted'], pending: [] });
    } finally {
      replica.stop();
    }
  });

  it('RES-4 proxies that come and go at any moment lock nothing up and leave nothing behind', async () => {
    world.publish(...shop);
    const steady = world.connect('delta', { node: 'steady' });
    steady.asks('endpoints', 'a');
    await steady.hearsAndAcks('endpoints a@1');
    for (let round = 1; round <= 60; round += 1) {
      const protocol = round % 2 ? 'delta' : 'sotw';
      const client = world.connect(protocol, { node: `fleeting-${round % 7}` });
      client.asks('cluster');
      if (round % 3) client.asks('endpoints', 'a');
      // Before any answer, with one unanswered, in the middle of a wait, and after all is said.
      if (round % 4 === 1) await client.next();
      if (round % 4 === 2) client.acks(await client.next());
      const outcome =
        round % 5 === 0 && world.publishAndWait(5000, shop[0]!, endpoints('a', round), shop[2]!, shop[3]!);
      client.leave();
      if (!outcome) continue;
      await steady.hearsAndAcks(`endpoints a@${round}`);
      const { acked, pending } = await outcome;
      expect(acked).to.include('steady');
      expect(pending).to.deep.equal([]);
    }
    await waitUntil(() => world.xds.proxies().length === 1, { withinMs: 5000, everyMs: 5, what: 'all have gone' });
    expect(world.xds.proxies()).to.deep.equal(['steady']);
    await steady.isLeftInPeace();
  });

  for (const protocol of ['delta', 'sotw'] as const) {
    it(`RES-5 what cannot be built just now is not taken from a proxy that has it (${protocol})`, async () => {
      world.publish(cluster('shop'), cluster('till'));
      const before = world.connect(protocol);
      before.asks('cluster');
      await before.hearsAndAcks('cluster shop@1 till@1');
      before.leave();
      // The control plane was killed; the new one cannot build `till`.
      const again = await XdsWorld.start();
      try {
        again.publishWithout(['till'], cluster('shop', 2));
        const after = again.connect(protocol, { brings: before.held });
        after.asks('cluster');
        if (protocol === 'delta') await after.hearsAndAcks('cluster shop@2');
        const fresh = again.connect(protocol, { node: 'fresh' });
        fresh.asks('cluster');
        await fresh.hearsAndAcks('cluster shop@2');
        again.publish(cluster('shop', 2), cluster('till'));
        if (protocol === 'sotw') await after.hearsAndAcks('cluster shop@2 till@1');
        await after.isLeftInPeace();
        expect(after.holds('cluster')).to.deep.equal({ shop: 2, till: 1 });
      } finally {
        again.stop();
      }
    });

    it(`a secret exists only for the proxies it names (${protocol})`, async () => {
      world.publish(secret('key', 1, ['owner']));
      const owner = world.connect(protocol, { node: 'owner' });
      const other = world.connect(protocol, { node: 'other' });
      for (const client of [owner, other]) client.asks('secret', 'key');
      await owner.hearsAndAcks('secret key@1');
      if (protocol === 'delta') await other.hearsAndAcks('secret -key');
      world.publish(secret('key', 2, ['owner']));
      await owner.hearsAndAcks('secret key@2');
      await other.isLeftInPeace();
      // It changes hands without changing itself.
      world.publish(secret('key', 2, ['other']));
      await other.hearsAndAcks('secret key@2');
      if (protocol === 'delta') await owner.hearsAndAcks('secret -key');
      await owner.isLeftInPeace();
    });
  }

  it('a secret that names no proxies is refused', () => {
    const { visibleTo: _, ...nobodys } = secret('key');
    expect(() => world.publish(nobodys)).to.throw('secret key names no nodes in visibleTo');
  });

  it('a stream without a node id, and a type that is not served, are refused', async () => {
    world.publish();
    const nameless = world.connect('delta', { node: '' });
    nameless.send('cluster');
    const stranger = world.connect('delta');
    stranger.send('cluster', { type_url: 'type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration' });
    expect(String(await nameless.ended))
      .to.contain('INVALID_ARGUMENT')
      .and.to.contain('no node id');
    expect(String(await stranger.ended))
      .to.contain('INVALID_ARGUMENT')
      .and.to.contain('is not served here');
  });
});
