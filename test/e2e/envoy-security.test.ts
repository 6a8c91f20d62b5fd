/** Real Envoys over mutual TLS: whom they are to the control plane, and what renewing certificates does to traffic. */
import { expect } from 'chai';
import { X509Certificate } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { startControlPlane, type ControlPlane } from '../../envoy/control-plane';
import { releasePorts, reservePorts } from '../../local/ports';
import { waitUntil } from '../../local/wait';
import { TestAuthority, tlsFiles, writeTls, type Pem } from '../support/certificates';
import { serviceDocument } from '../support/documents';
import { startEnvoy, type EnvoyProxy } from '../support/envoy-proxy';
import { cellRecord, MemoryTrafficStore } from '../support/memory-traffic-store';
import { send, Upstreams } from '../support/upstreams';

const log = pino({ level: process.env.LOG_LEVEL ?? 'silent' });
const spiffe = (path: string): string => `spiffe://shop.example/${path}`;
const controlPlaneName = spiffe('understudy/control-plane');

describe('Envoy over mutual TLS', function () {
  this.timeout(90_000);
  let dir: string;
  let port: number;
  let xdsPort: number;
  let edge: EnvoyProxy;
  let authority: TestAuthority;
  let store: MemoryTrafficStore;
  let upstreams: Upstreams;
  let controlPlane: ControlPlane;
  const envoys: EnvoyProxy[] = [];
  let epoch = 1;

  const server = (from: TestAuthority): Pem => from.issue({ uris: [controlPlaneName] });
  const proxy = (from: TestAuthority, name: string): Pem => from.issue({ uris: [spiffe(`envoy/${name}`)] });

  before(async () => {
    [port, xdsPort] = (await reservePorts(2)) as [number, number];
    dir = mkdtempSync(join(tmpdir(), 'understudy-mtls-'));
    authority = new TestAuthority();
    store = new MemoryTrafficStore();
    upstreams = new Upstreams();
    // The instances live in this process: when it is busy with its own for a moment, that is no death of theirs.
    store.add(serviceDocument({ listener: { port }, healthCheck: { intervalMs: 10_000 } }), [
      cellRecord('shop-a', await upstreams.start('shop-a', 1)),
      cellRecord('shop-b', await upstreams.start('shop-b', 1)),
    ]);
    writeTls(dir, 'server', server(authority), authority.certificate);
    controlPlane = await startOver();
    edge = await start('edge-1', proxy(authority, 'edge-1'), authority.certificate);
    await waitUntil(async () => (await send(port, 1)).ok === 1, { withinMs: 20_000, what: 'Envoy serves the shop' });
  });
  after(async () => {
    for (const envoy of envoys) await envoy.stop();
    await controlPlane?.close();
    upstreams?.stop();
    releasePorts([port, xdsPort]);
    rmSync(dir, { recursive: true, force: true });
  });

  const startOver = (): Promise<ControlPlane> =>
    startControlPlane(
      store,
      {
        xdsAddress: `127.0.0.1:${xdsPort}`,
        trafficAddress: '127.0.0.1:0',
        loadReportIntervalMs: 200,
        xdsTls: tlsFiles(dir, 'server'),
        proxies: [{ identity: spiffe('envoy/*'), nodes: ['{1}'] }],
        tlsReloadMs: 50,
      },
      log,
    );
  /** A folder of its own, which Envoy watches. */
  const folderOf = (nodeId: string): string => join(dir, nodeId);
  const start = async (nodeId: string, pem: Pem, ca: string, name = controlPlaneName): Promise<EnvoyProxy> => {
    mkdirSync(folderOf(nodeId));
    const files = writeTls(folderOf(nodeId), 'proxy', pem, ca);
    const envoy = await startEnvoy(nodeId, `127.0.0.1:${xdsPort}`, 'DELTA_GRPC', { ...files, controlPlaneName: name });
    envoys.push(envoy);
    return envoy;
  };
  const shift = async (a: number): Promise<void> => {
    const split = [
      { cell: 'shop-a', shareBp: a, coverInstances: 0 },
      { cell: 'shop-b', shareBp: 10_000 - a, coverInstances: 0 },
    ];
    const order = { service: 'shop', reason: 'test', by: 'tester', idempotencyKey: `epoch ${epoch}` };
    await store.changeTraffic({ ...order, expectedEpoch: epoch, split });
    epoch += 1;
  };
  const acknowledged = (node: string): Promise<unknown> =>
    waitUntil(
      async () => {
        const { acked } = await controlPlane.xds.acknowledgements([{ type: 'endpoints', name: 'shop' }], 5000);
        return acked.includes(node);
      },
      { withinMs: 20_000, what: `${node} has the newest split` },
    );
  const renew = async (pem: Pem, ca: string): Promise<void> => {
    writeTls(folderOf('edge-1'), 'proxy', pem, ca);
    const serial = new X509Certificate(pem.certificate).serialNumber.toLowerCase();
    await waitUntil(async () => (await edge.admin('/certs')).includes(serial), {
      withinMs: 20_000,
      what: 'Envoy uses the new files',
    });
  };
  const reconnect = async (): Promise<void> => {
    await controlPlane.close();
    controlPlane = await startOver();
  };
  const isBack = (): Promise<unknown> =>
    waitUntil(() => controlPlane.xds.proxies().includes('edge-1'), { withinMs: 30_000, what: 'Envoy is connected' });
  const servesOn = async (): Promise<void> => {
    expect(controlPlane.xds.proxies()).to.deep.equal([]);
    expect((await send(port, 100)).failures).to.deep.equal([]);
  };
  /** Until Envoy has counted one more than before. */
  const counted = async (stat: string, cause: () => Promise<void>): Promise<void> => {
    const before = await edge.stat(stat);
    await cause();
    await waitUntil(async () => (await edge.stat(stat)) > before, { withinMs: 20_000, what: `Envoy counts ${stat}` });
  };

  it('is served as the node its certificate names', async () => {
    expect(controlPlane.xds.inspect()[0]).to.include({ node: 'edge-1', identity: spiffe('envoy/edge-1') });
    expect(controlPlane.xds.inspect()[0]!.agent).to.match(/^envoy 1\.\d+\.\d+$/);
  });

  it('goes on without a failed request while both sides renew certificates and authorities', async () => {
    let isRenewing = true;
    const failures: string[] = [];
    let requests = 0;
    const load = (async () => {
      while (isRenewing) {
        const { ok, failures: failed } = await send(port, 20, { concurrency: 2 });
        requests += ok;
        failures.push(...failed);
      }
    })();
    try {
      // Both trust both authorities first; then both show certificates of the new one, and the old one is gone.
      const next = new TestAuthority('next');
      const both = `${authority.certificate}${next.certificate}`;
      writeTls(dir, 'server', server(authority), both);
      await renew(proxy(authority, 'edge-1'), both);
      await shift(9000);
      await acknowledged('edge-1');

      writeTls(dir, 'server', server(next), next.certificate);
      await renew(proxy(next, 'edge-1'), next.certificate);
      authority = next;
      // New connections are made of the new certificates alone.
      await reconnect();
      await isBack();
      await shift(1000);
      await acknowledged('edge-1');
    } finally {
      isRenewing = false;
      await load;
    }
    expect(requests).to.be.greaterThan(0);
    expect(failures).to.deep.equal([]);
  });

  it('is refused under a certificate that may not be its node, and keeps its last good configuration', async () => {
    await renew(proxy(authority, 'somebody-else'), authority.certificate);
    await reconnect();
    const refused = 'understudy_xds_turned_away_total{code="PERMISSION_DENIED"}';
    await waitUntil(
      async () => (await (await fetch(`http://${controlPlane.operationsAddress}/metrics`)).text()).includes(refused),
      { withinMs: 20_000, what: 'Envoy is turned away' },
    );
    await servesOn();

    await renew(proxy(authority, 'edge-1'), authority.certificate);
    await isBack();
  });

  it('does not take its configuration from who has another name, and keeps what it has', async () => {
    await counted('cluster.xds.ssl.fail_verify_san', async () => {
      writeTls(dir, 'server', authority.issue({ uris: [spiffe('another')] }), authority.certificate);
      await reconnect();
    });
    await servesOn();
    writeTls(dir, 'server', server(authority), authority.certificate);
    await isBack();
  });

  it('does not take its configuration from whom another authority has signed, and keeps what it has', async () => {
    const stranger = new TestAuthority('another');
    await counted('cluster.xds.ssl.fail_verify_error', async () => {
      writeTls(dir, 'server', server(stranger), authority.certificate);
      await reconnect();
    });
    await servesOn();
    writeTls(dir, 'server', server(authority), authority.certificate);
    await isBack();
  });
});
