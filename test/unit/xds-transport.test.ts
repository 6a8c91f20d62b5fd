/** How the xDS server treats connections, over real sockets: slow readers, storms, age, ends; ids as in the conformance list. */
import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import { envoyService } from '../../envoy/protos';
import type { Resource } from '../../envoy/resources/resource';
import { Arrivals } from '../../envoy/xds/arrivals';
import { grpcOptions } from '../../envoy/xds/grpc-options';
import { readRequest } from '../../envoy/xds/requests';
import { waitUntil } from '../../local/wait';
import { ok, RawStream } from '../support/raw-stream';
import { cluster, endpoints, XdsWorld } from '../support/xds-world';

const mebibyte = 1024 * 1024;

/** A cluster of a mebibyte. */
const large = (name: string, revision: number): Resource => {
  const small = cluster(name, revision);
  return { ...small, message: { ...small.message, alt_stat_name: 'x'.repeat(mebibyte) } };
};

describe('xDS transport', () => {
  let world: XdsWorld;
  const raws: RawStream[] = [];
  const open = (node: string, headers?: Record<string, string>): RawStream => {
    const raw = new RawStream(world.port, node, headers);
    raws.push(raw);
    return raw;
  };
  afterEach(() => {
    for (const raw of raws.splice(0)) raw.leave();
    world.stop();
  });

  describe('a reader that does not read', () => {
    it('RES-1 delays nobody else, and makes the server hold at most 64 KiB', async () => {
      world = await XdsWorld.start();
      world.publish(large('a', 1));
      const stalled = Array.from({ length: 20 }, (_, i) => open(`stalled-${i}`));
      for (const raw of stalled) raw.asks('cluster');
      await waitUntil(() => world.xds.mostHeldBytes > 0, { withinMs: 5000, what: 'the readers are behind' });

      const reader = world.connect('delta', { node: 'reader' });
      reader.asks('cluster');
      await reader.hears('cluster a@1');
      reader.acks();
      for (let revision = 2; revision <= 5; revision++) {
        world.publish(large('a', revision));
        await reader.hears(`cluster a@${revision}`);
        reader.acks();
        expect(world.xds.mostHeldBytes).to.be.within(1, 64 * 1024);
      }
    });

    it('RES-1 gets a response of any size whole once it reads', async () => {
      world = await XdsWorld.start();
      world.publish(large('a', 1), large('b', 1), large('c', 1));
      const raw = open('late');
      raw.asks('cluster');
      await waitUntil(() => world.xds.mostHeldBytes > 0, { withinMs: 5000, what: 'the reader is behind' });
      raw.read();
      await waitUntil(() => raw.receivedBytes > 3 * mebibyte, { withinMs: 10_000, what: 'all has come' });
      expect(world.xds.mostHeldBytes).to.equal(0);
    });

    it('RES-1 is cut off when it has left a response unanswered for too long, and is counted', async () => {
      world = await XdsWorld.start({ stalledAfterMs: 100 });
      world.publish(large('a', 1));
      const raw = open('stalled');
      raw.asks('cluster');
      expect(await raw.ended).not.to.equal(ok);
      expect(world.xds.counts.stalled).to.equal(1);
      await waitUntil(() => world.xds.proxies().length === 0, { withinMs: 5000, what: 'it is forgotten' });
    });

    it('RES-1 that reads but never answers is told why its stream ends', async () => {
      world = await XdsWorld.start({ stalledAfterMs: 100 });
      world.publish(cluster('a'));
      const raw = open('mute');
      raw.read();
      raw.asks('cluster');
      expect(await raw.ended).to.equal(String(status.DEADLINE_EXCEEDED));
      expect(world.xds.counts.stalled).to.equal(1);
    });
  });

  describe('a storm of connecting proxies', () => {
    it('RES-3 is served to the last although some of them never answer', async () => {
      world = await XdsWorld.start({ arrivals: { atOnce: 4, patienceMs: 50 } });
      world.publish(cluster('a'));
      const mute = Array.from({ length: 12 }, (_, i) => open(`mute-${i}`));
      for (const raw of mute) {
        raw.read();
        raw.asks('cluster');
      }
      const clients = Array.from({ length: 40 }, (_, i) => world.connect('delta', { node: `proxy-${i}` }));
      await Promise.all(
        clients.map(async (client) => {
          client.asks('cluster');
          await client.hears('cluster a@1');
          client.acks();
        }),
      );
      await waitUntil(() => mute.every(({ receivedBytes }) => receivedBytes > 0), {
        withinMs: 5000,
        what: 'all served',
      });
    });

    it('RES-3 has no more than the limit of streams between their coming in and their first answer', async () => {
      let inside = 0;
      let most = 0;
      const served = new Set<object>();
      world = await XdsWorld.start({
        arrivals: { atOnce: 3, patienceMs: 60_000 },
        observer: {
          connected: () => (most = Math.max(most, (inside += 1))),
          answered: (proxy, _type, { kind }) => {
            if (kind === 'ack' && !served.has(proxy)) inside -= 1;
            if (kind === 'ack') served.add(proxy);
          },
        },
      });
      world.publish(cluster('a'));
      const clients = Array.from({ length: 30 }, (_, i) => world.connect('delta', { node: `proxy-${i}` }));
      await Promise.all(
        clients.map(async (client) => {
          client.asks('cluster');
          await client.hears('cluster a@1');
          client.acks();
        }),
      );
      expect(most).to.be.within(1, 3);
    });

    it('RES-3 comes in in the order in which it came, at the rate that is set', async () => {
      world = await XdsWorld.start();
      const order: number[] = [];
      const arrivals = new Arrivals({ atOnce: 2, perSecond: 200 });
      const began = performance.now();
      const places = Array.from({ length: 12 }, (_, i) => arrivals.arrive(() => order.push(i)));
      // One that gives up while it waits loses only its own place.
      places[5]!.done();
      for (let next = 0; order.length < 11; next++) {
        await waitUntil(() => order.length > next, { withinMs: 5000, everyMs: 1, what: `${next} is in` });
        places[order[next]!]!.done();
      }
      expect(order).to.deep.equal([0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]);
      expect(performance.now() - began).to.be.at.least((10 * 1000) / 200 - 1);
      expect(arrivals.queued).to.equal(0);
    });

    it('RES-4 leaves nothing behind when its sockets break at any moment', async () => {
      world = await XdsWorld.start();
      world.publish(large('a', 1), endpoints('a'));
      for (let round = 0; round < 10; round++) {
        const some = Array.from({ length: 10 }, (_, i) => open(`churn-${round}-${i}`));
        for (const [i, raw] of some.entries()) {
          if (i % 3 > 0) raw.asks('cluster');
          if (i % 3 > 1) raw.read();
        }
        if (round % 2 === 1) await sleep(round);
        for (const raw of some) raw.leave();
      }
      const client = world.connect('delta', { node: 'steady' });
      client.asks('endpoints', 'a');
      await client.hears('endpoints a@1');
      client.acks();
      await waitUntil(() => world.xds.proxies().join() === 'steady', { withinMs: 5000, what: 'only one is there' });
      await waitUntil(() => world.xds.mostHeldBytes === 0, { withinMs: 5000, what: 'nothing is held' });
    });
  });

  describe('the end of a stream', () => {
    it('comes with the age of its connection, in peace, and is no stall', async () => {
      world = await XdsWorld.start({ stalledAfterMs: 2000 }, 0, grpcOptions({ maxConnectionAgeMs: 100 }));
      world.publish(cluster('a'));
      const client = world.connect('delta', { node: 'aged' });
      client.asks('cluster');
      await client.hears('cluster a@1');
      client.acks();
      expect(await client.ended).to.equal('ended');
      await waitUntil(() => world.xds.proxies().length === 0, { withinMs: 5000, what: 'it is forgotten' });
      expect(world.xds.counts.stalled).to.equal(0);
    });

    it('is at once when nothing has been published yet', async () => {
      world = await XdsWorld.start();
      const raw = open('early');
      raw.asks('cluster');
      expect(await raw.ended).to.equal(String(status.UNAVAILABLE));
    });

    it('comes to every stream when the server closes, though its proxy would stay', async () => {
      world = await XdsWorld.start();
      world.publish(cluster('a'));
      const raw = open('loyal');
      raw.read();
      raw.asks('cluster');
      await waitUntil(() => raw.receivedBytes > 0, { withinMs: 5000, what: 'it is served' });
      world.xds.close();
      expect(await raw.ended).to.equal(ok);
    });
  });

  describe('requests', () => {
    it('are understood in pieces, and several at a time', async () => {
      world = await XdsWorld.start();
      world.publish(cluster('a'), endpoints('a'), endpoints('b'));
      const raw = open('choppy');
      raw.read();
      const first = raw.frame({
        node: { id: 'choppy' },
        type_url: 'type.googleapis.com/envoy.config.cluster.v3.Cluster',
      });
      const type = 'type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment';
      const more = ['a', 'b'].map((name) => raw.frame({ type_url: type, resource_names_subscribe: [name] }));
      const all = Buffer.concat([first, ...more]);
      const pieces = [
        all.subarray(0, 3),
        all.subarray(3, 7),
        all.subarray(7, first.length + 2),
        all.subarray(first.length + 2),
      ];
      for (const piece of pieces) await new Promise((resolve) => raw.stream.write(piece, resolve));
      await waitUntil(() => world.xds.counts.responses >= 2, { withinMs: 5000, what: 'both types are answered' });
      expect(world.xds.proxies()).to.deep.equal(['choppy']);
    });

    for (const [what, bytes, code] of [
      ['garbage', Buffer.from([0, 0, 0, 0, 3, 0xff, 0xff, 0xff]), status.INVALID_ARGUMENT],
      ['compressed ones', Buffer.from([1, 0, 0, 0, 1, 0]), status.UNIMPLEMENTED],
      ['larger ones than are taken', Buffer.from([0, 0x7f, 0, 0, 0, 0]), status.RESOURCE_EXHAUSTED],
    ] as const) {
      it(`that are ${what} end the stream with ${status[code]}`, async () => {
        world = await XdsWorld.start();
        world.publish(cluster('a'));
        const raw = open('odd');
        raw.read();
        raw.stream.write(bytes);
        expect(await raw.ended).to.equal(String(code));
      });
    }

    it('read by hand say what they say by the definition of the protocol', async () => {
      world = await XdsWorld.start();
      const ads = envoyService('envoy.service.discovery.v3.AggregatedDiscoveryService');
      const error = { code: 3, message: 'bad cluster a' };
      const node = { id: 'n', cluster: 'c', client_features: ['f', 'g'], user_agent_name: 'envoy' };
      const rest = { type_url: 't', response_nonce: 'ñ' };
      const delta = {
        ...rest,
        resource_names_subscribe: ['a', 'b'],
        resource_names_unsubscribe: ['c'],
        initial_resource_versions: { a: '1', __proto__x: '2' },
        error_detail: error,
      };
      const known = { locality: { zone: 'z' }, metadata: { fields: {} } };
      const written = ads.DeltaAggregatedResources!.requestSerialize({ ...delta, node: { ...node, ...known } });
      expect(structuredClone(readRequest('delta', written))).to.deep.equal({ ...delta, node });
      const sotw = { ...rest, version_info: '7', resource_names: ['a', 'b'], error_detail: error, node };
      const other = ads.StreamAggregatedResources!.requestSerialize(sotw);
      expect(readRequest('sotw', other)).to.deep.equal(sotw);
    });
  });
});
