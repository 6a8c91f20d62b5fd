/** Who may connect to the control plane, as whom, and what they may do there: real sockets, real certificates. */
import { credentials, status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { connect as tlsConnect, type PeerCertificate, type TLSSocket } from 'node:tls';
import { pino, type Logger } from 'pino';
import type { z } from 'zod';
import type { AuditRecord } from '../../blueprints/audit';
import { controlPlaneSchema } from '../../blueprints/control-plane-settings';
import { RefusedError } from '../../blueprints/records';
import { startControlPlane, type ControlPlane } from '../../envoy/control-plane';
import { channelCredentials } from '../../envoy/security/credentials';
import { identitiesIn, matchesTemplate, matchPattern } from '../../envoy/security/identity';
import { WatchedTls } from '../../envoy/security/watched-tls';
import { TrafficClient } from '../../envoy/traffic-client';
import { waitUntil } from '../../local/wait';
import { replaceFile, TestAuthority, writeTls, type Pem } from '../support/certificates';
import { serviceDocument } from '../support/documents';
import { cellRecord, MemoryTrafficStore } from '../support/memory-traffic-store';
import { XdsClient } from '../support/xds-client';

type Settings = z.input<typeof controlPlaneSchema>;

const spiffe = (path: string): string => `spiffe://shop.example/${path}`;
const instance = (name: string, port: number) => ({ name, address: '127.0.0.1', port });

describe('Identity', () => {
  it('is the one SPIFFE id of a certificate, else its DNS names, and never anything odd', () => {
    expect(identitiesIn('URI:spiffe://a.example/envoy/1, DNS:b.example')).to.deep.equal(['spiffe://a.example/envoy/1']);
    expect(identitiesIn('DNS:Edge-1.example, DNS:edge-2.example, IP Address:127.0.0.1')).to.deep.equal([
      'edge-1.example',
      'edge-2.example',
    ]);
    expect(identitiesIn('URI:spiffe://a.example/x, URI:spiffe://a.example/y')).to.deep.equal([]);
    expect(identitiesIn('URI:https://a.example/x')).to.deep.equal([]);
    expect(identitiesIn('DNS:*.example')).to.deep.equal([]);
    // A DNS name with a comma in it, as node writes it, does not become two names.
    expect(identitiesIn('DNS:"good.example, DNS:admin.example"')).to.deep.equal([]);
    expect(identitiesIn('')).to.deep.equal([]);
  });

  it('is of a pattern whose stars stop at slashes, and fills in templates as text', () => {
    expect(matchPattern('spiffe://a/envoy/*', 'spiffe://a/envoy/edge-1')).to.deep.equal(['edge-1']);
    expect(matchPattern('spiffe://a/envoy/*', 'spiffe://a/envoy/x/y')).to.equal(undefined);
    expect(matchPattern('*.a.example', 'evil-a.example')).to.equal(undefined);
    expect(matchesTemplate('{1}-*', ['edge'], 'edge-1')).to.equal(true);
    expect(matchesTemplate('{1}', ['edge'], 'edge-1')).to.equal(false);
    // A star in a certificate is no star.
    expect(matchesTemplate('{1}', ['*'], 'anything')).to.equal(false);
    expect(matchesTemplate('{2}', ['edge'], '')).to.equal(false);
  });
});

describe('Settings of the control plane', () => {
  const problems = (change: Partial<Settings>): string[] => {
    const parsed = controlPlaneSchema.safeParse({
      xdsAddress: '127.0.0.1:1',
      trafficAddress: '127.0.0.1:2',
      ...change,
    });
    return parsed.success ? [] : parsed.error.issues.map((i) => `${i.path.join('.')}: ${i.message}`);
  };
  const files = { certificateFile: 'c', privateKeyFile: 'k', caFile: 'a' };

  it('take plaintext on loopback, and beyond it only when that is said', () => {
    expect(problems({})).to.deep.equal([]);
    expect(problems({ xdsAddress: '[::1]:1', trafficAddress: 'localhost:2' })).to.deep.equal([]);
    expect(problems({ xdsAddress: '0.0.0.0:1' })).to.have.length(1);
    expect(problems({ trafficAddress: '10.1.2.3:1' })[0]).to.match(/^trafficAddress: 10\.1\.2\.3:1 is reachable/);
    expect(problems({ operations: { address: 'metrics.example:9' } })[0]).to.match(/^operations\.address/);
    // Begins like loopback and is not.
    expect(problems({ xdsAddress: '127.0.0.1.evil.example:1' })).to.have.length(1);
    expect(problems({ xdsAddress: '0.0.0.0:1', allowPlaintext: true })).to.deep.equal([]);
  });

  it('refuse TLS that lets nobody in, and secrets that anybody could claim', () => {
    expect(problems({ xdsTls: files })[0]).to.match(/^proxies: /);
    expect(problems({ trafficTls: files })[0]).to.match(/^principals: /);
    const secret = { name: 's', owners: ['a'], caFile: 'f' };
    expect(problems({ secrets: [secret] })[0]).to.match(/^secrets: .*set xdsTls/);
    const proxies = [{ identity: 'a', nodes: ['*'] }];
    expect(problems({ xdsTls: files, proxies, secrets: [secret] })).to.deep.equal([]);
    expect(problems({ xdsTls: files, proxies, secrets: [{ ...secret, privateKeyFile: 'k' }] })[0]).to.match(/together/);
  });
});

describe('Mutual TLS of the control plane', function () {
  this.timeout(60_000);
  let dir: string;
  let authority: TestAuthority;
  let server: Pem;
  let store: MemoryTrafficStore;
  let controlPlane: ControlPlane;
  let logged: string;
  let log: Logger;
  let audit: AuditRecord[];
  let opened: { close(): void }[];

  const files = { xds: 'xds', traffic: 'traffic' };
  const write = (stem: string, pem: Pem, ca: string) => writeTls(dir, stem, pem, ca);
  const start = async (change: Partial<Settings> = {}): Promise<void> => {
    controlPlane = await startControlPlane(
      store,
      {
        xdsAddress: '127.0.0.1:0',
        trafficAddress: '127.0.0.1:0',
        acknowledgeTimeoutMs: 1000,
        xdsTls: write(files.xds, server, authority.certificate),
        trafficTls: write(files.traffic, server, authority.certificate),
        tlsReloadMs: 20,
        proxies: [
          { identity: spiffe('envoy/*'), nodes: ['{1}', '{1}-standby'] },
          { identity: 'edge.shop.example', nodes: ['edge-*'], clusters: ['edge'] },
        ],
        principals: [
          { identity: spiffe('understudy/worker'), services: ['shop'] },
          { identity: spiffe('people/*'), services: ['**'], kind: 'person' },
          { identity: spiffe('dashboard'), services: ['**'], methods: ['Get*'] },
        ],
        ...change,
      },
      log,
      { writeAudit: async (record) => void audit.push(record) },
    );
    opened.push({ close: () => void controlPlane.close() });
  };

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'understudy-security-'));
    authority = new TestAuthority();
    server = authority.issue({ dns: ['localhost'], ips: ['127.0.0.1'] });
    opened = [];
    audit = [];
    logged = '';
    log = pino(
      { level: 'trace' },
      new Writable({ write: (chunk: Buffer, _encoding, done) => ((logged += chunk.toString()), done()) }),
    );
    store = new MemoryTrafficStore();
    store.add(serviceDocument(), [
      cellRecord('shop-a', [instance('shop-a-1', 1)]),
      cellRecord('shop-b', [instance('shop-b-1', 2)]),
    ]);
  });
  afterEach(async () => {
    for (const one of opened.reverse()) one.close();
    await controlPlane?.close().catch(() => undefined);
    rmSync(dir, { recursive: true, force: true });
  });

  const channel = ({ certificate, key }: Pem, ca = authority.certificate) =>
    credentials.createSsl(Buffer.from(ca), Buffer.from(key), Buffer.from(certificate));
  const client = (pem: Pem, node: string, ca?: string): XdsClient => {
    const made = new XdsClient(controlPlane.xdsPort, 'delta', node, channel(pem, ca));
    opened.push(made);
    return made;
  };
  const envoy = (name: string): Pem => authority.issue({ uris: [spiffe(`envoy/${name}`)] });
  const ending = async (made: XdsClient): Promise<{ code?: number; details?: string }> => {
    await waitUntil(() => made.ended !== undefined, { withinMs: 10_000, what: 'the stream is ended' });
    return made.ended as { code?: number; details?: string };
  };
  const traffic = (pem: Pem): TrafficClient => {
    const made = new TrafficClient(`127.0.0.1:${controlPlane.trafficPort}`, channel(pem));
    opened.push(made);
    return made;
  };
  /** What a plain TLS client sees of the port. */
  const handshake = (pem: Pem | undefined, ca: string, options: object = {}): Promise<PeerCertificate> =>
    new Promise((resolve, reject) => {
      const socket: TLSSocket = tlsConnect({
        host: '127.0.0.1',
        port: controlPlane.xdsPort,
        ca,
        ALPNProtocols: ['h2'],
        ...(pem && { cert: pem.certificate, key: pem.key }),
        ...options,
      });
      socket.on('error', reject);
      // With TLS 1.3 the server's verdict on the client's certificate comes after the handshake: its first words do.
      socket.once('data', () => {
        resolve(socket.getPeerCertificate());
        socket.destroy();
      });
      socket.on('close', () => reject(new Error('closed')));
    });
  const rejects = async (attempt: Promise<unknown>): Promise<Error> =>
    attempt.then(
      () => expect.fail('this was to be refused'),
      (error: Error) => error,
    );

  describe('towards proxies', () => {
    it('serves a certificate as the nodes that it may be, and nobody else', async () => {
      await start();
      const good = client(envoy('edge-1'), 'edge-1');
      good.send('cluster', { resource_names_subscribe: ['*'] });
      expect((await good.take('cluster')).names).to.include('shop');

      const posing = client(envoy('edge-1'), 'edge-2');
      posing.send('cluster', { resource_names_subscribe: ['*'] });
      const refused = await ending(posing);
      expect(refused.code).to.equal(status.PERMISSION_DENIED);
      expect(refused.details).to.include('may not be node edge-2');

      const nameless = client(envoy('edge-1'), '');
      nameless.send('cluster', { resource_names_subscribe: ['*'] });
      expect((await ending(nameless)).code).to.equal(status.INVALID_ARGUMENT);

      const unknown = client(authority.issue({ uris: [spiffe('somebody/else')] }), 'edge-1');
      unknown.send('cluster', { resource_names_subscribe: ['*'] });
      expect((await ending(unknown)).code).to.equal(status.PERMISSION_DENIED);

      const wrongCluster = client(authority.issue({ dns: ['edge.shop.example'] }), 'edge-7');
      wrongCluster.send('cluster', { node: { id: 'edge-7', cluster: 'core' } });
      expect((await ending(wrongCluster)).code).to.equal(status.PERMISSION_DENIED);
      expect(controlPlane.xds.proxies()).to.deep.equal(['edge-1']);
    });

    it('stays with the node of the first request, whatever later ones say', async () => {
      await start();
      const made = client(envoy('edge-1'), 'edge-1');
      made.send('cluster', { resource_names_subscribe: ['*'] });
      await made.accept('cluster');
      made.send('endpoints', { node: { id: 'edge-2' }, resource_names_subscribe: ['shop'] });
      expect((await made.take('endpoints')).names).to.deep.equal(['shop']);
      expect(controlPlane.xds.proxies()).to.deep.equal(['edge-1']);
    });

    it('does not speak with who shows no certificate, another authority’s, or an old TLS', async () => {
      await start();
      const other = new TestAuthority('another');
      await handshake(envoy('edge-1'), authority.certificate);
      await rejects(handshake(undefined, authority.certificate));
      await rejects(handshake(other.issue({ uris: [spiffe('envoy/edge-1')] }), authority.certificate));
      const old = { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' };
      await rejects(handshake(envoy('edge-1'), authority.certificate, old));
    });

    it('uses a renewed certificate and authority for new connections, while streams that stand go on', async () => {
      await start();
      const stands = client(envoy('edge-1'), 'edge-1');
      stands.send('endpoints', { resource_names_subscribe: ['shop'] });
      await stands.accept('endpoints');
      const before = await handshake(envoy('edge-2'), authority.certificate);

      const next = new TestAuthority('next');
      const renewed = next.issue({ ips: ['127.0.0.1'] });
      write(files.xds, renewed, next.certificate);
      const mine = next.issue({ uris: [spiffe('envoy/edge-2')] });
      const after = await waitUntil(() => handshake(mine, next.certificate).catch(() => undefined), {
        withinMs: 10_000,
        what: 'the renewed certificate is in use',
      });
      expect(after.serialNumber).not.to.equal(before.serialNumber);
      await rejects(handshake(envoy('edge-2'), next.certificate));

      await store.changeTraffic({
        service: 'shop',
        expectedEpoch: 1,
        split: [
          { cell: 'shop-a', shareBp: 9000, coverInstances: 0 },
          { cell: 'shop-b', shareBp: 1000, coverInstances: 0 },
        ],
        reason: 'test',
        by: 'tester',
        idempotencyKey: 'while renewing',
      });
      expect((await stands.take('endpoints')).names).to.deep.equal(['shop']);
      expect(stands.ended).to.equal(undefined);
    });

    it('keeps the certificate it has, and says so, while a file is half written, missing or another’s', async () => {
      await start();
      const paths = write(files.xds, server, authority.certificate);
      const before = await handshake(envoy('edge-1'), authority.certificate);
      const told = (text: string) =>
        waitUntil(() => logged.includes(text), { withinMs: 10_000, what: `the log says: ${text}` });

      writeFileSync(paths.certificateFile, server.certificate.slice(0, 200));
      await told('holds no whole PEM certificate');
      expect((await handshake(envoy('edge-1'), authority.certificate)).serialNumber).to.equal(before.serialNumber);
      replaceFile(paths.certificateFile, authority.issue({ ips: ['127.0.0.1'] }).certificate);
      await told('is not the key of the certificate');
      rmSync(paths.caFile);
      await told('cannot be read (ENOENT)');
      expect((await handshake(envoy('edge-1'), authority.certificate)).serialNumber).to.equal(before.serialNumber);

      const state = (await (await fetch(`http://${controlPlane.operationsAddress}/readyz`)).json()) as object;
      expect(state).to.include({ status: 'degraded' });

      const renewed = authority.issue({ ips: ['127.0.0.1'] });
      write(files.xds, renewed, authority.certificate);
      await waitUntil(
        async () => (await handshake(envoy('edge-1'), authority.certificate)).serialNumber !== before.serialNumber,
        { withinMs: 10_000, what: 'the files are whole again and used' },
      );
    });
  });

  describe('limits', () => {
    const limited = (limits: Settings['limits']) => start({ limits });
    const subscribe = { resource_names_subscribe: ['*'] };

    it('ends a stream whose request is larger than allowed, before reading it', async () => {
      await limited({ requestBytes: 4096 });
      const made = client(envoy('edge-1'), 'edge-1');
      made.send('cluster', { resource_names_subscribe: ['x'.repeat(5000)] });
      expect((await ending(made)).code).to.equal(status.RESOURCE_EXHAUSTED);
    });

    it('ends a stream that subscribes to more names than allowed', async () => {
      await limited({ namesPerSubscription: 10 });
      const made = client(envoy('edge-1'), 'edge-1');
      made.send('endpoints', { resource_names_subscribe: Array.from({ length: 11 }, (_, i) => `n${i}`) });
      expect((await ending(made)).code).to.equal(status.RESOURCE_EXHAUSTED);
    });

    it('refuses one stream more than an identity may have, without harm to those that stand', async () => {
      await limited({ streamsPerIdentity: 2 });
      const pem = envoy('edge-1');
      const two = [client(pem, 'edge-1'), client(pem, 'edge-1')];
      for (const made of two) {
        made.send('cluster', subscribe);
        await made.take('cluster');
      }
      const third = client(pem, 'edge-1');
      third.send('cluster', subscribe);
      expect((await ending(third)).code).to.equal(status.RESOURCE_EXHAUSTED);
      expect(two.map(({ ended }) => ended)).to.deep.equal([undefined, undefined]);
      two[0]!.close();
      await waitUntil(
        async () => {
          const again = client(pem, 'edge-1');
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
      const made = client(envoy('edge-1'), 'edge-1');
      for (let n = 0; n < 30; n += 1) made.send('endpoints', { resource_names_subscribe: [`n${n}`] });
      const { code, details } = await ending(made);
      expect(code).to.equal(status.RESOURCE_EXHAUSTED);
      expect(details).to.include('requests a second');
    });

    it('ends a stream that never says which node it is', async () => {
      await limited({ firstRequestWithinMs: 100 });
      const silent = client(envoy('edge-1'), 'edge-1');
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
    const worker = () => traffic(authority.issue({ uris: [spiffe('understudy/worker')] }));

    it('lets a principal change the services it is named for, and writes down who it was', async () => {
      await start();
      expect(await worker().applySplit(order)).to.deep.include({ epoch: 2 });
      const asked = audit.find(({ kind }) => kind === 'request');
      expect(asked).to.deep.include({
        service: 'shop',
        by: 'failover/shop/shop-a',
        identity: spiffe('understudy/worker'),
        reason: 'a test',
        outcome: 'OK',
      });
    });

    it('refuses other services, other methods and strangers; the split stays, the attempt is written down', async () => {
      await start();
      const refusals = [
        () => worker().applySplit({ ...order, service: 'bank' }),
        () => traffic(authority.issue({ uris: [spiffe('dashboard')] })).applySplit(order),
        () => traffic(authority.issue({ uris: [spiffe('stranger')] })).getTraffic('shop'),
        () => traffic(authority.issue({ commonName: 'admin' })).getTraffic('shop'),
      ];
      for (const refused of refusals) {
        const error = await rejects(refused());
        expect(error).to.be.instanceOf(RefusedError);
        expect(error.message).to.include('controlPlane.principals');
      }
      expect((await traffic(authority.issue({ uris: [spiffe('dashboard')] })).getTraffic('shop')).epoch).to.equal(1);
      const denied = audit.filter(({ outcome }) => outcome === 'PERMISSION_DENIED');
      expect(denied.map(({ details }) => details?.method)).to.deep.equal([
        'ApplySplit',
        'ApplySplit',
        'GetTraffic',
        'GetTraffic',
      ]);
    });

    it('is reached by a client that renews its own certificate without being made anew', async () => {
      await start();
      const own = write('worker', authority.issue({ uris: [spiffe('understudy/worker')] }), authority.certificate);
      const tls = new WatchedTls(own, { what: 'worker', log, everyMs: 20 });
      const made = new TrafficClient(`127.0.0.1:${controlPlane.trafficPort}`, channelCredentials(tls));
      opened.push(made, tls);
      expect((await made.getTraffic('shop')).epoch).to.equal(1);

      const next = new TestAuthority('next');
      const trusted = `${authority.certificate}${next.certificate}`;
      write('worker', next.issue({ uris: [spiffe('understudy/worker')] }), trusted);
      write(files.traffic, next.issue({ ips: ['127.0.0.1'] }), next.certificate);
      await waitUntil(() => logged.includes('worker: new connections use'), { withinMs: 10_000, what: 'it is read' });
      await waitUntil(() => logged.includes('traffic API: new connections use'), { withinMs: 10_000, what: 'so here' });
      // A client of its own connection: what stands would go on with the old certificate.
      const fresh = new TrafficClient(`127.0.0.1:${controlPlane.trafficPort}`, channelCredentials(tls));
      opened.push(fresh);
      expect((await fresh.getTraffic('shop')).epoch).to.equal(1);
    });
  });

  describe('secrets', () => {
    const secretOf = (pem: Pem) => {
      const files = writeTls(dir, 'secret', pem, authority.certificate);
      return { certificateFile: files.certificateFile, privateKeyFile: files.privateKeyFile };
    };
    /** Long enough that no accident has it. */
    const traces = ({ key }: Pem): string[] => {
      const [, line] = key.split('\n') as [string, string];
      return [line.slice(0, 40), Buffer.from(key).toString('base64').slice(40, 80), Buffer.from(line).toString('hex')];
    };

    it('go to their owner alone, whatever node others claim to be, renewed with their file, and are never shown', async () => {
      const first = authority.issue({ dns: ['shop.example'] });
      writeFileSync(join(dir, 'token'), 'a-token\n');
      await start({
        proxies: [{ identity: spiffe('envoy/*'), nodes: ['**'] }],
        secrets: [{ name: 'shop-certificate', owners: [spiffe('envoy/edge-1')], ...secretOf(first) }],
        operations: { tokenFile: join(dir, 'token') },
      });
      const ask = { resource_names_subscribe: ['shop-certificate'] };
      const keyIn = (message: object): string => {
        const { tls_certificate: pair } = message as { tls_certificate: { private_key: { inline_bytes: Buffer } } };
        return pair.private_key.inline_bytes.toString();
      };
      const owner = client(envoy('edge-1'), 'edge-1');
      owner.send('secret', ask);
      const given = await owner.accept('secret');
      expect(keyIn(given.resources.get('shop-certificate')!.message)).to.equal(first.key);

      // May be any node by the settings, so it is the owner's node too; it is not the owner.
      const thief = client(envoy('edge-2'), 'edge-1');
      thief.send('secret', ask);
      const answer = await thief.accept('secret');
      expect(answer).to.deep.include({ names: [], removed: ['shop-certificate'] });

      const second = authority.issue({ dns: ['shop.example'] });
      secretOf(second);
      const renewed = await owner.accept('secret');
      expect(keyIn(renewed.resources.get('shop-certificate')!.message)).to.equal(second.key);
      thief.send('secret', { resource_names_subscribe: ['probe'] });
      expect((await thief.take('secret')).removed).to.deep.equal(['probe']);

      const shown = await Promise.all(
        ['/config_dump', '/proxies', '/metrics', '/readyz'].map(async (path) => {
          const headers = { authorization: 'Bearer a-token' };
          const response = await fetch(`http://${controlPlane.operationsAddress}${path}`, { headers });
          expect(response.status, path).to.equal(200);
          return response.text();
        }),
      );
      expect(shown[0]).to.include('shop-certificate').and.include('[redacted]');
      const everything = `${logged}${shown.join('')}${JSON.stringify(audit)}`;
      expect(logged).to.include('secret shop-certificate is renewed');
      for (const trace of [...traces(first), ...traces(second), ...traces(server)]) {
        expect(everything.includes(trace), 'a private key is shown').to.equal(false);
      }
    });
  });
});
