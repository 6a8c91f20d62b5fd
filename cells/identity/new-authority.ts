/** Makes certificates that nobody else has signed: an authority of one's own, and a stranger's that no cell should take. */
import { algorithm, alternativeName, keyPem, newKeys, x509 } from './x509';

export interface SelfSigned {
  /** PEM. */
  certificate: string;
  key: string;
}

export async function makeAuthority({ name, days }: { name: string; days: number }): Promise<SelfSigned> {
  const keys = await newKeys();
  const now = Date.now();
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    name: [{ CN: [name] }],
    keys,
    notBefore: new Date(now - 60_000),
    notAfter: new Date(now + days * 86_400_000),
    signingAlgorithm: algorithm,
    extensions: [
      // It signs certificates of cells, not other authorities.
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { certificate: certificate.toString('pem') + '\n', key: await keyPem(keys.privateKey) };
}

export async function selfSigned(name: string): Promise<SelfSigned> {
  const keys = await newKeys();
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    name: [{ CN: [name] }],
    keys,
    notBefore: new Date(Date.now() - 60_000),
    notAfter: new Date(Date.now() + 365 * 86_400_000),
    signingAlgorithm: algorithm,
    extensions: [alternativeName({ kind: 'dns', value: name })],
  });
  return { certificate: certificate.toString('pem') + '\n', key: await keyPem(keys.privateKey) };
}
