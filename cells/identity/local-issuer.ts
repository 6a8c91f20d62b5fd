/** Signs certificates with an authority's key that lies in a file: the user's own intermediate, or one made by `understudy ca init`. */
import { readFile, stat } from 'node:fs/promises';
import { createPrivateKey } from 'node:crypto';
import { RefusedError } from '../../blueprints/records';
import { certificatesOf } from './chain';
import type { CertificateIssuer, CertificateWanted } from './issuer';
import { alternativeName, signingKey, x509 } from './x509';

export interface LocalIssuerOptions {
  /** The authority's certificate, and after it what lies between it and the root. */
  certificateFile: string;
  privateKeyFile: string;
  /** Whom the cells' certificates are to lead to. Left out: the authority itself. */
  trustFile?: string | undefined;
}

/** Clocks of other machines may be behind by as much. */
const backdatedMs = 60_000;

export class LocalIssuer implements CertificateIssuer {
  constructor(private readonly options: LocalIssuerOptions) {}

  async issue({ request, name, lifetimeS }: CertificateWanted): Promise<string> {
    const asked = new x509.Pkcs10CertificateRequest(request);
    if (!(await asked.verify())) throw new RefusedError('the request is not signed by the key that it is for');
    const { certificate, pem, key, signing } = await this.authority();
    const now = Date.now();
    const notAfter = Math.min(now + lifetimeS * 1000, certificate.notAfter.getTime());
    const authorityKey = certificate.getExtension(x509.SubjectKeyIdentifierExtension)?.keyId;
    const made = await x509.X509CertificateGenerator.create({
      publicKey: asked.publicKey,
      subject: [{ CN: [name.value.slice(0, 64)] }],
      issuer: certificate.subjectName,
      notBefore: new Date(Math.max(now - backdatedMs, certificate.notBefore.getTime())),
      notAfter: new Date(notAfter),
      signingKey: key,
      signingAlgorithm: signing,
      extensions: [
        // The name that we know it should have, whatever the request says.
        alternativeName(name),
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth]),
        await x509.SubjectKeyIdentifierExtension.create(asked.publicKey),
        authorityKey === undefined
          ? await x509.AuthorityKeyIdentifierExtension.create(certificate.publicKey)
          : new x509.AuthorityKeyIdentifierExtension(authorityKey),
      ],
    });
    // A root is with those who trust it already.
    const between = certificatesOf(pem).filter((one) => one.subject !== one.issuer);
    return [made.toString('pem') + '\n', ...between.map(String)].join('');
  }

  async trusted(): Promise<string> {
    const { trustFile, certificateFile } = this.options;
    return readText(trustFile ?? certificateFile);
  }

  private async authority() {
    const { certificateFile, privateKeyFile } = this.options;
    const pem = await readText(certificateFile);
    const [own] = certificatesOf(pem);
    if (!own) throw new RefusedError(`${certificateFile} holds no certificate in PEM`);
    if (!own.ca) throw new RefusedError(`${certificateFile} begins with a certificate that is no authority's`);
    if (Date.parse(own.validTo) <= Date.now())
      throw new RefusedError(`${certificateFile} expired on ${own.validTo}: renew the authority`);
    const { mode } = await stat(privateKeyFile).catch(unread(privateKeyFile));
    if ((mode & 0o007) !== 0)
      throw new RefusedError(`${privateKeyFile} can be read by every user of the machine: chmod 600 it`);
    const keyText = await readText(privateKeyFile);
    try {
      const { key, signing } = await signingKey(keyText);
      if (!own.checkPrivateKey(createPrivateKey(keyText))) throw new Error('it is that of another certificate');
      return { certificate: new x509.X509Certificate(own.raw), pem, key, signing };
    } catch (error) {
      throw new RefusedError(`${privateKeyFile} is not a key for ${certificateFile}: ${(error as Error).message}`);
    }
  }
}

function readText(file: string): Promise<string> {
  return readFile(file, 'utf8').catch(unread(file));
}

/** A file that cannot be read now may be there at the next attempt: it is being replaced, or a volume is late. */
function unread(file: string) {
  return (error: NodeJS.ErrnoException): never => {
    throw new Error(`${file} cannot be read (${error.code})`);
  };
}
