/** A real Envoy that is given its client certificate and its authorities by the control plane, and what renewing them does to traffic. */
import { expect } from 'chai';
import { X509Certificate } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TLSSocket } from 'node:tls';
import { pino } from 'pino';
import type { Instance } from '../../blueprints/schema';
import { startControlPlane, type ControlPlane } from '../../envoy/control-plane';
import { releasePorts, reservePorts } from '../../local/ports';
import { waitUntil } from '../../local/wait';
import { TestAuthority, writeTls, type Pem } from '../support/certificates';
import { serviceDocument } from '../support/documents';
import { startEnvoy, type EnvoyProxy } from '../support/envoy-proxy';
import { cellRecord, MemoryTrafficStore } from '../support/memory-traffic-store';
import { send } from '../support/upstreams';

const log = pino({ level: process.env.LOG_LEVEL ?? 'silent' });
const spiffe = (path: string): string => `spiffe://shop.example/${path}`;
const controlPlaneName = spiffe('understudy/control-plane');
const serialOf = (pem: Pem): string => new X509Certificate(pem.certificate).serialNumber;

/** A cell that serves only whom its authorities have signed, and remembers the certificates that it was shown. */
class GuardedCell {
  readonly shown = new Set<string>();
  private constructor(private readonly server: Server) {
    server.on('request', (request, response) => {
      this.shown.add((request.socket as TLSSocket).getPeerCertificate().serialNumber);
      // Every request by a connection of its own: so each one is a handshake, also while certificates change.
      response.setHeader('connection', 'close').end('ok');
    });
  }

  static async start(own: Pem, ca: string): Promise<GuardedCell> {
    const tls = { cert: own.certificate, key: own.key, ca, requestCert: true, rejectUnauthorized: true };
    const server = createServer({ ...tls, ALPNProtocols: ['http/1.1'] });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return new GuardedCell(server);
  }

  instance(name: string): Instance {
    return { name, address: '127.0.0.1', port: (this.server.address() as AddressInfo).port };
  }

  /** For connections that come from now on. */
  renew(own: Pem, ca: string): void {
    this.server.setSecureContext({ cert: own.certificate, key: own.key, ca });
  }

  stop(): void {
    this.server.close();
    this.server.closeAllConnections();
  }
}

describe('Envoy with secrets from the control plane', function () {
  this.timeout(90_000);
  let dir: string;
  let port: number;
  let authority: TestAuthority;
  let controlPlane: ControlPlane;
  let envoy: EnvoyProxy | undefined;
  const cells: GuardedCell[] = [];

  const cellPem = (from: TestAuthority, cell: string): Pem => from.issue({ uris: [spiffe(`cell/${cell}`)] });
  const callerPem = (from: TestAuthority): Pem => from.issue({ uris: [spiffe('caller/edge-1')] });
  const names = ['shop-a', 'shop-b'];

  before(async () => {
    [port] = (await reservePorts(1)) as [number];
    dir = mkdtempSync(join(tmpdir(), 'understudy-sds-'));
    authority = new TestAuthority();
    const store = new MemoryTrafficStore();
    for (const cell of names) cells.push(await GuardedCell.start(cellPem(authority, cell), authority.certificate));
    const tls = {
      trustedCa: { sds: 'cell-authorities' },
      certificate: { sds: 'edge-certificate' },
      subjectAltName: { kind: 'uri', value: spiffe('cell/{cell}') },
    };
    store.add(
      serviceDocument({ listener: { port }, tls }),
      names.map((cell, i) => cellRecord(cell, [cells[i]!.instance(`${cell}-1`)])),
    );
    const owners = [spiffe('envoy/edge-1')];
    const { certificateFile, privateKeyFile, caFile } = writeTls(
      dir,
      'caller',
      callerPem(authority),
      authority.certificate,
    );
    const serverPem = authority.issue({ uris: [controlPlaneName] });
    controlPlane = await startControlPlane(
      store,
      {
        xdsAddress: '127.0.0.1:0',
        trafficAddress: '127.0.0.1:0',
        xdsTls: writeTls(dir, 'server', serverPem, authority.certificate),
        proxies: [{ identity: spiffe('envoy/*'), nodes: ['{1}'] }],
        secrets: [
          { name: 'edge-certificate', owners, certificateFile, privateKeyFile },
          { name: 'cell-authorities', owners, caFile },
        ],
        tlsReloadMs: 50,
      },
      log,
    );
    const own = writeTls(dir, 'proxy', authority.issue({ uris: owners }), authority.certificate);
    envoy = await startEnvoy('edge-1', `127.0.0.1:${controlPlane.xdsPort}`, 'DELTA_GRPC', { ...own, controlPlaneName });
    await waitUntil(async () => (await send(port, 1)).ok === 1, { withinMs: 30_000, what: 'Envoy serves the shop' });
  });
  afterEach(function () {
    if (this.currentTest?.state === 'failed')
      this.currentTest.err!.stack += `\n--- envoy\n${envoy?.log().slice(-4000)}`;
  });
  after(async () => {
    await envoy?.stop();
    await controlPlane?.close();
    for (const cell of cells) cell.stop();
    releasePorts([port]);
    rmSync(dir, { recursive: true, force: true });
  });

  /** Writes what the control plane gives out, and waits until Envoy has taken it. */
  const giveOut = async (caller: Pem, ca: string): Promise<void> => {
    const taken = async (): Promise<number[]> =>
      Promise.all(
        names.map((cell) => envoy!.stat(`cluster.shop|${cell}.client_ssl_socket_factory.ssl_context_update_by_sds`)),
      );
    const before = await taken();
    writeTls(dir, 'caller', caller, ca);
    await waitUntil(async () => (await taken()).every((now, i) => now > before[i]!), {
      withinMs: 20_000,
      what: 'Envoy has taken the secrets',
    });
  };

  it('renews its certificate and its authorities without a restart and without a failed request', async () => {
    const counted = await envoy!.stat('cluster.shop.upstream_rq_total');
    let isRenewing = true;
    let requests = 0;
    const failures: string[] = [];
    const load = (async () => {
      while (isRenewing) {
        const answers = await send(port, 20, { concurrency: 2 });
        requests += answers.ok;
        failures.push(...answers.failures);
      }
    })();
    const next = new TestAuthority('next');
    const renewed = callerPem(next);
    try {
      const both = `${authority.certificate}${next.certificate}`;
      // Both sides trust both authorities first.
      for (const [i, cell] of cells.entries()) cell.renew(cellPem(authority, names[i]!), both);
      await giveOut(callerPem(authority), both);
      // Then both show certificates of the new one; then the old one is gone.
      for (const [i, cell] of cells.entries()) cell.renew(cellPem(next, names[i]!), both);
      await giveOut(renewed, both);
      for (const [i, cell] of cells.entries()) cell.renew(cellPem(next, names[i]!), next.certificate);
      await giveOut(renewed, next.certificate);
      for (const cell of cells) cell.shown.clear();
      await waitUntil(() => cells.every(({ shown }) => shown.has(serialOf(renewed))), {
        withinMs: 20_000,
        what: 'both cells are shown the new certificate',
      });
    } finally {
      isRenewing = false;
      await load;
    }
    expect(requests).to.be.greaterThan(0);
    expect(failures).to.deep.equal([]);
    // An Envoy that had started anew would have begun to count anew.
    expect(await envoy!.stat('cluster.shop.upstream_rq_total')).to.be.at.least(counted + requests);
  });
});
