/** What an issuer of the settings gives, by `understudy ca` too, serves cells: they are asked and given orders by it alone. */
import { expect } from 'chai';
import { execFile, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TLSSocket } from 'node:tls';
import { promisify } from 'node:util';
import { stringify } from 'yaml';
import type { IdentitySettings } from '../../blueprints/identity-settings';
import { loadSettings } from '../../blueprints/settings';
import { CellDataClient, DataUnreachableError, type Order } from '../../cells/data-sync/contract';
import { ExecProvider } from '../../cells/exec-provider';
import { CellIdentities, issuerOf, renewFiles } from '../../cells/identity/cell-identities';
import { identityFilesIn } from '../../cells/identity/identity-files';
import { makeAuthority } from '../../cells/identity/new-authority';
import { packageRoot } from '../../package-root';
import { blueprintDocument } from '../support/documents';

const uriOf = (cell: string) => `spiffe://shop.example/cell/${cell}`;

describe('Certificates of the issuer', function () {
  // A program is started four times.
  this.timeout(180_000);
  let dir: string;
  let settingsFile: string;
  let settings: IdentitySettings;
  let server: Server | undefined;
  /** Who asked, by the name in the certificate, and what. */
  let asked: string[];

  beforeEach(async () => {
    dir = mkdtempSync(join(tmpdir(), 'understudy-ca-'));
    settingsFile = join(dir, 'settings.yaml');
    const issuer = {
      kind: 'local' as const,
      certificateFile: join(dir, 'ca', 'ca.crt'),
      privateKeyFile: join(dir, 'ca', 'ca.key'),
    };
    const all = {
      kafka: { brokers: ['127.0.0.1:9'] },
      temporal: { address: '127.0.0.1:9' },
      postgres: { url: 'postgres://127.0.0.1:9/x' },
      controlPlane: { xdsAddress: '127.0.0.1:9', trafficAddress: '127.0.0.1:9' },
      cells: { identity: { folder: join(dir, 'identities'), issuer } },
    };
    writeFileSync(settingsFile, stringify(all));
    settings = loadSettings(settingsFile).cells.identity!;
    asked = [];
  });
  afterEach(() => {
    server?.close();
    rmSync(dir, { recursive: true, force: true });
  });

  /** As a person runs it; answers what it said. */
  const understudyCa = async (...args: string[]): Promise<string> => {
    const program = join(packageRoot, 'dist/cli/understudy.js');
    return (await promisify(execFile)(process.execPath, [program, 'ca', ...args])).stdout;
  };
  /** The same without a process. */
  const issued = async (cell: string) => {
    mkdirSync(join(dir, cell));
    const name = { kind: 'uri' as const, value: uriOf(cell) };
    await renewFiles(identityFilesIn(join(dir, cell)), name, issuerOf(settings.issuer), 600);
  };
  const makeAuthorityIn = async (folder: string) => {
    const { certificate, key } = await makeAuthority({ name: 'cells', days: 1 });
    mkdirSync(folder);
    writeFileSync(join(folder, 'ca.crt'), certificate);
    writeFileSync(join(folder, 'ca.key'), key, { mode: 0o600 });
  };
  const modeOf = (file: string) => statSync(file).mode & 0o777;

  /** A cell that has what was issued, and asks its callers for as much. */
  async function serve(cell: string): Promise<number> {
    const { certificateFile, privateKeyFile, caFile } = identityFilesIn(join(dir, cell));
    const [cert, key, ca] = [certificateFile, privateKeyFile, caFile].map((file) => readFileSync(file, 'utf8'));
    server = createServer({ cert, key, ca, requestCert: true, rejectUnauthorized: true }, (request, response) => {
      const names = (request.socket as TLSSocket).getPeerCertificate().subjectaltname;
      asked.push(`${names} ${request.method} ${request.url}`);
      const owner = { cell, address: '127.0.0.1', port: 1 };
      response.end(JSON.stringify({ cell, role: 'owner', epoch: 2, owner, position: 7, newestMs: null }));
    });
    await new Promise<void>((resolve) => server!.listen(0, '127.0.0.1', resolve));
    return (server.address() as AddressInfo).port;
  }

  it('come from understudy ca, which overwrites no authority and makes keys for their owner alone', async () => {
    const key = join(dir, 'ca', 'ca.key');
    expect(await understudyCa('init', '--dir', join(dir, 'ca'))).to.contain(key);
    const before = readFileSync(key, 'utf8');
    const refusal = await understudyCa('init', '--dir', join(dir, 'ca')).then(
      () => 'done',
      (error: { stderr: string }) => error.stderr,
    );
    expect(refusal).to.contain(`${key} is there already and stays as it is.`);
    expect(readFileSync(key, 'utf8')).to.equal(before);
    expect(modeOf(key)).to.equal(0o600);

    const issue = () =>
      understudyCa('issue', '--uri', uriOf('shop-a'), '--out', join(dir, 'shop-a'), '--settings', settingsFile);
    expect(await issue()).to.contain(`uri:${uriOf('shop-a')} until `);
    const { certificateFile, privateKeyFile, caFile } = identityFilesIn(join(dir, 'shop-a'));
    expect(modeOf(privateKeyFile)).to.equal(0o600);
    const kept = readFileSync(privateKeyFile, 'utf8');
    const first = readFileSync(certificateFile, 'utf8');
    await issue();
    expect(readFileSync(privateKeyFile, 'utf8'), 'the key stays').to.equal(kept);
    expect(readFileSync(certificateFile, 'utf8')).not.to.equal(first);

    // Another judge than our own, where there is one.
    const args = ['verify', '-CAfile', caFile, '-purpose', 'sslserver', certificateFile];
    const verified = spawnSync('openssl', args, { encoding: 'utf8' });
    if (verified.error === undefined) expect(verified.stdout).to.equal(`${certificateFile}: OK\n`);
  });

  it('let an instance of a command of one’s own be asked over TLS, and only with a certificate', async () => {
    await makeAuthorityIn(join(dir, 'ca'));
    await issued('shop-x');
    const port = await serve('shop-x');
    const instance = { name: 'shop-x-1', address: '127.0.0.1', port, phase: 'ready', tls: true };
    const answer = JSON.stringify({ cell: { cell: 'shop-x', instances: [instance] } });
    const command = ['/bin/sh', '-c', `cat >/dev/null; cat <<'END'\n${answer}\nEND`];
    const { ownTls } = new CellIdentities(settings);
    const phaseBy = async (provider: ExecProvider) => (await provider.observe('shop-x')).instances[0];

    expect(await phaseBy(new ExecProvider({ name: 'test', command, ownTls }))).to.deep.include({ phase: 'ready' });
    expect(asked).to.deep.equal(['DNS:understudy GET /healthz']);
    const without = await phaseBy(new ExecProvider({ name: 'test', command }));
    expect(without?.phase).to.equal('provisioning');
    expect(without?.reason).to.contain('the settings say nothing of cells.identity');
  });

  it('let orders to data reach the cell that they are meant for, and no other that is certified too', async () => {
    await makeAuthorityIn(join(dir, 'ca'));
    await issued('shop-a');
    const port = await serve('shop-a');
    const identities = new CellIdentities(settings);
    const blueprint = blueprintDocument({ security: { identity: { kind: 'uri', value: uriOf('{cell}') } } });
    const client = new CellDataClient('/data-sync', 5_000, (cell) => identities.tlsTo(blueprint, cell));
    const instances = [{ address: '127.0.0.1', port }];
    const promote: Order = { what: 'promote', epoch: 2 };
    expect(await client.order({ name: 'shop-a', instances }, promote)).to.deep.include({ role: 'owner', epoch: 2 });
    expect(asked).to.deep.equal(['DNS:understudy POST /data-sync/promote']);

    const failure = await client.order({ name: 'shop-b', instances }, promote).then(
      () => undefined,
      (error: Error) => error,
    );
    expect(failure).to.be.instanceOf(DataUnreachableError);
    expect(failure?.message).to.contain(`not for uri:${uriOf('shop-b')}`);
    expect(asked, 'nothing was asked of it').to.have.length(1);
    const plain = new CellDataClient('/data-sync', 5_000);
    expect(await plain.isOwner({ name: 'shop-a', instances })).to.equal(false);
  });
});
