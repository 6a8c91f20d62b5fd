/** The xDS protocol against a scripted client on a real server; titles begin with the id in the conformance checklist. */
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { expect } from 'chai';
import { pino } from 'pino';
import { duration } from '../../envoy/protos';
import type { Resource, ResourceKey, ResourceType } from '../../envoy/resources/resource';
import type { Protocol } from '../../envoy/xds/stream';
import { waitUntil } from '../../local/wait';
import { XdsServer } from '../../envoy/xds/server';
import { XdsClient, type Answer } from '../support/xds-client';

/** Small resources whose `revision` makes one version differ from another. */
const cluster = (name: string, revision = 1): Resource => ({
  type: 'cluster',
  name,
  references: [{ type: 'endpoints', name }],
  message: { name, type: 'EDS', eds_cluster_config: { service_name: name }, connect_timeout: duration(revision) },
});
const endpoints = (name: string, revision = 1): Resource => ({
  type: 'endpoints',
  name,
  references: [],
  message: { cluster_name: name, policy: { overprovisioning_factor: { value: 100 + revision } } },
});
const listener = (name: string, revision = 1): Resource => ({
  type: 'listener',
  name,
  references: [{ type: 'route', name }],
  message: { name, per_connection_buffer_limit_bytes: { value: revision } },
});
const route = (name: string, clusters: string[], revision = 1): Resource => ({
  type: 'route',
  name,
  references: clusters.map((c) => ({ type: 'cluster', name: c })),
  message: { name, max_direct_response_body_size_bytes: { value: revision } },
});
const keyOf = ({ type, name }: Resource): ResourceKey => ({ type, name });

