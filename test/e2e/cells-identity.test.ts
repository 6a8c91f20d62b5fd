/** Cells with identities of their own, on real parts: certified by an authority, met by Envoy over mutual TLS, read back before they are armed. */
import { expect } from 'chai';
import { randomBytes, X509Certificate } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { get } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { pino } from 'pino';
import { identitySettingsSchema } from '../../blueprints/identity-settings';
import type { CellRecord } from '../../blueprints/records';
import { ConfigurationStore } from '../../blueprints/store';
import { CellIdentities } from '../../cells/identity/cell-identities';
import { makeAuthority } from '../../cells/identity/new-authority';
import { SyntheticCellManager } from '../../cells/manager';
import { ProcessProvider } from '../../cells/process-provider';
import { startDeclaredCell } from '../../cells/source-cells';
import { startControlPlane, type ControlPlane } from '../../envoy/control-plane';
import { TrafficClient } from '../../envoy/traffic-client';
import { releasePorts, reservePorts } from '../../local/ports';
import { waitUntil } from '../../local/wait';
import { packageRoot } from '../../package-root';
import { processesThatStay } from '../support/cells';
import { TestAuthority, writeTls, type Pem } from '../support/certificates';
import { blueprintDocument, cellDocument, serviceDocument } from '../support/documents';
import { startEnvoy, type EnvoyProxy } from '../support/envoy-proxy';
import { startPostgres, type TestPostgres } from '../support/postgres';

const log = pino({ level: process.env.LOG_LEVEL ?? 'silent' });
const spiffe = (path: string): string => `spiffe://shop.example/${path}`;
const controlPlaneName = spiffe('understudy/control-plane');
const hours = 3_600_000;

