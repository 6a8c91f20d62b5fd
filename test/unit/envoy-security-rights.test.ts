/** What who is known by a certificate may do at the control plane, how much of it, and what secrets they are given. */
import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { RefusedError } from '../../blueprints/records';
import { channelCredentials } from '../../envoy/security/credentials';
import { WatchedTls } from '../../envoy/security/watched-tls';
import { TrafficClient } from '../../envoy/traffic-client';
import { waitUntil } from '../../local/wait';
import { TestAuthority, writeTls, type Pem } from '../support/certificates';
import { ending, files, rejects, SecureControlPlane, spiffe, type Settings } from '../support/secure-control-plane';

describe('Rights at the control plane', function () {
  this.timeout(60_000);
  let world: SecureControlPlane;

  beforeEach(() => {
    world = new SecureControlPlane();
  });
  afterEach(() => world.stop());

  describe('limits', () => {
    const limited = (limits: Settings['limits']) => world.start({ limits });
    const subscribe = { resource_names_subscribe: ['*'] };

    it('ends a stream whose request is larger than allowed, before reading it', async () => {
      await limited({ requestBytes: 4096 });
      const made = world.client(world.envoy('edge-1'), 'edge-1');
      made.send('cluster', { resource_names_subscribe: ['x'.repeat(5000)] });
      expect((await ending(made)).code).to.equal(status.RESOURCE_EXHAUSTED);
    });

    it('ends a stream that subscribes to more names than allowed', async () => {
      await limited({ namesPerSubscription: 10 });
      const made = world.client(world.envoy('edge-1'), 'edge-1');
      made.send('endpoints', { resource_names_subscribe: Array.from({ length: 11 }, (_, i) => `n${i}`) });
      expect((await ending(made)).code).to.equal(status.RESOURCE_EXHAUSTED);
    });

    it('refuses one stream more than an identity may have, without harm to those that stand', async () => {
      await limited({ streamsPerIdentity: 2 });
      const pem = world.envoy('edge-1');
      const two = [world.client(pem, 'edge-1'), world.client(pem, 'edge-1')];
      for (const made of two) {
        made.send('cluster', subscribe);
        await made.take('cluster');
      }
      const third = world.client(pem, 'edge-1');
      third.send('cluster', subscribe);
      expect((await ending(third)).code).to.equal(status.RESOURCE_EXHAUSTED);
      expect(two.map(({ ended }) => ended)).to.deep.equal([undefined, undefined]);
      two[0]!.close();
      await waitUntil(
        async () => {
          const again = world.client(pem, 'edge-1');
          again.send('cluster', subscribe);
          return again.take('cluster').then(
            () => true,
            () => false,
          );
        },
        { withinMs: 10_000, what: 'a place has become free' },
      );
    });

    it('ends a stream that floods with requests', async () => {
      await limited({ requestBurst: 20, requestsPerSecond: 1 });
      const made = world.client(world.envoy('edge-1'), 'edge-1');
      for (let n = 0; n < 30; n += 1) made.send('endpoints', { resource_names_subscribe: [`n${n}`] });
      const { code, details } = await ending(made);
      expect(code).to.equal(status.RESOURCE_EXHAUSTED);
      expect(details).to.include('requests a second');
    });

    it('ends a stream that never says which node it is', async () => {
      await limited({ firstRequestWithinMs: 100 });
      const silent = world.client(world.envoy('edge-1'), 'edge-1');
      expect((await ending(silent)).code).to.equal(status.DEADLINE_EXCEEDED);
    });
  });

  describe('of the traffic API', () => {
    const order = {
      service: 'shop',
      expectedEpoch: 1,
      split: [
        { cell: 'shop-a', shareBp: 9000, coverInstances: 0 },
        { cell: 'shop-b', shareBp: 1000, coverInstances: 0 },
      ],
      reason: 'a test',
      by: 'failover/shop/shop-a',
      idempotencyKey: 'one',
    };
    const worker = () => world.traffic(world.authority.issue({ uris: [spiffe('understudy/worker')] }));

    it('lets a principal change the services it is named for, and writes down who it was', async () => {
      await world.start();
      expect(await worker().applySplit(order)).to.deep.include({ epoch: 2 });
      const asked = world.audit.find(({ kind }) => kind === 'request');
      expect(asked).to.deep.include({
        service: 'shop',
        by: 'failover/shop/shop-a',
        identity: spiffe('understudy/worker'),
        reason: 'a test',
        outcome: 'OK',
      });
    });

    it('refuses other services, other methods and strangers; the split stays, the attempt is written down', async () => {
      await world.start();
      const refusals = [
        () => worker().applySplit({ ...order, service: 'bank' }),
        () => world.traffic(world.authority.issue({ uris: [spiffe('dashboard')] })).applySplit(order),
        () => world.traffic(world.authority.issue({ uris: [spiffe('stranger')] })).getTraffic('shop'),
        () => world.traffic(world.authority.issue({ commonName: 'admin' })).getTraffic('shop'),
      ];
      for (const refused of refusals) {
        const error = await rejects(refused());
        expect(error).to.be.instanceOf(RefusedError);
        expect(error.message).to.include('controlPlane.principals');
      }
      expect(
        (await world.traffic(world.authority.issue({ uris: [spiffe('dashboard')] })).getTraffic('shop')).epoch,
      ).to.equal(1);
      const denied = world.audit.filter(({ outcome }) => outcome === 'PERMISSION_DENIED');
      expect(denied.map(({ details }) => details?.method)).to.deep.equal([
        'ApplySplit',
        'ApplySplit',
        'GetTraffic',
        'GetTraffic',
      ]);
    });

    it('is reached by a client that renews its own certificate without being made anew', async () => {
      await world.start();
      const own = world.write(
        'worker',
        world.authority.issue({ uris: [spiffe('understudy/worker')] }),
        world.authority.certificate,
      );
      const tls = new WatchedTls(own, { what: 'worker', log: world.log, everyMs: 20 });
      const made = new TrafficClient(`127.0.0.1:${world.controlPlane.trafficPort}`, channelCredentials(tls));
      world.opened.push(made, tls);
      expect((await made.getTraffic('shop')).epoch).to.equal(1);

      const next = new TestAuthority('next');
      const trusted = `${world.authority.certificate}${next.certificate}`;
      world.write('worker', next.issue({ uris: [spiffe('understudy/worker')] }), trusted);
      world.write(files.traffic, next.issue({ ips: ['127.0.0.1'] }), next.certificate);
      await waitUntil(() => world.logged.includes('worker: new connections use'), {
        withinMs: 10_000,
        what: 'it is read',
      });
      await waitUntil(() => world.logged.includes('traffic API: new connections use'), {
        withinMs: 10_000,
        what: 'so here',
      });
      // A client of its own connection: what stands would go on with the old certificate.
      const fresh = new TrafficClient(`127.0.0.1:${world.controlPlane.trafficPort}`, channelCredentials(tls));
      world.opened.push(fresh);
      expect((await fresh.getTraffic('shop')).epoch).to.equal(1);
    });
  });

  describe('secrets', () => {
    const secretOf = (pem: Pem) => {
      const files = writeTls(world.dir, 'secret', pem, world.authority.certificate);
      return { certificateFile: files.certificateFile, privateKeyFile: files.privateKeyFile };
    };
    /** Long enough that no accident has it. */
    const traces = ({ key }: Pem): string[] => {
      const [, line] = key.split('\n') as [string, string];
      return [line.slice(0, 40), Buffer.from(key).toString('base64').slice(40, 80), Buffer.from(line).toString('hex')];
    };

    it('go to their owner alone, whatever node others claim to be, renewed with their file, and are never shown', async () => {
      const first = world.authority.issue({ dns: ['shop.example'] });
      writeFileSync(join(world.dir, 'token'), 'a-token\n');
      await world.start({
        proxies: [{ identity: spiffe('envoy/*'), nodes: ['**'] }],
        secrets: [{ name: 'shop-certificate', owners: [spiffe('envoy/edge-1')], ...secretOf(first) }],
        operations: { tokenFile: join(world.dir, 'token') },
      });
      const ask = { resource_names_subscribe: ['shop-certificate'] };
      const keyIn = (message: object): string => {
        const { tls_certificate: pair } = message as { tls_certificate: { private_key: { inline_bytes: Buffer } } };
        return pair.private_key.inline_bytes.toString();
      };
      const owner = world.client(world.envoy('edge-1'), 'edge-1');
      owner.send('secret', ask);
      const given = await owner.accept('secret');
      expect(keyIn(given.resources.get('shop-certificate')!.message)).to.equal(first.key);

      // May be any node by the settings, so it is the owner's node too; it is not the owner.
      const thief = world.client(world.envoy('edge-2'), 'edge-1');
      thief.send('secret', ask);
      const answer = await thief.accept('secret');
      expect(answer).to.deep.include({ names: [], removed: ['shop-certificate'] });

      const second = world.authority.issue({ dns: ['shop.example'] });
      secretOf(second);
      const renewed = await owner.accept('secret');
      expect(keyIn(renewed.resources.get('shop-certificate')!.message)).to.equal(second.key);
      thief.send('secret', { resource_names_subscribe: ['probe'] });
      expect((await thief.take('secret')).removed).to.deep.equal(['probe']);

      const shown = await Promise.all(
        ['/config_dump', '/proxies', '/metrics', '/readyz'].map(async (path) => {
          const headers = { authorization: 'Bearer a-token' };
          const response = await fetch(`http://${world.controlPlane.operationsAddress}${path}`, { headers });
          expect(response.status, path).to.equal(200);
          return response.text();
        }),
      );
      expect(shown[0]).to.include('shop-certificate').and.include('[redacted]');
      const everything = `${world.logged}${shown.join('')}${JSON.stringify(world.audit)}`;
      expect(world.logged).to.include('secret shop-certificate is renewed');
      for (const trace of [...traces(first), ...traces(second), ...traces(world.server)]) {
        expect(everything.includes(trace), 'a private key is shown').to.equal(false);
      }
    });
  });
});
