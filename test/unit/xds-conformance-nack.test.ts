/** What a refusal means, by the items of the conformance list, in both protocols. */
import { expect } from 'chai';
import { pino } from 'pino';
import { cluster, endpoints, keyOf, listener, route, XdsWorld } from '../support/xds-world';

describe('xDS conformance, refusals', () => {
  let world: XdsWorld;
  const log: { msg: string; node?: string; resource?: string; error?: string }[] = [];
  beforeEach(async () => {
    log.length = 0;
    const lines = { write: (line: string) => void log.push(JSON.parse(line) as (typeof log)[number]) };
    world = await XdsWorld.start({ log: pino({ level: 'warn' }, lines) });
  });
  afterEach(() => world.stop());

  for (const protocol of ['delta', 'sotw'] as const) {
    const only = (full: string, changed: string): string => (protocol === 'sotw' ? full : changed);

    it(`NACK-1 error_detail alone marks a refusal, whatever version the request carries (${protocol})`, async () => {
      world.publish(cluster('a'));
      const client = world.connect(protocol);
      client.asks('cluster');
      const { nonce, version } = await client.hears('cluster a@1');
      client.send('cluster', { response_nonce: nonce, version_info: version, error_detail: { message: 'no' } });
      await client.isLeftInPeace();
      expect(world.xds.counts.nacks).to.equal(1);
      const { nacked } = await world.xds.acknowledgements([keyOf(cluster('a'))], 1000);
      expect(nacked).to.deep.equal([{ node: 'scripted', type: 'cluster', resource: 'a', error: 'no' }]);
    });

    it(`NACK-1 an empty error_detail is a refusal too (${protocol})`, async () => {
      world.publish(endpoints('a'));
      const client = world.connect(protocol);
      client.asks('endpoints', 'a');
      await client.hears('endpoints a@1');
      client.nacks('');
      await client.isLeftInPeace();
      expect(world.xds.counts.nacks).to.equal(1);
    });

    it(`NACK-2 a refused version is never sent to that stream again, whatever else happens (${protocol})`, async () => {
      world.publish(cluster('good'), cluster('bad'));
      const client = world.connect(protocol);
      client.asks('cluster');
      await client.hearsAndAcks('cluster bad@1 good@1');
      world.publish(cluster('good'), cluster('bad', 2));
      await client.hears(only('cluster bad@2 good@1', 'cluster bad@2'));
      client.nacks('Error adding/updating cluster(s) bad: it is');
      await client.isLeftInPeace();
      // Published back to what the client holds, published again as refused, and together with another change.
      world.publish(cluster('good'), cluster('bad'));
      world.publish(cluster('good'), cluster('bad', 2));
      await client.isLeftInPeace();
      world.publish(cluster('good', 2), cluster('bad', 2));
      await client.hearsAndAcks(only('cluster bad@1 good@2', 'cluster good@2'));
      await client.isLeftInPeace();
    });

    it(`NACK-2 asking anew for what was refused brings what was good before (${protocol})`, async () => {
      world.publish(endpoints('a'));
      const client = world.connect(protocol);
      client.asks('endpoints', 'a');
      await client.hearsAndAcks('endpoints a@1');
      world.publish(endpoints('a', 2));
      await client.hears('endpoints a@2');
      client.nacks('no');
      if (protocol === 'delta') {
        client.send('endpoints', { resource_names_subscribe: ['a'] });
        await client.hearsAndAcks('endpoints a@1');
      }
      client.drops('endpoints', 'a');
      client.asks('endpoints', 'a');
      await client.isLeftInPeace();
      world.publish(endpoints('a', 3));
      await client.hearsAndAcks('endpoints a@3');
    });

    it(`NACK-3 the last good version is held, and the next different one is sent (${protocol})`, async () => {
      world.publish(cluster('a'), cluster('b'));
      const client = world.connect(protocol);
      client.asks('cluster');
      await client.hearsAndAcks('cluster a@1 b@1');
      world.publish(cluster('a'), cluster('b', 2));
      await client.hears(only('cluster a@1 b@2', 'cluster b@2'));
      client.nacks('cluster b: no');
      await client.isLeftInPeace();
      expect(client.holds('cluster')).to.deep.equal({ a: 1, b: 1 });
      world.publish(cluster('a'), cluster('b', 3));
      await client.hearsAndAcks(only('cluster a@1 b@3', 'cluster b@3'));
      await client.isLeftInPeace();
    });

    it(`NACK-3 what was only refused together with the culprit is sent again without it (${protocol})`, async () => {
      world.publish(cluster('bad'), cluster('good'), cluster('old'));
      const client = world.connect(protocol);
      client.asks('cluster');
      await client.hears('cluster bad@1 good@1 old@1');
      client.nacks('Error adding/updating cluster(s) bad: it is');
      await client.hearsAndAcks('cluster good@1 old@1');
      world.publish(cluster('bad', 2), cluster('good', 2));
      await client.hears(only('cluster bad@2 good@2', 'cluster bad@2 good@2 -old'));
      client.nacks('Error adding/updating cluster(s) bad: still is');
      await client.hearsAndAcks(only('cluster good@2', 'cluster good@2 -old'));
      await client.isLeftInPeace();
      expect(client.holds('cluster')).to.deep.equal({ good: 2 });
    });

    it(`NACK-3 a refusal that names nobody holds back all that was new (${protocol})`, async () => {
      world.publish(endpoints('a'), endpoints('b'));
      const client = world.connect(protocol);
      client.asks('endpoints', 'a', 'b');
      await client.hears('endpoints a@1 b@1');
      client.nacks('malformed IP address');
      await client.isLeftInPeace();
      world.publish(endpoints('a', 2), endpoints('b'));
      await client.hearsAndAcks('endpoints a@2');
      await client.isLeftInPeace();
    });

    it(`NACK-4 a proxy that comes back after a refusal is not sent the refused version: no loop (${protocol})`, async () => {
      world.publish(cluster('a'), cluster('b'), listener('l'));
      let client = world.connect(protocol);
      client.asks('cluster');
      await client.hearsAndAcks('cluster a@1 b@1');
      world.publish(cluster('a'), cluster('b', 2), listener('l'));
      await client.hears(only('cluster a@1 b@2', 'cluster b@2'));
      client.nacks('cluster b: no');
      await client.isLeftInPeace();
      for (let round = 0; round < 3; round += 1) {
        client.leave();
        client = world.connect(protocol, { brings: client.held });
        client.asks('cluster');
        if (protocol === 'sotw') await client.hearsAndAcks('cluster a@1 b@1');
        await client.isLeftInPeace();
      }
      expect(world.xds.counts.nacks).to.equal(1);
      const { nacked } = await world.xds.acknowledgements([keyOf(cluster('b'))], 1000);
      expect(nacked.map(({ resource, error }) => `${resource}: ${error}`)).to.deep.equal(['b: cluster b: no']);
      world.publish(cluster('a'), cluster('b', 3), listener('l'));
      await client.hearsAndAcks(only('cluster a@1 b@3', 'cluster b@3'));
    });

    it(`NACK-4 a proxy that starts anew under the same name is offered the version again, once (${protocol})`, async () => {
      world.publish(cluster('a'));
      const before = world.connect(protocol);
      before.asks('cluster');
      await before.hears('cluster a@1');
      before.nacks('no');
      await before.isLeftInPeace();
      before.leave();
      const restarted = world.connect(protocol);
      restarted.asks('cluster');
      await restarted.hears('cluster a@1');
      restarted.nacks('no');
      await restarted.isLeftInPeace();
    });

    it(`NACK-5 a refusal ends the wait at once; outcome and log name proxy, resource and reason (${protocol})`, async () => {
      const old = [cluster('a'), endpoints('a'), listener('l'), route('l', ['a'])];
      world.publish(...old);
      const clients = ['takes', 'refuses'].map((node) => world.connect(protocol, { node }));
      for (const client of clients) {
        client.asks('endpoints', 'a');
        await client.hearsAndAcks('endpoints a@1');
      }
      const outcome = world.publishAndWait(60_000, old[0]!, endpoints('a', 2), old[2]!, old[3]!);
      const [takes, refuses] = clients;
      await takes!.hearsAndAcks('endpoints a@2');
      await refuses!.hears('endpoints a@2');
      refuses!.nacks('endpoints a: no such place');
      const { acked, nacked, pending, gone } = await outcome;
      expect({ acked, pending, gone }).to.deep.equal({ acked: ['takes'], pending: [], gone: [] });
      const error = 'endpoints a: no such place';
      expect(nacked).to.deep.equal([{ node: 'refuses', type: 'endpoints', resource: 'a', error }]);
      const [line] = log.filter(({ msg }) => msg.includes('refuses endpoints a'));
      expect(line).to.include({ node: 'refuses', resource: 'a', error });
      // Rolled back, the one that refused has it already.
      const back = world.publishAndWait(60_000, ...old);
      await takes!.hearsAndAcks('endpoints a@1');
      expect((await back).acked.sort()).to.deep.equal(['refuses', 'takes']);
      await refuses!.isLeftInPeace();
    });
  }
});