describe('xDS server', () => {
  let server: Server;
  let xds: XdsServer;
  let port: number;
  const clients: XdsClient[] = [];

  beforeEach(async () => {
    xds = new XdsServer({ log: pino({ level: 'silent' }) });
    server = new Server();
    xds.addTo(server);
    port = await new Promise((resolve, reject) =>
      server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
        error ? reject(error) : resolve(bound),
      ),
    );
  });
  afterEach(() => {
    for (const client of clients.splice(0)) client.close();
    xds.close();
    server.forceShutdown();
  });

  const connect = (protocol: Protocol, node?: string): XdsClient => {
    const client = new XdsClient(port, protocol, node);
    clients.push(client);
    return client;
  };
  /** A round trip of another kind proves that nothing else was on its way: the stream is in order. */
  const expectSilence = async (client: XdsClient, probe: ResourceType = 'listener'): Promise<void> => {
    const name = `probe-${Math.floor(performance.now() * 1000)}`;
    const before = client.answers.length;
    const isDelta = client.protocol === 'delta';
    client.send(probe, isDelta ? { resource_names_subscribe: [name] } : { resource_names: ['*'] });
    const answer = await client.take(probe);
    client.ack(answer, isDelta ? { resource_names_unsubscribe: [name] } : {});
    expect(client.answers.slice(before).map((a) => a.type)).to.deep.equal([]);
  };
  const versions = (answer: Answer): string[] => answer.names.map((name) => answer.resources.get(name)!.version);

  describe('state of the world', () => {
    it('SOTW-1 answers an empty first request for clusters or listeners with all of them at once', async () => {
      xds.publish([cluster('a'), cluster('b'), listener('l')]);
      const client = connect('sotw');
      client.send('cluster');
      client.send('listener');
      expect((await client.accept('cluster')).names).to.deep.equal(['a', 'b']);
      expect((await client.accept('listener')).names).to.deep.equal(['l']);
    });

    it('SOTW-3 sends only the named subset, and the whole subset when one of it changes', async () => {
      xds.publish([cluster('a'), cluster('b'), cluster('c')]);
      const client = connect('sotw');
      const names = { resource_names: ['a', 'b'] };
      client.send('cluster', names);
      expect((await client.accept('cluster', names)).names).to.deep.equal(['a', 'b']);
      xds.publish([cluster('a'), cluster('b', 2), cluster('c', 2)]);
      expect((await client.accept('cluster', names)).names).to.deep.equal(['a', 'b']);
      xds.publish([cluster('a'), cluster('b', 2), cluster('c', 3)]);
      await expectSilence(client);
    });

    it('SOTW-4 sends only the changed endpoints, and nothing for those that are gone', async () => {
      xds.publish([endpoints('a'), endpoints('b')]);
      const client = connect('sotw');
      const names = { resource_names: ['a', 'b'] };
      client.send('endpoints', names);
      expect((await client.accept('endpoints', names)).names).to.deep.equal(['a', 'b']);
      xds.publish([endpoints('a', 2), endpoints('b')]);
      expect((await client.accept('endpoints', names)).names).to.deep.equal(['a']);
      xds.publish([endpoints('a', 2)]);
      await expectSilence(client);
    });

    it('SOTW-5 is silent about an unknown name and answers when it is created', async () => {
      xds.publish([]);
      const client = connect('sotw');
      client.send('endpoints', { resource_names: ['a'] });
      await expectSilence(client);
      xds.publish([endpoints('a')]);
      expect((await client.take('endpoints')).names).to.deep.equal(['a']);
    });

    it('SOTW-10 ignores a request with a stale nonce and counts it', async () => {
      xds.publish([endpoints('a'), endpoints('b')]);
      const client = connect('sotw');
      client.send('endpoints', { resource_names: ['a'] });
      const first = await client.take('endpoints');
      client.ack(first, { resource_names: ['a'] });
      xds.publish([endpoints('a', 2), endpoints('b')]);
      await client.take('endpoints');
      client.ack(first, { resource_names: ['a', 'b'] });
      await expectSilence(client);
      expect(xds.counts.stale).to.equal(1);
    });

    it('SOTW-12 answers a plain acknowledgement with nothing', async () => {
      xds.publish([cluster('a'), endpoints('a')]);
      const client = connect('sotw');
      client.send('cluster');
      await client.accept('cluster');
      client.send('endpoints', { resource_names: ['a'] });
      await client.accept('endpoints', { resource_names: ['a'] });
      await expectSilence(client);
      expect(xds.counts.acks).to.be.at.least(2);
    });

    it('SOTW-13 takes * as everything, and ends the wildcard of an empty request with the first name', async () => {
      xds.publish([cluster('a'), cluster('b')]);
      const explicit = connect('sotw', 'explicit');
      explicit.send('cluster', { resource_names: ['*'] });
      expect((await explicit.accept('cluster', { resource_names: ['*'] })).names).to.deep.equal(['a', 'b']);

      const legacy = connect('sotw', 'legacy');
      legacy.send('cluster');
      const all = await legacy.take('cluster');
      legacy.ack(all, { resource_names: ['a'] });
      expect((await legacy.accept('cluster', { resource_names: ['a'] })).names).to.deep.equal(['a']);
      legacy.send('cluster', { resource_names: [], response_nonce: '2' });
      xds.publish([cluster('a', 2), cluster('b', 2)]);
      await expectSilence(legacy);
      expect((await explicit.take('cluster')).names).to.deep.equal(['a', 'b']);
    });
  });

  describe('delta', () => {
    it('DELTA-1 sends only what changed, each resource under its own version', async () => {
      xds.publish([cluster('a'), cluster('b')]);
      const client = connect('delta');
      client.send('cluster');
      const first = await client.accept('cluster');
      expect(first.names).to.deep.equal(['a', 'b']);
      expect(new Set(versions(first)).size).to.equal(2);
      xds.publish([cluster('a'), cluster('b', 2)]);
      const second = await client.accept('cluster');
      expect(second.names).to.deep.equal(['b']);
      expect(versions(second)[0]).not.to.equal(first.resources.get('b')!.version);
      await expectSilence(client);
    });

    it('DELTA-2 says that an unknown name does not exist, keeps it, and sends it when it is created', async () => {
      xds.publish([]);
      const client = connect('delta');
      client.send('endpoints', { resource_names_subscribe: ['a'] });
      expect((await client.accept('endpoints')).removed).to.deep.equal(['a']);
      xds.publish([endpoints('a')]);
      expect((await client.accept('endpoints')).names).to.deep.equal(['a']);
    });

    it('DELTA-3 names what was deleted', async () => {
      xds.publish([cluster('a'), cluster('b')]);
      const client = connect('delta');
      client.send('cluster');
      await client.accept('cluster');
      xds.publish([cluster('a')]);
      const answer = await client.accept('cluster');
      expect(answer.removed).to.deep.equal(['b']);
      expect(answer.names).to.deep.equal([]);
      await expectSilence(client);
    });

    it('DELTA-4 sends nothing more of a name that was unsubscribed', async () => {
      xds.publish([endpoints('a'), endpoints('b')]);
      const client = connect('delta');
      client.send('endpoints', { resource_names_subscribe: ['a', 'b'] });
      await client.accept('endpoints', { resource_names_unsubscribe: ['a'] });
      await expectSilence(client);
      xds.publish([endpoints('a', 2), endpoints('b', 2)]);
      expect((await client.take('endpoints')).names).to.deep.equal(['b']);
    });

    it('DELTA-5 applies the subscriptions of a request whose nonce is stale', async () => {
      xds.publish([endpoints('a'), endpoints('b')]);
      const client = connect('delta');
      client.send('endpoints', { resource_names_subscribe: ['a'] });
      const first = await client.accept('endpoints');
      client.ack(first, { resource_names_subscribe: ['b'] });
      expect((await client.take('endpoints')).names).to.deep.equal(['b']);
      expect(xds.counts.stale).to.equal(1);
    });

    it('DELTA-6 sends a known name again when it is subscribed again', async () => {
      xds.publish([endpoints('a'), endpoints('b')]);
      const client = connect('delta');
      client.send('endpoints', { resource_names_subscribe: ['a', 'b'] });
      await client.accept('endpoints');
      client.send('endpoints', { resource_names_subscribe: ['a'] });
      expect((await client.take('endpoints')).names).to.deep.equal(['a']);
    });

    it('DELTA-7 sends after a reconnect only what changed meanwhile, and what was deleted', async () => {
      xds.publish([endpoints('same'), endpoints('changed'), endpoints('gone')]);
      const before = connect('delta');
      before.send('endpoints', { resource_names_subscribe: ['same', 'changed', 'gone'] });
      const held = await before.accept('endpoints');
      before.close();
      xds.publish([endpoints('same'), endpoints('changed', 2)]);
      const after = connect('delta');
      after.send('endpoints', {
        resource_names_subscribe: ['same', 'changed', 'gone'],
        initial_resource_versions: Object.fromEntries(held.names.map((n) => [n, held.resources.get(n)!.version])),
      });
      const answer = await after.accept('endpoints');
      expect(answer.names).to.deep.equal(['changed']);
      expect(answer.removed).to.deep.equal(['gone']);
      await expectSilence(after);
    });

    it('DELTA-7 sends nothing at all after a reconnect when nothing changed', async () => {
      xds.publish([cluster('a'), cluster('b')]);
      const before = connect('delta');
      before.send('cluster');
      const held = await before.accept('cluster');
      const after = connect('delta', 'again');
      after.send('cluster', {
        initial_resource_versions: Object.fromEntries(held.names.map((n) => [n, held.resources.get(n)!.version])),
      });
      await expectSilence(after);
    });

    it('DELTA-9 answers many requests of one name each together', async () => {
      const names = ['a', 'b', 'c', 'd', 'e'];
      xds.publish(names.map((name) => endpoints(name)));
      const client = connect('delta');
      for (const name of names) client.send('endpoints', { resource_names_subscribe: [name] });
      const seen: string[] = [];
      while (seen.length < names.length) seen.push(...(await client.accept('endpoints')).names);
      expect(seen.sort()).to.deep.equal(names);
      expect(xds.counts.responses).to.be.below(names.length);
    });
  });

  describe('refusal', () => {
    it('NACK-1 takes error_detail as a refusal whatever version the request carries', async () => {
      xds.publish([cluster('a')]);
      const client = connect('sotw');
      client.send('cluster');
      const answer = await client.take('cluster');
      client.nack(answer, 'cluster a: no', { version_info: answer.version });
      const outcome = await xds.acknowledgements([keyOf(cluster('a'))], 2000);
      expect(outcome.nacked.map(({ node, resource }) => `${node} ${resource}`)).to.deep.equal(['scripted a']);
    });

    for (const protocol of ['delta', 'sotw'] as const) {
      it(`NACK-2, NACK-3 never sends a refused version again and sends the next one (${protocol})`, async () => {
        xds.publish([cluster('good'), cluster('bad')]);
        const client = connect(protocol);
        client.send('cluster');
        await client.accept('cluster');
        xds.publish([cluster('good'), cluster('bad', 2)]);
        client.nack(await client.take('cluster'), 'Error adding/updating cluster(s) bad: cannot be');
        await expectSilence(client);
        // Published back to what the client holds: it has that. Published again as refused: it does not want that.
        xds.publish([cluster('good'), cluster('bad')]);
        xds.publish([cluster('good'), cluster('bad', 2)]);
        await expectSilence(client);
        xds.publish([cluster('good', 2), cluster('bad', 2)]);
        const other = await client.accept('cluster');
        if (protocol === 'delta') expect(other.names).to.deep.equal(['good']);
        else
          expect(other.resources.get('bad')!.message.connect_timeout).to.deep.equal({ seconds: '0', nanos: 1_000_000 });
        xds.publish([cluster('good', 2), cluster('bad', 3)]);
        expect((await client.take('cluster')).names).to.include('bad');
      });
    }

    it('sends again, without the culprit, what was only refused together with it', async () => {
      xds.publish([cluster('good'), cluster('bad')]);
      const client = connect('delta');
      client.send('cluster');
      client.nack(await client.take('cluster'), 'Error adding/updating cluster(s) bad: cannot be');
      expect((await client.accept('cluster')).names).to.deep.equal(['good']);
      const outcome = await xds.acknowledgements([keyOf(cluster('good')), keyOf(cluster('bad'))], 2000);
      expect(outcome.nacked.map((n) => n.resource)).to.deep.equal(['bad']);
    });
  });

  describe('ordering', () => {
    it('ORDER-2 holds a route back until the cluster it names, and its endpoints, are acknowledged', async () => {
      const old = [cluster('a'), endpoints('a'), listener('l'), route('l', ['a'])];
      xds.publish(old);
      const client = connect('delta');
      client.send('cluster');
      await client.accept('cluster');
      client.send('endpoints', { resource_names_subscribe: ['a'] });
      await client.accept('endpoints');
      client.send('listener');
      await client.accept('listener');
      client.send('route', { resource_names_subscribe: ['l'] });
      await client.accept('route');

      xds.publish([...old.slice(0, 3), cluster('b'), endpoints('b'), route('l', ['a', 'b'], 2)]);
      const added = await client.take('cluster');
      await expectSilence(client, 'endpoints');
      client.ack(added, { resource_names_subscribe: [] });
      client.send('endpoints', { resource_names_subscribe: ['b'] });
      const assignment = await client.take('endpoints');
      expect(client.answers.filter((a) => a.type === 'route')).to.deep.equal([]);
      client.ack(assignment);
      await client.accept('route');

      // ORDER-3: and the old cluster stays until no route names it.
      xds.publish([cluster('b'), endpoints('b'), listener('l'), route('l', ['b'], 3)]);
      const moved = await client.take('route');
      expect(client.answers.filter((a) => a.type === 'cluster')).to.deep.equal([]);
      client.ack(moved);
      expect((await client.accept('cluster')).removed).to.deep.equal(['a']);
    });

    it('ORDER-6 sends a weight step as one endpoints resource and nothing else', async () => {
      xds.publish([cluster('a'), endpoints('a'), endpoints('b'), listener('l')]);
      const client = connect('delta');
      client.send('cluster');
      await client.accept('cluster');
      client.send('endpoints', { resource_names_subscribe: ['a', 'b'] });
      await client.accept('endpoints');
      const before = xds.counts.responses;
      xds.publish([cluster('a'), endpoints('a', 2), endpoints('b'), listener('l')]);
      expect((await client.accept('endpoints')).names).to.deep.equal(['a']);
      expect(xds.counts.responses - before).to.equal(1);
      await expectSilence(client);
    });

    it('ORDER-7 sends nothing when the same is published again', async () => {
      xds.publish([cluster('a'), endpoints('a')]);
      const client = connect('delta');
      client.send('cluster');
      await client.accept('cluster');
      expect(xds.publish([cluster('a'), endpoints('a')])).to.deep.equal([]);
      await expectSilence(client);
    });

    it('ORDER-8 tells apart who acknowledged, refused, did not answer in time, and has gone', async () => {
      xds.publish([endpoints('a')]);
      const all = ['acks', 'nacks', 'waits', 'leaves'].map((node) => connect('delta', node));
      for (const client of all) {
        client.send('endpoints', { resource_names_subscribe: ['a'] });
        await client.accept('endpoints');
      }
      const outcome = xds.publishAndWait([endpoints('a', 2)], 1500);
      const [acks, nacks, , leaves] = all as [XdsClient, XdsClient, XdsClient, XdsClient];
      await acks.accept('endpoints');
      nacks.nack(await nacks.take('endpoints'), 'no');
      await leaves.take('endpoints');
      leaves.close();
      const { acked, nacked, pending, gone } = await outcome;
      expect({ acked, pending, gone }).to.deep.equal({ acked: ['acks'], pending: ['waits'], gone: ['leaves'] });
      expect(nacked).to.deep.equal([{ node: 'nacks', type: 'endpoints', resource: 'a', error: 'no' }]);
    });

    it('has one response under way per type, and sends the latest version next', async () => {
      xds.publish([endpoints('a')]);
      const client = connect('delta');
      client.send('endpoints', { resource_names_subscribe: ['a'] });
      const first = await client.take('endpoints');
      for (let revision = 2; revision <= 20; revision += 1) xds.publish([endpoints('a', revision)]);
      client.ack(first);
      const latest = await client.accept('endpoints');
      expect(latest.resources.get('a')!.message.policy).to.deep.equal({ overprovisioning_factor: { value: 120 } });
      await expectSilence(client);
      expect(xds.counts.responses).to.be.at.most(3);
    });
  });

  it('refuses a stream without a node id, and a type it does not serve', async () => {
    xds.publish([]);
    const nameless = connect('delta', '');
    nameless.send('cluster');
    const stranger = connect('delta');
    stranger.send('cluster', { type_url: 'type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration' });
    for (const [client, words] of [
      [nameless, 'no node id'],
      [stranger, 'is not served here'],
    ] as const) {
      const ended = await waitUntil(() => client.ended, { withinMs: 5000, what: 'the stream ends' });
      expect(String(ended)).to.contain('INVALID_ARGUMENT').and.to.contain(words);
    }
  });
});
