/** State-of-the-world xDS, by the items of the conformance list: each exchange to the letter, and nothing beyond it. */
import { cluster, endpoints, listener, route, secret, XdsWorld } from '../support/xds-world';
import { expect } from 'chai';

describe('xDS conformance, state of the world', () => {
  let world: XdsWorld;
  beforeEach(async () => (world = await XdsWorld.start()));
  afterEach(() => world.stop());

  it('SOTW-1 an empty first request for clusters or listeners is answered with all of them in one response', async () => {
    world.publish(cluster('a'), cluster('b'), listener('l'));
    const client = world.connect('sotw');
    client.asks('cluster');
    await client.hearsAndAcks('cluster a@1 b@1');
    client.asks('listener');
    await client.hearsAndAcks('listener l@1');
    await client.isLeftInPeace();
  });

  it('SOTW-1 an empty first request is answered even when there is nothing: the proxy waits for that at its start', async () => {
    world.publish();
    const client = world.connect('sotw');
    client.asks('cluster');
    await client.hearsAndAcks('cluster');
    await client.isLeftInPeace();
  });

  it('SOTW-1 an empty first request for endpoints, routes or secrets asks for nothing', async () => {
    world.publish(endpoints('a'), route('r', []), secret('s'));
    const client = world.connect('sotw');
    client.asks('endpoints');
    client.asks('route');
    client.asks('secret');
    await client.isLeftInPeace();
  });

  it('SOTW-2 a change under a wildcard is told as the full state, in which what is absent is deleted', async () => {
    world.publish(cluster('a'), cluster('b'), cluster('c'));
    const client = world.connect('sotw');
    client.asks('cluster');
    await client.hearsAndAcks('cluster a@1 b@1 c@1');
    world.publish(cluster('a', 2), cluster('b'));
    await client.hearsAndAcks('cluster a@2 b@1');
    world.publish();
    await client.hearsAndAcks('cluster');
    await client.isLeftInPeace();
  });

  it('SOTW-3 a named subset is all that is sent, whole when one of it changes, and nothing when others change', async () => {
    world.publish(cluster('a'), cluster('b'), cluster('c'));
    const client = world.connect('sotw');
    client.asks('cluster', 'a', 'b');
    await client.hearsAndAcks('cluster a@1 b@1');
    world.publish(cluster('a'), cluster('b', 2), cluster('c', 2));
    await client.hearsAndAcks('cluster a@1 b@2');
    world.publish(cluster('a'), cluster('b', 2), cluster('c', 3));
    await client.isLeftInPeace();
    world.publish(cluster('a'), cluster('c', 3));
    await client.hearsAndAcks('cluster a@1');
    await client.isLeftInPeace();
  });

  it('SOTW-4 a change of endpoints or routes sends only what changed, and absence deletes nothing', async () => {
    world.publish(endpoints('a'), endpoints('b'), route('r', []), route('s', []));
    const client = world.connect('sotw');
    client.asks('endpoints', 'a', 'b');
    await client.hearsAndAcks('endpoints a@1 b@1');
    client.asks('route', 'r', 's');
    await client.hearsAndAcks('route r@1 s@1');
    world.publish(endpoints('a', 2), endpoints('b'), route('r', []), route('s', [], 2));
    await client.hearsAndAcks('endpoints a@2');
    await client.hearsAndAcks('route s@2');
    world.publish(endpoints('a', 2), route('s', [], 2));
    await client.isLeftInPeace();
    expect(client.holds('endpoints')).to.deep.equal({ a: 2, b: 1 });
  });

  for (const [type, build] of [
    ['cluster', cluster],
    ['endpoints', endpoints],
  ] as const) {
    it(`SOTW-5 an unknown name is met with silence, and answered when it is created (${type})`, async () => {
      world.publish(build('other'));
      const client = world.connect('sotw');
      client.asks(type, 'late');
      await client.isLeftInPeace();
      world.publish(build('other'), build('late'));
      await client.hearsAndAcks(`${type} late@1`);
      await client.isLeftInPeace();
    });
  }

  it('SOTW-6 an added name is answered although nothing has changed', async () => {
    world.publish(endpoints('a'), endpoints('b'), cluster('a'), cluster('b'));
    const client = world.connect('sotw');
    client.asks('endpoints', 'a');
    await client.hearsAndAcks('endpoints a@1');
    client.asks('endpoints', 'b');
    await client.hearsAndAcks('endpoints b@1');
    client.asks('cluster', 'a');
    await client.hearsAndAcks('cluster a@1');
    client.asks('cluster', 'b');
    await client.hearsAndAcks('cluster a@1 b@1');
    await client.isLeftInPeace();
  });

  it('SOTW-6 a name added in the acknowledgement itself is answered', async () => {
    world.publish(endpoints('a'), endpoints('b'));
    const client = world.connect('sotw');
    client.asks('endpoints', 'a');
    const { nonce, version } = await client.hears('endpoints a@1');
    client.send('endpoints', { resource_names: ['a', 'b'], response_nonce: nonce, version_info: version });
    await client.hearsAndAcks('endpoints b@1');
    await client.isLeftInPeace();
  });

  it('SOTW-7 a dropped name is sent no more', async () => {
    world.publish(endpoints('a'), endpoints('b'));
    const client = world.connect('sotw');
    client.asks('endpoints', 'a', 'b');
    await client.hearsAndAcks('endpoints a@1 b@1');
    client.drops('endpoints', 'a');
    await client.isLeftInPeace();
    world.publish(endpoints('a', 2), endpoints('b'));
    await client.isLeftInPeace();
    world.publish(endpoints('a', 2), endpoints('b', 2));
    await client.hearsAndAcks('endpoints b@2');
    await client.isLeftInPeace();
  });

  for (const [type, build] of [
    ['cluster', cluster],
    ['listener', listener],
    ['endpoints', endpoints],
  ] as const) {
    it(`SOTW-7 all names dropped is silence, not a wildcard (${type})`, async () => {
      world.publish(build('a'), build('b'));
      const client = world.connect('sotw');
      client.asks(type, 'a');
      await client.hearsAndAcks(`${type} a@1`);
      client.drops(type, 'a');
      await client.isLeftInPeace();
      world.publish(build('a', 2), build('b', 2));
      await client.isLeftInPeace();
    });
  }

  it('SOTW-8 a name that is subscribed anew is sent anew', async () => {
    world.publish(endpoints('a'), endpoints('b'));
    const client = world.connect('sotw');
    client.asks('endpoints', 'a', 'b');
    await client.hearsAndAcks('endpoints a@1 b@1');
    client.drops('endpoints', 'a');
    await client.isLeftInPeace();
    client.asks('endpoints', 'a');
    await client.hearsAndAcks('endpoints a@1');
    await client.isLeftInPeace();
  });

  it('SOTW-9 newly requested names are sent although they were sent before, as part of a wildcard', async () => {
    world.publish(cluster('a'), cluster('b'));
    const client = world.connect('sotw');
    client.asks('cluster');
    await client.hearsAndAcks('cluster a@1 b@1');
    client.asks('cluster', 'b');
    await client.hearsAndAcks('cluster b@1');
    await client.isLeftInPeace();
  });

  it('SOTW-10 a request with a stale nonce is ignored and counted', async () => {
    world.publish(endpoints('a'), endpoints('b'));
    const client = world.connect('sotw');
    client.asks('endpoints', 'a');
    const first = await client.hearsAndAcks('endpoints a@1');
    world.publish(endpoints('a', 2), endpoints('b'));
    const second = await client.hears('endpoints a@2');
    client.send('endpoints', { resource_names: ['a', 'b'], response_nonce: first.nonce, version_info: first.version });
    await client.isLeftInPeace();
    expect(world.xds.counts.stale).to.equal(1);
    // The response under way is still open: its own answer counts.
    client.acks(second);
    world.publish(endpoints('a', 3), endpoints('b'));
    await client.hearsAndAcks('endpoints a@3');
    await client.isLeftInPeace();
  });

  it('SOTW-11 after a reconnect, without a nonce, all that is asked for is answered at the version held', async () => {
    world.publish(cluster('a'), endpoints('a'));
    const before = world.connect('sotw');
    before.asks('cluster');
    await before.hearsAndAcks('cluster a@1');
    before.asks('endpoints', 'a');
    const told = await before.hearsAndAcks('endpoints a@1');
    before.leave();
    const after = world.connect('sotw', { brings: before.held });
    after.asks('cluster');
    await after.hearsAndAcks('cluster a@1');
    after.asks('endpoints', 'a');
    expect((await after.hearsAndAcks('endpoints a@1')).version).to.equal(told.version);
    await after.isLeftInPeace();
  });

  it('SOTW-12 a plain acknowledgement triggers nothing', async () => {
    world.publish(cluster('a'), endpoints('a'), listener('l'), route('l', ['a']));
    const client = world.connect('sotw');
    client.asks('cluster');
    await client.hearsAndAcks('cluster a@1');
    client.asks('endpoints', 'a');
    const answer = await client.hearsAndAcks('endpoints a@1');
    await client.isLeftInPeace();
    client.acks(answer);
    await client.isLeftInPeace();
  });

  it('SOTW-13 `*` is everything, alone and beside names', async () => {
    world.publish(cluster('a'), cluster('b'));
    const client = world.connect('sotw');
    client.asks('cluster', '*', 'a');
    await client.hearsAndAcks('cluster a@1 b@1');
    client.drops('cluster', 'a');
    await client.isLeftInPeace();
    world.publish(cluster('a'), cluster('b'), cluster('c'));
    await client.hearsAndAcks('cluster a@1 b@1 c@1');
    client.drops('cluster', '*');
    await client.isLeftInPeace();
    world.publish(cluster('a', 2));
    await client.isLeftInPeace();
  });

  it('SOTW-13 the wildcard of an empty request ends with the first name, and does not come back', async () => {
    world.publish(cluster('a'), cluster('b'));
    const client = world.connect('sotw');
    client.asks('cluster');
    await client.hearsAndAcks('cluster a@1 b@1');
    client.asks('cluster', 'a');
    await client.hearsAndAcks('cluster a@1');
    client.drops('cluster', 'a');
    await client.isLeftInPeace();
    world.publish(cluster('a', 2), cluster('b', 2));
    await client.isLeftInPeace();
  });

  it('SOTW-13 `*` in place of the wildcard of an empty request changes nothing', async () => {
    world.publish(cluster('a'));
    const client = world.connect('sotw');
    client.asks('cluster');
    await client.hearsAndAcks('cluster a@1');
    client.asks('cluster', '*');
    await client.isLeftInPeace();
    world.publish(cluster('a', 2));
    await client.hearsAndAcks('cluster a@2');
  });

  it('SOTW-14 each response has its own nonce, and each type its own course', async () => {
    world.publish(cluster('a'), endpoints('a'));
    const client = world.connect('sotw');
    client.asks('cluster');
    const clusters = await client.hears('cluster a@1');
    // Clusters are left unanswered: endpoints take their course.
    client.asks('endpoints', 'a');
    const first = await client.hearsAndAcks('endpoints a@1');
    world.publish(cluster('a', 2), endpoints('a', 2));
    const second = await client.hearsAndAcks('endpoints a@2');
    expect(second.nonce).not.to.equal(first.nonce);
    await client.isLeftInPeace();
    client.acks(clusters);
    expect((await client.hears('cluster a@2')).nonce).not.to.equal(clusters.nonce);
  });

  it('SOTW-14 a name given twice is answered once', async () => {
    world.publish(endpoints('a'));
    const client = world.connect('sotw');
    client.send('endpoints', { resource_names: ['a', 'a'] });
    await client.hearsAndAcks('endpoints a@1');
    await client.isLeftInPeace();
  });

  it('SOTW-14 of requests that come before an answer only the latest counts', async () => {
    world.publish(endpoints('a'), endpoints('b'), endpoints('c'));
    const client = world.connect('sotw');
    for (const name of ['a', 'b', 'c']) client.send('endpoints', { resource_names: [name] });
    // How many are read before the first answer is a matter of time; what is asked for in the end is not.
    let answer = await client.next();
    const seen = [answer.items[0]!.name];
    while (!seen.includes('c')) {
      client.send('endpoints', { resource_names: ['c'], response_nonce: answer.nonce, version_info: answer.version });
      answer = await client.next();
      seen.push(...answer.items.map(({ name }) => name));
    }
    client.send('endpoints', { resource_names: ['c'], response_nonce: answer.nonce, version_info: answer.version });
    await client.isLeftInPeace();
    world.publish(endpoints('a', 2), endpoints('b', 2), endpoints('c', 2));
    await client.hears('endpoints c@2');
  });

  it('SOTW-15 the node counts in the first request only; a later, different one is ignored', async () => {
    world.publish(endpoints('a'));
    const client = world.connect('sotw', { node: 'first' });
    client.asks('endpoints', 'a');
    await client.hearsAndAcks('endpoints a@1');
    client.send('cluster', { node: { id: 'second' } });
    await client.hearsAndAcks('cluster');
    expect(world.xds.proxies()).to.deep.equal(['first']);
  });

  it('SOTW-16 one unknown name does not keep the others from being answered', async () => {
    world.publish(endpoints('a'), endpoints('b'), cluster('a'), cluster('b'));
    const client = world.connect('sotw');
    client.asks('endpoints', 'a', 'nowhere', 'b');
    await client.hearsAndAcks('endpoints a@1 b@1');
    client.asks('cluster', 'a', 'nowhere', 'b');
    await client.hearsAndAcks('cluster a@1 b@1');
    await client.isLeftInPeace();
    world.publish(endpoints('a'), endpoints('b'), endpoints('nowhere'), cluster('a'), cluster('b'), cluster('nowhere'));
    await client.hearsAndAcks('cluster a@1 b@1 nowhere@1');
    await client.hearsAndAcks('endpoints nowhere@1');
    await client.isLeftInPeace();
  });
});
