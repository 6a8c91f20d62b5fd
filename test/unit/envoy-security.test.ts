/** Who may connect to the control plane, and as whom: real sockets, real certificates. */
import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { rmSync, writeFileSync } from 'node:fs';
import { controlPlaneSchema } from '../../blueprints/control-plane-settings';
import { identitiesIn, matchesTemplate, matchPattern } from '../../envoy/security/identity';
import { waitUntil } from '../../local/wait';
import { replaceFile, TestAuthority } from '../support/certificates';
import { ending, files, rejects, SecureControlPlane, spiffe, type Settings } from '../support/secure-control-plane';

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
  let world: SecureControlPlane;

  beforeEach(() => {
    world = new SecureControlPlane();
  });
  afterEach(() => world.stop());

  describe('towards proxies', () => {
    it('serves a certificate as the nodes that it may be, and nobody else', async () => {
      await world.start();
      const good = world.client(world.envoy('edge-1'), 'edge-1');
      good.send('cluster', { resource_names_subscribe: ['*'] });
      expect((await good.take('cluster')).names).to.include('shop');

      const posing = world.client(world.envoy('edge-1'), 'edge-2');
      posing.send('cluster', { resource_names_subscribe: ['*'] });
      const refused = await ending(posing);
      expect(refused.code).to.equal(status.PERMISSION_DENIED);
      expect(refused.details).to.include('may not be node edge-2');

      const nameless = world.client(world.envoy('edge-1'), '');
      nameless.send('cluster', { resource_names_subscribe: ['*'] });
      expect((await ending(nameless)).code).to.equal(status.INVALID_ARGUMENT);

      const unknown = world.client(world.authority.issue({ uris: [spiffe('somebody/else')] }), 'edge-1');
      unknown.send('cluster', { resource_names_subscribe: ['*'] });
      expect((await ending(unknown)).code).to.equal(status.PERMISSION_DENIED);

      const wrongCluster = world.client(world.authority.issue({ dns: ['edge.shop.example'] }), 'edge-7');
      wrongCluster.send('cluster', { node: { id: 'edge-7', cluster: 'core' } });
      expect((await ending(wrongCluster)).code).to.equal(status.PERMISSION_DENIED);
      expect(world.controlPlane.xds.proxies()).to.deep.equal(['edge-1']);
    });

    it('stays with the node of the first request, whatever later ones say', async () => {
      await world.start();
      const made = world.client(world.envoy('edge-1'), 'edge-1');
      made.send('cluster', { resource_names_subscribe: ['*'] });
      await made.accept('cluster');
      made.send('endpoints', { node: { id: 'edge-2' }, resource_names_subscribe: ['shop'] });
      expect((await made.take('endpoints')).names).to.deep.equal(['shop']);
      expect(world.controlPlane.xds.proxies()).to.deep.equal(['edge-1']);
    });

    it('does not speak with who shows no certificate, another authority’s, or an old TLS', async () => {
      await world.start();
      const other = new TestAuthority('another');
      await world.handshake(world.envoy('edge-1'), world.authority.certificate);
      await rejects(world.handshake(undefined, world.authority.certificate));
      await rejects(world.handshake(other.issue({ uris: [spiffe('envoy/edge-1')] }), world.authority.certificate));
      const old = { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' };
      await rejects(world.handshake(world.envoy('edge-1'), world.authority.certificate, old));
    });

    it('uses a renewed certificate and authority for new connections, while streams that stand go on', async () => {
      await world.start();
      const stands = world.client(world.envoy('edge-1'), 'edge-1');
      stands.send('endpoints', { resource_names_subscribe: ['shop'] });
      await stands.accept('endpoints');
      const before = await world.handshake(world.envoy('edge-2'), world.authority.certificate);

      const next = new TestAuthority('next');
      const renewed = next.issue({ ips: ['127.0.0.1'] });
      world.write(files.xds, renewed, next.certificate);
      const mine = next.issue({ uris: [spiffe('envoy/edge-2')] });
      const after = await waitUntil(() => world.handshake(mine, next.certificate).catch(() => undefined), {
        withinMs: 10_000,
        what: 'the renewed certificate is in use',
      });
      expect(after.serialNumber).not.to.equal(before.serialNumber);
      await rejects(world.handshake(world.envoy('edge-2'), next.certificate));

      await world.store.changeTraffic({
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
      await world.start();
      const paths = world.write(files.xds, world.server, world.authority.certificate);
      const before = await world.handshake(world.envoy('edge-1'), world.authority.certificate);
      const told = (text: string) =>
        waitUntil(() => world.logged.includes(text), { withinMs: 10_000, what: `the log says: ${text}` });

      writeFileSync(paths.certificateFile, world.server.certificate.slice(0, 200));
      await told('holds no whole PEM certificate');
      expect((await world.handshake(world.envoy('edge-1'), world.authority.certificate)).serialNumber).to.equal(
        before.serialNumber,
      );
      replaceFile(paths.certificateFile, world.authority.issue({ ips: ['127.0.0.1'] }).certificate);
      await told('is not the key of the certificate');
      rmSync(paths.caFile);
      await told('cannot be read (ENOENT)');
      expect((await world.handshake(world.envoy('edge-1'), world.authority.certificate)).serialNumber).to.equal(
        before.serialNumber,
      );

      const state = (await (await fetch(`http://${world.controlPlane.operationsAddress}/readyz`)).json()) as object;
      expect(state).to.include({ status: 'degraded' });

      const renewed = world.authority.issue({ ips: ['127.0.0.1'] });
      world.write(files.xds, renewed, world.authority.certificate);
      await waitUntil(
        async () =>
          (await world.handshake(world.envoy('edge-1'), world.authority.certificate)).serialNumber !==
          before.serialNumber,
        { withinMs: 10_000, what: 'the files are whole again and used' },
      );
    });
  });
});
