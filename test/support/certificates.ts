/** Authorities and certificates for tests: real X.509 over P-256, made in a millisecond, written as PEM files. */
import { generateKeyPairSync, randomBytes, sign, type KeyObject } from 'node:crypto';
import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TlsSettings } from '../../blueprints/control-plane-settings';

export interface Pem {
  certificate: string;
  key: string;
}

export interface CertificateNames {
  /** SPIFFE ids. */
  uris?: string[];
  dns?: string[];
  ips?: string[];
  commonName?: string;
  /** Unix milliseconds; default an hour ago and tomorrow. */
  validFrom?: number;
  validTo?: number;
}

/** One element of DER: tag, length, content. */
function der(tag: number, ...parts: Buffer[]): Buffer {
  const content = Buffer.concat(parts);
  const { length } = content;
  if (length < 0x80) return Buffer.concat([Buffer.from([tag, length]), content]);
  const bytes = length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...bytes]), content]);
}

const sequence = (...parts: Buffer[]): Buffer => der(0x30, ...parts);
const octets = (content: Buffer): Buffer => der(0x04, content);
const bits = (content: Buffer): Buffer => der(0x03, Buffer.from([0]), content);
const yes = der(0x01, Buffer.from([0xff]));

function oid(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number);
  const bytes = [40 * first + second];
  for (const arc of rest) {
    const groups = [arc & 0x7f];
    for (let left = arc >> 7; left > 0; left >>= 7) groups.unshift((left & 0x7f) | 0x80);
    bytes.push(...groups);
  }
  return der(0x06, Buffer.from(bytes));
}

const ecdsaWithSha256 = sequence(oid('1.2.840.10045.4.3.2'));
const name = (commonName: string): Buffer =>
  sequence(der(0x31, sequence(oid('2.5.4.3'), der(0x0c, Buffer.from(commonName)))));
/** UTCTime, in which dates before 2050 must be written. */
const time = (at: number): Buffer =>
  der(0x17, Buffer.from(`${new Date(at).toISOString().slice(2, 19).replace(/[-T:]/g, '')}Z`));
const extension = (id: string, value: Buffer, critical = false): Buffer =>
  sequence(oid(id), ...(critical ? [yes] : []), octets(value));

function pem(label: string, bytes: Buffer): string {
  const lines = bytes.toString('base64').match(/.{1,64}/g)!;
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`;
}

export class TestAuthority {
  readonly certificate: string;
  private readonly key: KeyObject;

  constructor(private readonly commonName = 'test authority') {
    const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    this.key = privateKey;
    const extensions = [
      extension('2.5.29.19', sequence(yes), true),
      extension('2.5.29.15', der(0x03, Buffer.from([1, 0x06])), true),
    ];
    this.certificate = this.certify(publicKey, commonName, {}, extensions);
  }

  issue(names: CertificateNames): Pem {
    const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const alternatives = [
      ...(names.uris ?? []).map((uri) => der(0x86, Buffer.from(uri))),
      ...(names.dns ?? []).map((dns) => der(0x82, Buffer.from(dns))),
      ...(names.ips ?? []).map((ip) => der(0x87, Buffer.from(ip.split('.').map(Number)))),
    ];
    const extensions = alternatives.length > 0 ? [extension('2.5.29.17', sequence(...alternatives))] : [];
    const certificate = this.certify(publicKey, names.commonName ?? 'test', names, extensions);
    return { certificate, key: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string };
  }

  private certify(
    publicKey: KeyObject,
    subject: string,
    { validFrom = Date.now() - 3_600_000, validTo = Date.now() + 86_400_000 }: CertificateNames,
    extensions: Buffer[],
  ): string {
    const serial = randomBytes(12);
    // Positive, and without a leading zero that DER would forbid.
    serial[0] = (serial[0]! & 0x7f) | 0x40;
    const toBeSigned = sequence(
      der(0xa0, der(0x02, Buffer.from([2]))),
      der(0x02, serial),
      ecdsaWithSha256,
      name(this.commonName),
      sequence(time(validFrom), time(validTo)),
      name(subject),
      publicKey.export({ type: 'spki', format: 'der' }),
      ...(extensions.length > 0 ? [der(0xa3, sequence(...extensions))] : []),
    );
    const signature = sign('sha256', toBeSigned, this.key);
    return pem('CERTIFICATE', sequence(toBeSigned, ecdsaWithSha256, bits(signature)));
  }
}

/** Where `writeTls` puts certificate, key and authorities. */
export function tlsFiles(dir: string, stem: string): TlsSettings {
  const file = (what: string): string => join(dir, `${stem}.${what}.pem`);
  return { certificateFile: file('certificate'), privateKeyFile: file('key'), caFile: file('ca') };
}

/** Writes the three files, each by rename so that no reader sees half of one. */
export function writeTls(dir: string, stem: string, { certificate, key }: Pem, ca: string): TlsSettings {
  const files = tlsFiles(dir, stem);
  replaceFile(files.certificateFile, certificate);
  replaceFile(files.privateKeyFile, key);
  replaceFile(files.caFile, ca);
  return files;
}

export function replaceFile(file: string, content: string): void {
  writeFileSync(`${file}.new`, content, { mode: 0o600 });
  renameSync(`${file}.new`, file);
}