describe('Cells with identities', function () {
  this.timeout(120_000);
  const dir = mkdtempSync(join(tmpdir(), 'understudy-identity-'));
  /** Root can give each instance a user of its own, who alone can then read its key. */
  const user = process.getuid?.() === 0 ? 'allocate' : undefined;
  const marker = `identity-test-${randomBytes(6).toString('hex')}`;
  const liesFile = join(dir, 'lies.json');
  const authority = new TestAuthority('cells');
  let postgres: TestPostgres;
  let store: ConfigurationStore;
  let identities: CellIdentities;
  let provider: ProcessProvider;
  let manager: SyntheticCellManager;
  let controlPlane: ControlPlane;
  let traffic: TrafficClient;
  let envoy: EnvoyProxy | undefined;
  let port: number;
  let failovers = 0;

  before(async () => {
    [port] = (await reservePorts(1)) as [number];
    chmodSync(dir, 0o711);
    postgres = await startPostgres();
    store = await ConfigurationStore.connect(await postgres.database());
    await store.migrate();
    const own = await makeAuthority({ name: 'authority of the cells', days: 1 });
    const files = { certificateFile: join(dir, 'cells.crt'), privateKeyFile: join(dir, 'cells.key') };
    writeFileSync(files.certificateFile, own.certificate);
    writeFileSync(files.privateKeyFile, own.key, { mode: 0o600 });
    identities = new CellIdentities(
      identitySettingsSchema.parse({
        folder: join(dir, 'identities'),
        issuer: { kind: 'local', ...files },
        client: { kind: 'uri', value: spiffe('understudy/worker') },
        // A busy machine may let a cell wait before it looks at its files.
        shownWithinS: 5,
      }),
    );
    provider = new ProcessProvider({ stateDir: join(dir, 'cells'), graceMs: 2_000, ownTls: identities.ownTls, user });
    manager = new SyntheticCellManager(store, provider, undefined, {}, identities);

    // Where a user of its own can read it, wherever this checkout lies.
    const program = join(dir, 'mtls-cell-server.js');
    copyFileSync(join(packageRoot, 'dist/test/support/mtls-cell-server.js'), program);
    chmodSync(program, 0o644);
    const command = [process.execPath, program, '--port', '{port}', '--name', '{instance}', '--lies', liesFile];
    await store.apply([
      serviceDocument({
        listener: { port },
        healthCheck: { path: '/healthz', intervalMs: 200 },
        tls: {
          trustedCa: { sds: 'cell-authorities' },
          certificate: { sds: 'edge-certificate' },
          subjectAltName: { kind: 'uri', value: spiffe('cell/{cell}') },
        },
      }),
      cellDocument('shop-a'),
      cellDocument('shop-b'),
      blueprintDocument({
        image: { command: [...command, `${marker}/{instance}`] },
        resources: { instances: 1, memoryLimitMib: 64 },
        readiness: { timeoutS: 60 },
        security: { identity: { kind: 'uri', value: spiffe('cell/{cell}') } },
        warmUp: [{ kind: 'connections', perInstance: 2 }],
      }),
    ]);
    await Promise.all(
      ['shop-a', 'shop-b'].map((name) => startDeclaredCell(provider, store, name, undefined, identities)),
    );

    // What the proxy shows the cells is certified by the same authority.
    await identities.provide(
      'edge',
      ['edge'],
      blueprintDocument({ security: { identity: { kind: 'uri', value: spiffe('envoy/{cell}') } } }),
    );
    const edge = identities.filesOf('edge', 'edge');
    const owners = [spiffe('envoy/edge-1')];
    controlPlane = await startControlPlane(
      store,
      {
        xdsAddress: '127.0.0.1:0',
        trafficAddress: '127.0.0.1:0',
        xdsTls: writeTls(dir, 'server', authority.issue({ uris: [controlPlaneName] }), authority.certificate),
        proxies: [{ identity: spiffe('envoy/*'), nodes: ['{1}'] }],
        secrets: [
          {
            name: 'edge-certificate',
            owners,
            certificateFile: edge.certificateFile,
            privateKeyFile: edge.privateKeyFile,
          },
          { name: 'cell-authorities', owners, caFile: edge.caFile },
        ],
        tlsReloadMs: 50,
      },
      log,
    );
    traffic = new TrafficClient(`127.0.0.1:${controlPlane.trafficPort}`);
    const proxy = writeTls(dir, 'proxy', authority.issue({ uris: owners }), authority.certificate);
    const xdsAddress = `127.0.0.1:${controlPlane.xdsPort}`;
    envoy = await startEnvoy('edge-1', xdsAddress, 'DELTA_GRPC', { ...proxy, controlPlaneName });
    await waitUntil(async () => (await ask()).startsWith('shop-'), { withinMs: 30_000, what: 'Envoy serves the shop' });
  });
  after(async () => {
    traffic?.close();
    await envoy?.stop();
    await controlPlane?.close();
    for (const { cell } of await provider.list()) await provider.destroy(cell);
    const left = await processesThatStay(marker);
    for (const pid of left) process.kill(pid, 'SIGKILL');
    await store.close();
    await postgres.stop();
    releasePorts([port]);
    rmSync(dir, { recursive: true, force: true });
    expect(left, 'processes that no record led to').to.deep.equal([]);
  });

  const filesUnder = (folder: string): string[] =>
    readdirSync(folder, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name));
  /** The name of the instance that answered through Envoy, or what else came. */
  const ask = (): Promise<string> =>
    new Promise((resolve) => {
      get({ host: '127.0.0.1', port, path: '/', agent: false }, (response) => {
        let body = '';
        response.on('data', (chunk: Buffer) => (body += chunk.toString()));
        response.on('end', () => resolve(response.statusCode === 200 ? body : `${response.statusCode} ${body}`));
      }).on('error', (error) => resolve(error.message));
    });
  /** What an instance shows whoever comes. */
  const shownAt = (at: number): Promise<X509Certificate> =>
    new Promise((resolve, reject) => {
      const socket = connect({ host: '127.0.0.1', port: at, rejectUnauthorized: false }, () => {
        resolve(socket.getPeerX509Certificate()!);
        socket.destroy();
      });
      socket.once('error', reject);
    });
  const acquire = async (): Promise<CellRecord> => {
    const failover = `failover/shop/shop-a/${(failovers += 1)}`;
    return (await manager.acquire({ failover, source: 'shop-a' })).cell;
  };
  const apply = async (share: [string, number][]) =>
    traffic.applySplit({
      service: 'shop',
      reason: 'test',
      by: 'tester',
      expectedEpoch: (await store.traffic('shop'))!.epoch,
      split: share.map(([cell, shareBp]) => ({ cell, shareBp, coverInstances: 0 })),
      idempotencyKey: randomBytes(6).toString('hex'),
    });

  it('arms a cell that has its own, and serves through Envoy while all certificates are renewed, without a failed request', async () => {
    const cell = await acquire();
    const evidence = await manager.warm(cell);
    const { warm, reasons, protection } = evidence;
    expect(reasons).to.deep.equal([]);
    expect(warm).to.equal(true);
    const [shown] = protection!.identity!;
    expect(shown).to.deep.include({ names: [`uri:${spiffe(`cell/${cell.name}`)}`], answers: [], untrusted: null });
    const { privateKeyFile } = identities.filesOf(cell.name, `${cell.name}-1`);
    const { mode, uid } = statSync(privateKeyFile);
    expect(mode & 0o777).to.equal(0o600);
    const { pid, port: own } = (await provider.observe(cell.name)).instances[0]!;
    if (user) expect(uid).to.equal(700_000 + own);
    // What a person, a log or a history can see of the cell does not hold its key.
    const secret = readFileSync(privateKeyFile, 'utf8').split('\n')[1]!;
    const seen = [evidence, cell, await provider.observe(cell.name)].map((one) => JSON.stringify(one));
    seen.push(...['cmdline', 'environ'].map((what) => readFileSync(`/proc/${pid}/${what}`, 'utf8')));
    seen.push(...filesUnder(join(dir, 'cells')).map((file) => readFileSync(file, 'utf8')));
    expect(seen.filter((text) => text.includes(secret) || text.includes('PRIVATE KEY'))).to.deep.equal([]);

    const counts = new Map<string, number>();
    let isRenewing = true;
    const load = (async () => {
      while (isRenewing) {
        const answer = await ask();
        counts.set(answer, (counts.get(answer) ?? 0) + 1);
      }
    })();
    const served = () => counts.get(`${cell.name}-1`) ?? 0;
    try {
      const { acknowledged } = await apply([
        ['shop-b', 5000],
        [cell.name, 5000],
      ]);
      expect(acknowledged).to.deep.equal(['edge-1']);
      await waitUntil(() => served() > 0, { withinMs: 30_000, what: 'the synthetic cell serves' });
      const before = await identities.certificateOf(cell.name, `${cell.name}-1`);
      const renewed = await manager.identities.renewDue(Date.now() + 13 * hours);
      expect(renewed.map(({ cell: name, error }) => [name, error?.message])).to.have.deep.members(
        ['shop-a', 'shop-b', cell.name].map((name) => [name, undefined]),
      );
      expect(await identities.certificateOf(cell.name, `${cell.name}-1`)).to.not.equal(before);
      // Read back once more: it shows the new one.
      const again = await manager.warm(cell);
      expect(again.reasons).to.deep.equal([]);
      const given = new X509Certificate((await identities.certificateOf(cell.name, `${cell.name}-1`))!);
      expect((await shownAt(own)).fingerprint256).to.equal(given.fingerprint256);
      const then = served();
      await waitUntil(() => served() > then + 5, { withinMs: 30_000, what: 'it serves with the new certificate' });
    } finally {
      isRenewing = false;
      await load;
    }
    expect([...counts.keys()].filter((answer) => !answer.startsWith('shop-'))).to.deep.equal([]);
    await apply([
      ['shop-a', 5000],
      ['shop-b', 5000],
    ]);
    await manager.retire(cell);
    expect(existsSync(privateKeyFile)).to.equal(false);
  });

  /** Where every user can read it: of another cell's own files its user sees nothing. */
  const leaked = ({ certificate, key }: Pem) => {
    const files = { certificateFile: join(dir, 'leaked.crt'), privateKeyFile: join(dir, 'leaked.key') };
    writeFileSync(files.certificateFile, certificate);
    writeFileSync(files.privateKeyFile, key);
    return files;
  };
  const lies: [string, () => unknown, RegExp][] = [
    [
      'answers clients that nobody has certified',
      () => ({ answersAnybody: true }),
      /answers clients without a certificate, its source does not; .*another authority's, its source does not/,
    ],
    [
      "shows another cell's certificate",
      () => {
        const { certificateFile, privateKeyFile } = identities.filesOf('shop-b', 'shop-b-1');
        return leaked({
          certificate: readFileSync(certificateFile, 'utf8'),
          key: readFileSync(privateKeyFile, 'utf8'),
        });
      },
      /shows the certificate of uri:spiffe:\/\/shop\.example\/cell\/shop-b, not its own, uri:.*\/shop-a-understudy-\d/,
    ],
    [
      'shows a certificate that has expired',
      () => {
        // Of another authority as well; that is named, too.
        const validTo = Date.now() - hours / 2;
        const pem = authority.issue({ uris: [spiffe('cell/shop-a-understudy-1')], validTo });
        return leaked(pem);
      },
      /cannot be trusted: it was issued by CN=cells.*shows a certificate that expired at /s,
    ],
  ];
  for (const [what, lie, difference] of lies)
    it(`does not arm a cell that ${what}, and says so`, async () => {
      writeFileSync(liesFile, JSON.stringify(lie()));
      const cell = await acquire();
      try {
        const { warm, reasons } = await manager.warm(cell);
        expect(warm).to.equal(false);
        expect(reasons.join('; ')).to.match(difference);
      } finally {
        await manager.retire(cell);
        rmSync(liesFile, { force: true });
      }
    });
});
