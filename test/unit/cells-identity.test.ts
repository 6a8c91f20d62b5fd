/** Identities of cells: who issues a certificate and what is taken of it, and what is found out about a cell that is met. */
import { expect } from 'chai';
import { generateKeyPairSync } from 'node:crypto';
import { chmodSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer as createHttp } from 'node:http';
import { createServer as createHttps, type ServerOptions } from 'node:https';
import { connect, createServer as createTcp, type AddressInfo, type Server } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { identitySettingsSchema } from '../../blueprints/identity-settings';
import { RefusedError } from '../../blueprints/records';
import { CellIdentities } from '../../cells/identity/cell-identities';
import { certificatesOf, whyNotTrusted } from '../../cells/identity/chain';
import { CommandIssuer } from '../../cells/identity/command-issuer';
import type { CertificateIssuer } from '../../cells/identity/issuer';
import { LocalIssuer } from '../../cells/identity/local-issuer';
import { namesOf, type SubjectName } from '../../cells/identity/names';
import { makeAuthority } from '../../cells/identity/new-authority';
import { obtainCertificate } from '../../cells/identity/obtain';
import { keyPem, newKeys } from '../../cells/identity/x509';
import { sourceNotes, weakerIdentity } from '../../cells/protection/compare-identity';
import { readIdentity } from '../../cells/protection/read-identity';
import { TestAuthority, type CertificateNames } from '../support/certificates';
import { blueprintDocument } from '../support/documents';

const name: SubjectName = { kind: 'uri', value: 'spiffe://shop/cell/shop-a' };
const failure = (work: Promise<unknown>): Promise<Error> =>
  work.then(
    () => expect.fail('it was done'),
    (error: Error) => error,
  );

