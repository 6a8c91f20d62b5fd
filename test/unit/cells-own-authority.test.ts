/** Authorities that others have written: what is taken of theirs, with plain OpenSSL, and with step-ca where it is installed. */
import { expect } from 'chai';
import { execFileSync, spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { RefusedError } from '../../blueprints/records';
import { request } from '../../cells/http';
import { certificatesOf } from '../../cells/identity/chain';
import { CommandIssuer } from '../../cells/identity/command-issuer';
import type { CertificateIssuer } from '../../cells/identity/issuer';
import type { SubjectName } from '../../cells/identity/names';
import { obtainCertificate } from '../../cells/identity/obtain';
import { algorithm, alternativeName, keyPem, newKeys, x509 } from '../../cells/identity/x509';
import { releasePorts, reservePorts } from '../../local/ports';
import { waitUntil } from '../../local/wait';
import { packageRoot } from '../../package-root';

const uri = (value: string): SubjectName => ({ kind: 'uri', value });
const name = uri('spiffe://shop.example/cell/shop-a');
const us: SubjectName = { kind: 'dns', value: 'understudy' };
const lifetimeS = 86_400;
const isThere = (...command: [string, ...string[]]) =>
  spawnSync(command[0], command.slice(1), { stdio: 'ignore' }).status === 0;
const newKey = async () => keyPem((await newKeys()).privateKey);
const failure = (work: Promise<unknown>): Promise<Error> =>
  work.then(
    () => expect.fail('it was done'),
    (error: Error) => error,
  );

describe('An authority of one’s own', function () {
  this.timeout(60_000);
  let dir: string;
  beforeEach(() => (dir = mkdtempSync(join(tmpdir(), 'understudy-own-ca-'))));
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  /** A cell that asks for certificates, and a caller that shows one, both certified by the issuer: meets the one as the other. */
  async function meet(issuer: CertificateIssuer): Promise<string> {
    const [theirs, ours] = [await newKey(), await newKey()];
    const cell = await obtainCertificate(issuer, theirs, { name, lifetimeS });
    const caller = await obtainCertificate(issuer, ours, { name: us, lifetimeS });
    const closed = { requestCert: true, rejectUnauthorized: true };
    const server = createServer({ key: theirs, cert: cell.chain, ca: cell.trusted, ...closed }, (_, response) =>
      response.end('served'),
    );
    await once(server.listen(0, '127.0.0.1'), 'listening');
    try {
      const tls = { ca: caller.trusted, certificate: caller.chain, key: ours, name };
      const { port } = server.address() as AddressInfo;
      return (await request({ address: '127.0.0.1', port, tls }, '/', { timeoutMs: 20_000 })).body.toString();
    } finally {
      server.close();
    }
  }
  const refused = async (issuer: CertificateIssuer, asked: SubjectName, seconds = lifetimeS): Promise<string> => {
    const error = await failure(obtainCertificate(issuer, await newKey(), { name: asked, lifetimeS: seconds }));
    expect(error, error.message).to.be.instanceOf(RefusedError);
    return error.message;
  };

  describe('is taken at its word only if', () => {
    const now = Date.now();
    type Keys = Awaited<ReturnType<typeof newKeys>>;
    interface Made {
      certificate: x509.X509Certificate;
      keys: Keys;
    }
    const extensionsOf = {
      authority: [new x509.BasicConstraintsExtension(true, undefined, true)],
      cell: [
        alternativeName(name),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth]),
      ],
    };
    interface Change {
      endsInS?: number;
      extensions?: x509.Extension[];
    }
    const certify = async (
      subject: string,
      publicKey: x509.PublicKey | Keys['publicKey'],
      by: Made | Keys,
      change: Change = {},
    ) =>
      x509.X509CertificateGenerator.create({
        subject: [{ CN: [subject] }],
        issuer: 'certificate' in by ? by.certificate.subjectName : [{ CN: [subject] }],
        publicKey,
        notBefore: new Date(now - 3_600_000),
        notAfter: new Date(now + (change.endsInS ?? lifetimeS) * 1000),
        signingKey: 'certificate' in by ? by.keys.privateKey : by.privateKey,
        signingAlgorithm: algorithm,
        extensions: change.extensions ?? extensionsOf.authority,
      });
    const authority = async (subject: string, by?: Made, change: Change = {}): Promise<Made> => {
      const keys = await newKeys();
      return { keys, certificate: await certify(subject, keys.publicKey, by ?? keys, change) };
    };
    const pem = (...made: Made[]) => made.map(({ certificate }) => `${certificate.toString('pem')}\n`).join('');
    let root: Made;
    let between: Made;
    before(async () => {
      root = await authority('root');
      between = await authority('between', root);
    });
    /** Why what the intermediate signs is not taken; undefined if it is. */
    const reason = async (change: Change, more: { chain?: string; trusted?: string; by?: Made } = {}) => {
      const by = more.by ?? between;
      const issuer: CertificateIssuer = {
        issue: async ({ request: asked }) => {
          const { publicKey: key } = new x509.Pkcs10CertificateRequest(asked);
          const extensions = change.extensions ?? extensionsOf.cell;
          return `${(await certify('cell', key, by, { ...change, extensions })).toString('pem')}\n${more.chain ?? pem(by)}`;
        },
        trusted: () => Promise.resolve(more.trusted ?? pem(root)),
      };
      const words = `the certificate that was issued for uri:${name.value} cannot be used: `;
      return obtainCertificate(issuer, await newKey(), { name, lifetimeS }).then(
        () => undefined,
        ({ message }: Error) => message.replace(words, ''),
      );
    };
    const withUse = (...others: x509.Extension[]) => ({ extensions: [alternativeName(name), ...others] });

    it('its certificate lives no longer than was asked for', async () => {
      expect(await reason({})).to.equal(undefined);
      expect(await reason({ endsInS: 3600 })).to.equal(undefined);
      expect(await reason({ endsInS: 2 * lifetimeS })).to.match(
        /^it holds until .*, longer than cells\.identity\.lifetimeS allows \(86400 s\)$/,
      );
    });

    it('it can be shown at either end of a connection, and certifies nobody else', async () => {
      const server = new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]);
      expect(await reason(withUse(server))).to.equal('its extended key usage leaves out client authentication');
      const client = new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.clientAuth]);
      expect(await reason(withUse(client))).to.equal('its extended key usage leaves out server authentication');
      const encipherment = new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyEncipherment, true);
      expect(await reason(withUse(encipherment))).to.equal('its key usage leaves out digitalSignature');
      expect(await reason(withUse(...extensionsOf.authority))).to.contain('it is that of an authority');
      expect(await reason(withUse()), 'nothing said: good for all').to.equal(undefined);
    });

    it('it leads to a root that is trusted, by way of authorities that hold', async () => {
      expect(await reason({}, { chain: '' })).to.equal(
        'it was issued by CN=between, which leads to none of the trusted authorities',
      );
      expect(await reason({}, { chain: '', trusted: pem(root, between) })).to.equal(undefined);
      expect(await reason({}, { trusted: pem(between) })).to.equal(
        'it leads to CN=between, which is trusted but no root: that of CN=root has to be trusted, too',
      );
      const over = await authority('over', root, { endsInS: -60 });
      expect(await reason({}, { by: over })).to.contain('by way of one that has expired or not begun: CN=over');
    });
  });

  it('is asked for few certificates at a time, however many cells wait for theirs', async () => {
    const folder = join(dir, 'running');
    const seen = join(dir, 'seen');
    // Says how many of its like are at work when it has begun.
    const script = 'mkdir -p "$0"; : >"$0/$$"; ls "$0" | wc -l >>"$1"; cat >/dev/null; rm "$0/$$"';
    const issuer = new CommandIssuer({ command: ['/bin/sh', '-c', script, folder, seen], trustFile: seen });
    await Promise.all(Array.from({ length: 20 }, () => issuer.issue({ request: '', name, lifetimeS })));
    const counts = readFileSync(seen, 'utf8').trim().split('\n').map(Number);
    expect(counts).to.have.length(20);
    expect(Math.max(...counts)).to.be.at.most(4);
  });

  it('can be plain OpenSSL, by the command in examples/openssl', async function () {
    if (!isThere('openssl', 'version')) {
      this.test!.title += ' (skipped: openssl is not installed)';
      return this.skip();
    }
    const file = (what: string) => join(dir, what);
    const [certificate, key, passphrase] = [file('ca.crt'), file('ca.key'), file('ca.passphrase')];
    writeFileSync(passphrase, 'a passphrase\n', { mode: 0o600 });
    const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-passout', `file:${passphrase}`];
    const out = ['-keyout', key, '-out', certificate, '-days', '2', '-subj', '/CN=Cells'];
    execFileSync('openssl', ['req', '-x509', ...curve, ...out, '-addext', 'keyUsage=critical,keyCertSign'], {
      stdio: 'pipe',
    });
    const issuerWith = (keyFile: string) =>
      new CommandIssuer({
        command: ['/bin/sh', join(packageRoot, 'examples', 'openssl', 'sign.sh')],
        environment: { CA_CERTIFICATE: certificate, CA_KEY: keyFile, CA_PASSPHRASE_FILE: passphrase },
        trustFile: certificate,
      });
    const issuer = issuerWith(key);
    expect(await meet(issuer)).to.equal('served');
    expect(await refused(issuer, uri('spiffe://other.example/cell/a'))).to.match(
      /other\.example.* is no name of a cell$/,
    );
    expect(await refused(issuer, uri(`${name.value},DNS:everything`))).to.contain('has characters that no name');
    expect(await refused(issuer, name, 3600)).to.contain('whole days only');
    // What may go right the next time is no refusal.
    const away = await failure(issuerWith(file('nowhere')).issue({ request: '', name, lifetimeS }));
    expect(away).not.to.be.instanceOf(RefusedError);
  });

  it('can be step-ca, by the command in examples/step-ca', async function () {
    if (!isThere('step-ca', 'version') || !isThere('step', 'version')) {
      this.test!.title += ' (skipped: step-ca and step are not on PATH)';
      return this.skip();
    }
    const [port] = (await reservePorts(1)) as [number];
    const example = (what: string) => join(packageRoot, 'examples', 'step-ca', what);
    const passwordFile = join(dir, 'password');
    writeFileSync(passwordFile, 'a password\n', { mode: 0o600 });
    const STEPPATH = join(dir, 'ca');
    const step = (...args: string[]) =>
      execFileSync('step', args, { env: { PATH: process.env['PATH'], HOME: dir, STEPPATH }, stdio: 'pipe' });
    const passwords = ['--password-file', passwordFile, '--provisioner-password-file', passwordFile];
    const reached = ['--dns', '127.0.0.1', '--address', `127.0.0.1:${port}`];
    const kind = ['--deployment-type', 'standalone', '--name', 'Shop', '--provisioner', 'understudy'];
    step('ca', 'init', ...kind, ...reached, ...passwords);
    const configuration = join(STEPPATH, 'config', 'ca.json');
    const update = ['ca', 'provisioner', 'update', 'understudy', '--ca-config', configuration];
    step(...update, '--x509-template', example('cells.tpl'), '--x509-max-dur', '24h', '--disable-renewal');
    const trustFile = join(STEPPATH, 'certs', 'root_ca.crt');
    const issuer = new CommandIssuer({
      command: ['python3', example('sign.py')],
      environment: {
        STEP_CA_URL: `https://127.0.0.1:${port}`,
        STEP_ROOT: trustFile,
        STEP_PROVISIONER: 'understudy',
        STEP_PROVISIONER_PASSWORD_FILE: passwordFile,
      },
      trustFile,
    });
    let authority: ChildProcess | undefined;
    try {
      const unreachable = await failure(issuer.issue({ request: '', name, lifetimeS }));
      expect(unreachable.message).to.contain('connection refused');
      expect(unreachable).not.to.be.instanceOf(RefusedError);

      authority = spawn('step-ca', [configuration, '--password-file', passwordFile], { stdio: 'ignore' });
      const served = await waitUntil(() => meet(issuer), { withinMs: 40_000, what: 'step-ca signs' });
      expect(served).to.equal('served');
      const { chain } = await obtainCertificate(issuer, await newKey(), { name, lifetimeS: 3600 });
      const [leaf, ...between] = certificatesOf(chain);
      expect(between.map(({ subject }) => subject)).to.deep.equal(['O=Shop\nCN=Shop Intermediate CA']);
      expect(Date.parse(leaf!.validTo)).to.be.at.most(Date.now() + 3_660_000);
      expect(await refused(issuer, uri('spiffe://other.example/cell/a'))).to.contain('is no name of a cell');
      expect(await refused(issuer, { kind: 'dns', value: 'shop.example' })).to.contain('is no name of a cell');
      expect(await refused(issuer, name, 2 * lifetimeS)).to.contain('more than the authorized maximum');
    } finally {
      if (authority && authority.exitCode === null && authority.kill()) await once(authority, 'exit');
      releasePorts([port]);
    }
  });
});
