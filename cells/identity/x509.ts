/** The library that reads requests and makes certificates, with the one algorithm that we use: ECDSA on P-256. */
// Its dependency injection wants this to be there first.
import 'reflect-metadata';
import * as x509 from '@peculiar/x509';
import { createPrivateKey, createPublicKey, webcrypto } from 'node:crypto';
import type { SubjectName } from './names';

export { x509 };

export const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;

type CryptoKey = webcrypto.CryptoKey;
type CryptoKeyPair = webcrypto.CryptoKeyPair;

x509.cryptoProvider.set(webcrypto);

export function newKeys(): Promise<CryptoKeyPair> {
  return webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
}

/** PKCS#8, PEM. */
export async function keyPem(key: CryptoKey): Promise<string> {
  const bytes = await webcrypto.subtle.exportKey('pkcs8', key);
  return x509.PemConverter.encode(bytes, 'PRIVATE KEY') + '\n';
}

/** Keys that `keyPem` has written. */
export async function keysOf(pem: string): Promise<CryptoKeyPair> {
  const key = createPrivateKey(pem);
  const load = (format: 'pkcs8' | 'spki', bytes: Buffer, use: 'sign' | 'verify') =>
    webcrypto.subtle.importKey(format, bytes, algorithm, true, [use]);
  return {
    privateKey: await load('pkcs8', key.export({ type: 'pkcs8', format: 'der' }), 'sign'),
    publicKey: await load('spki', createPublicKey(key).export({ type: 'spki', format: 'der' }), 'verify'),
  };
}

interface Signing {
  name: string;
  namedCurve?: string;
  hash: string;
}

/** A private key that signs, of whichever kind an authority has: ECDSA or RSA. Throws for others, and for no key. */
export async function signingKey(pem: string): Promise<{ key: CryptoKey; signing: Signing }> {
  const key = createPrivateKey(pem);
  const { namedCurve } = key.asymmetricKeyDetails ?? {};
  const signing = signings[namedCurve ?? key.asymmetricKeyType ?? ''];
  if (!signing)
    throw new Error(`a key of kind ${namedCurve ?? key.asymmetricKeyType}, where P-256, P-384 or RSA is needed`);
  const bytes = key.export({ type: 'pkcs8', format: 'der' });
  const imported = await webcrypto.subtle.importKey('pkcs8', bytes, signing, false, ['sign']);
  return { key: imported, signing };
}

const signings: Record<string, Signing> = {
  prime256v1: algorithm,
  secp384r1: { name: 'ECDSA', namedCurve: 'P-384', hash: 'SHA-384' },
  rsa: { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' },
};

export function alternativeName({ kind, value }: SubjectName): x509.SubjectAlternativeNameExtension {
  return new x509.SubjectAlternativeNameExtension([{ type: kind === 'uri' ? 'url' : 'dns', value }]);
}

/** Asks for a certificate of the name for these keys: PKCS#10, PEM. */
export async function certificateRequest(keys: CryptoKeyPair, name: SubjectName): Promise<string> {
  const request = await x509.Pkcs10CertificateRequestGenerator.create({
    keys,
    signingAlgorithm: algorithm,
    extensions: [alternativeName(name)],
  });
  return request.toString('pem') + '\n';
}