describe('Identities of cells', function () {
  this.timeout(30_000);
  let dir: string;
  beforeEach(() => (dir = mkdtempSync(join(tmpdir(), 'understudy-ca-'))));
  afterEach(() => rmSync(dir, { recursive: true, force: true }));
  const file = (what: string, text: string): string => {
    writeFileSync(join(dir, what), text, { mode: 0o600 });
    return join(dir, what);
  };
  const localAuthority = async () => {
    const { certificate, key } = await makeAuthority({ name: 'cells', days: 1 });
    return { certificateFile: file('ca.crt', certificate), privateKeyFile: file('ca.key', key) };
  };
  const newKey = async () => keyPem((await newKeys()).privateKey);

  describe('are issued', () => {
    it('by an authority of their own, under one name, for both sides of mutual TLS, and no longer than it lives', async () => {
      const issuer = new LocalIssuer(await localAuthority());
      const { chain, trusted } = await obtainCertificate(issuer, await newKey(), { name, lifetimeS: 600 });
      const [leaf, ...between] = certificatesOf(chain);
      expect(between).to.deep.equal([]);
      expect(namesOf(leaf!)).to.deep.equal([`uri:${name.value}`]);
      expect(leaf!.ca).to.equal(false);
      expect(leaf!.keyUsage).to.deep.equal(['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2']);
      expect(Date.parse(leaf!.validTo)).to.be.at.most(Date.now() + 600_000);
      expect(whyNotTrusted([leaf!], certificatesOf(trusted))).to.equal(undefined);
      const long = await obtainCertificate(issuer, await newKey(), { name, lifetimeS: 1e8 });
      const authority = certificatesOf(trusted)[0]!;
      expect(Date.parse(certificatesOf(long.chain)[0]!.validTo)).to.be.at.most(Date.parse(authority.validTo));
    });

    it('by no authority whose key others can read, whose key is another, or that is none', async () => {
      const files = await localAuthority();
      const wanted = { name, lifetimeS: 600 };
      const refusal = async (change: Partial<typeof files>) =>
        failure(obtainCertificate(new LocalIssuer({ ...files, ...change }), await newKey(), wanted));
      chmodSync(files.privateKeyFile, 0o644);
      expect((await refusal({})).message).to.match(/ca\.key can be read by every user of the machine: chmod 600 it$/);
      chmodSync(files.privateKeyFile, 0o600);
      const another = file('other.key', await newKey());
      expect((await refusal({ privateKeyFile: another })).message).to.contain('it is that of another certificate');
      const leaf = file('leaf.crt', new TestAuthority().issue({ dns: ['x'] }).certificate);
      expect((await refusal({ certificateFile: leaf })).message).to.contain("is no authority's");
      expect((await refusal({ certificateFile: join(dir, 'nowhere') })).message).to.contain('(ENOENT)');
    });

    it('by a command of the user, and taken only if they are what was asked for', async () => {
      const authority = new TestAuthority();
      const trustFile = file('trust.crt', authority.certificate);
      const say = (pem: string): CertificateIssuer => {
        const script = `process.stdin.resume().on('end', () => process.stdout.write(require('fs').readFileSync(process.env.ANSWER)))`;
        return new CommandIssuer({
          command: [process.execPath, '-e', script],
          environment: { ANSWER: file('answer.pem', pem) },
          trustFile,
        });
      };
      const { certificate, key } = authority.issue({ uris: [name.value] });
      const own = await obtainCertificate(say(certificate), key, { name, lifetimeS: 86_400 });
      expect(own.chain.trim()).to.equal(certificate.trim());
      const reason = async (names: CertificateNames, from = authority) => {
        const pem = from.issue(names);
        return (await failure(obtainCertificate(say(pem.certificate), pem.key, { name, lifetimeS: 86_400 }))).message;
      };
      expect(await reason({ uris: ['spiffe://shop/cell/shop-b'] })).to.match(
        /it is for uri:.*shop-b, not for uri:.*shop-a alone/,
      );
      expect(await reason({ uris: [name.value], dns: ['everything'] })).to.contain('dns:everything');
      expect(await reason({ uris: [name.value], validTo: Date.now() - 1000 })).to.contain('it expired on');
      expect(await reason({ uris: [name.value] }, new TestAuthority('nobody'))).to.contain(
        'which leads to none of the trusted',
      );
      const wrongKey = await failure(obtainCertificate(say(certificate), await newKey(), { name, lifetimeS: 86_400 }));
      expect(wrongKey.message).to.contain('it is for another key');
      const refusing = new CommandIssuer({
        command: [process.execPath, '-e', 'console.error("not you"); process.exit(3)'],
        trustFile,
      });
      const refusal = await failure(refusing.issue({ request: '', name, lifetimeS: 60 }));
      expect(refusal).to.be.instanceOf(RefusedError);
      expect(refusal.message).to.contain('refused: not you');
    });

    it('by an RSA intermediate of the user, whose chain leads to the root', async function () {
      // Made by the one program that everybody makes their own authorities with.
      const { execFileSync } = await import('node:child_process');
      const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: dir, stdio: 'pipe' });
      try {
        openssl('version');
      } catch {
        return this.skip();
      }
      const pem = (bits: number) =>
        generateKeyPairSync('rsa', { modulusLength: bits }).privateKey.export({
          type: 'pkcs8',
          format: 'pem',
        }) as string;
      const rootKey = file('root.key', pem(2048));
      const privateKeyFile = file('between.key', pem(2048));
      openssl('req', '-x509', '-new', '-key', rootKey, '-subj', '/O=Shop/CN=root', '-days', '2', '-out', 'root.crt');
      openssl('req', '-new', '-key', privateKeyFile, '-subj', '/O=Shop/CN=between', '-out', 'between.csr');
      const extensions = file('ext', 'basicConstraints=critical,CA:true,pathlen:0\nsubjectKeyIdentifier=hash\n');
      const signing = ['-CA', 'root.crt', '-CAkey', rootKey, '-CAcreateserial', '-days', '2', '-extfile', extensions];
      openssl('x509', '-req', '-in', 'between.csr', ...signing, '-out', 'between.crt');
      const issuer = new LocalIssuer({
        certificateFile: join(dir, 'between.crt'),
        privateKeyFile,
        trustFile: join(dir, 'root.crt'),
      });
      const { chain } = await obtainCertificate(issuer, await newKey(), { name, lifetimeS: 600 });
      expect(certificatesOf(chain)).to.have.length(2);
      file('chain.crt', chain);
      // Judged by somebody else's eyes, too.
      openssl('verify', '-CAfile', 'root.crt', '-untrusted', 'chain.crt', 'chain.crt');
    });
  });

  describe('lie in files', () => {
    const blueprint = blueprintDocument({
      security: { identity: { kind: 'uri', value: 'spiffe://shop/cell/{cell}' } },
    });
    const make = async (change: Record<string, unknown> = {}) =>
      new CellIdentities(
        identitySettingsSchema.parse({
          folder: join(dir, 'cells'),
          issuer: { kind: 'local', ...(await localAuthority()) },
          ...change,
        }),
      );
    const hour = 3_600_000;

    it('of which the key is for the cell alone, and are renewed at half of their life', async () => {
      const identities = await make();
      const { files, issued } = await identities.provide('shop-a', ['shop-a-1'], blueprint);
      expect(issued).to.deep.equal(['shop-a-1']);
      const { privateKeyFile, certificateFile } = files['shop-a-1']!;
      expect(statSync(privateKeyFile).mode & 0o777).to.equal(0o600);
      const [key, first] = [readFileSync(privateKeyFile, 'utf8'), readFileSync(certificateFile, 'utf8')];
      expect(await identities.renewDue('shop-a', blueprint, Date.now() + 11 * hour)).to.deep.equal([]);
      expect(await identities.renewDue('shop-a', blueprint, Date.now() + 13 * hour)).to.deep.equal(['shop-a-1']);
      expect(readFileSync(certificateFile, 'utf8')).to.not.equal(first);
      expect(readFileSync(privateKeyFile, 'utf8')).to.equal(key);
      expect(readdirSync(join(dir, 'cells/shop-a/shop-a-1')).sort()).to.deep.equal(['ca.crt', 'tls.crt', 'tls.key']);
    });

    it('that fit together, also if several workers make them at the same moment', async () => {
      const identities = await make();
      await Promise.all([1, 2, 3, 4].map(() => identities.provide('shop-a', ['shop-a-1', 'shop-a-2'], blueprint)));
      expect((await identities.provide('shop-a', ['shop-a-1', 'shop-a-2'], blueprint)).issued).to.deep.equal([]);
    });

    it('that are removed with the cell, or once they are of use to nobody', async () => {
      const identities = await make();
      await identities.provide('shop-a', ['shop-a-1'], blueprint);
      await identities.removeIfOver('shop-a');
      expect(await identities.cells()).to.deep.equal(['shop-a']);
      await identities.removeIfOver('shop-a', Date.now() + 25 * hour);
      expect(await identities.cells()).to.deep.equal([]);
    });

    it('unless certificates cannot live as long as the blueprint wants', async () => {
      const identities = await make({ lifetimeS: 1000 });
      const refusal = await failure(identities.provide('shop-a', ['shop-a-1'], blueprint));
      expect(refusal).to.be.instanceOf(RefusedError);
      expect(refusal.message).to.contain('600 s cannot be kept by certificates of 1000 s');
    });
  });

  describe('are read back', () => {
    const authority = new TestAuthority('cells');
    const ours = authority.issue({ dns: ['understudy'] });
    const tls = { ca: authority.certificate, certificate: ours.certificate, key: ours.key };
    const servers: Server[] = [];
    afterEach(() => servers.splice(0).forEach((server) => server.close()));

    const place = async (server: Server) => {
      servers.push(server);
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      return { name: 'shop-a-1', address: '127.0.0.1', port: (server.address() as AddressInfo).port };
    };
    const cell = (names: CertificateNames, options: ServerOptions = {}, from = authority) => {
      const { certificate: cert, key } = from.issue(names);
      const closed = { requestCert: true, rejectUnauthorized: true, ca: authority.certificate };
      return createHttps({ cert, key, ...closed, ...options }, (_, response) => response.end('ok'));
    };
    const own = { uris: [name.value] };
    const read = async (server: Server) => readIdentity({ instance: await place(server), path: '/healthz', tls });
    const demanded = { name, minRemainingS: 600 };
    /** What is held against the cell; its source does everything right. */
    const held = async (server: Server) => {
      const [found, source] = [await read(server), await read(cell(own))];
      return weakerIdentity([found], [source], demanded).map(({ what, text }) => `${what}: ${text}`);
    };

    it('of a cell that is who it should be and answers nobody else', async () => {
      const facts = await read(cell(own));
      expect(facts).to.deep.include({ names: [`uri:${name.value}`], untrusted: null, answers: [], unseen: [] });
      expect(facts.protocol).to.equal('TLSv1.3');
      expect(weakerIdentity([facts], [facts], demanded)).to.deep.equal([]);
    });

    it('of one that answers without TLS, on the same port or altogether', async () => {
      const [inner, plain] = [await place(cell(own)), await place(createHttp((_, response) => response.end('ok')))];
      const both = createTcp((socket) => {
        socket
          .on('error', () => undefined)
          .once('data', (first) => {
            // 22 begins a handshake of TLS.
            const onward = connect((first[0] === 22 ? inner : plain).port, '127.0.0.1');
            onward.on('error', () => socket.destroy()).write(first);
            socket.pipe(onward).pipe(socket);
          });
      });
      expect(await held(both)).to.deep.equal(['answers plain: answers clients without TLS, its source does not']);
      expect(await held(createHttp((_, response) => response.end('ok')))).to.deep.equal([
        'tls: speaks no TLS, the blueprint gives it an identity',
        'answers plain: answers clients without TLS, its source does not',
      ]);
    });

    it('of one that answers whoever has no certificate, or one of another authority', async () => {
      expect(await held(cell(own, { requestCert: false, rejectUnauthorized: false }))).to.deep.equal([
        'answers without-certificate: answers clients without a certificate, its source does not',
        "answers foreign-certificate: answers clients with a certificate of another authority's, its source does not",
      ]);
      const anyCertificate = createHttps(
        { ...authority.issue(own), cert: '', requestCert: true, rejectUnauthorized: false },
        (request, response) => {
          const shown = (request.socket as TLSSocket).getPeerCertificate();
          response.writeHead(Object.keys(shown).length > 0 ? 200 : 403).end();
        },
      );
      const { certificate: cert, key } = authority.issue(own);
      anyCertificate.setSecureContext({ cert, key });
      expect(await held(anyCertificate)).to.deep.equal([
        "answers foreign-certificate: answers clients with a certificate of another authority's, its source does not",
      ]);
    });

    it('of one that refuses strangers in words of HTTP, as some servers do', async () => {
      const worded = createHttps({ requestCert: true, rejectUnauthorized: false }, (request, response) => {
        const isKnown = (request.socket as TLSSocket).authorized;
        response.writeHead(isKnown ? 200 : 400).end('No required SSL certificate was sent');
      });
      const { certificate: cert, key } = authority.issue(own);
      worded.setSecureContext({ cert, key, ca: authority.certificate });
      expect(await held(worded)).to.deep.equal([]);
    });

    it('of one that shows the certificate of another cell, of several, of nobody, or of another authority', async () => {
      expect(await held(cell({ uris: ['spiffe://shop/cell/shop-b'] }))).to.deep.equal([
        `identity: shows the certificate of uri:spiffe://shop/cell/shop-b, not its own, uri:${name.value}`,
      ]);
      expect(await held(cell({ ...own, dns: ['*.shop'] }))).to.deep.equal([
        'identity: has a certificate that is also for dns:*.shop',
      ]);
      expect(await held(cell({}))).to.deep.equal([
        `identity: shows the certificate of nobody, not its own, uri:${name.value}`,
      ]);
      expect(await held(cell(own, {}, new TestAuthority('somebody')))).to.deep.equal([
        'authority: shows a certificate that cannot be trusted: it was issued by CN=somebody, which leads to none of the trusted authorities',
      ]);
    });

    it('of one whose certificate has expired, expires soon or has not begun', async () => {
      const [expired] = await held(cell({ ...own, validTo: Date.now() - 60_000 }));
      expect(expired).to.match(/^lifetime: shows a certificate that expired at /);
      const [soon] = await held(cell({ ...own, validTo: Date.now() + 300_000 }));
      expect(soon).to.match(/^lifetime: shows a certificate that holds for \d+ s more, the blueprint wants 600 s$/);
      const [early] = await held(cell({ ...own, validFrom: Date.now() + 600_000 }));
      expect(early).to.match(/^lifetime: shows a certificate that begins at /);
    });

    it('of one that speaks an older TLS than its source', async () => {
      expect(await held(cell(own, { maxVersion: 'TLSv1.2' }))).to.deep.equal([
        'tls version: speaks TLSv1.2, its source TLSv1.3',
      ]);
    });

    it('of none that cannot be reached: what is not seen is not as good', async () => {
      const closed = createTcp();
      const instance = await place(closed);
      await new Promise((resolve) => closed.close(resolve));
      const facts = await readIdentity({ instance, path: '/healthz', tls });
      expect(weakerIdentity([facts], [], demanded)[0]!.text).to.match(
        /^could not be read: its certificate \(.*ECONNREFUSED/,
      );
      // Of the source it is only a limit of the comparison: it is predicted to fail.
      expect(sourceNotes([facts])[0]).to.match(/^of the source's shop-a-1 could not be read/);
    });
  });
});
