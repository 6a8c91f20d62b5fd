/** Gets a certificate for a key from an issuer, and takes it only if it is what was asked for. */
import { createPrivateKey, type X509Certificate } from 'node:crypto';
import { certificatesOf, whyNotTrusted } from './chain';
import type { CertificateIssuer } from './issuer';
import { nameText, namesOf, type SubjectName } from './names';
import { certificateRequest, keysOf } from './x509';

export interface Obtained {
  /** PEM, leaf first. */
  chain: string;
  /** PEM: whom the chain leads to. */
  trusted: string;
}

export async function obtainCertificate(
  issuer: CertificateIssuer,
  key: string,
  wanted: { name: SubjectName; lifetimeS: number },
): Promise<Obtained> {
  const request = await certificateRequest(await keysOf(key), wanted.name);
  const [chain, trusted] = [await issuer.issue({ ...wanted, request }), await issuer.trusted()];
  const reason = whyNotUsable({ chain, trusted, key, name: wanted.name });
  if (reason !== undefined)
    throw new Error(`the certificate that was issued for ${nameText(wanted.name)} cannot be used: ${reason}`);
  return { chain: certificatesOf(chain).map(String).join(''), trusted };
}

export interface Usable {
  chain: string;
  trusted: string;
  key: string;
  name: SubjectName;
}

/** Why nobody should show this certificate as theirs; undefined if it is good. Never quotes the key. */
export function whyNotUsable({ chain, trusted, key, name }: Usable, now = Date.now()): string | undefined {
  let certificates: X509Certificate[];
  let authorities: X509Certificate[];
  try {
    [certificates, authorities] = [certificatesOf(chain), certificatesOf(trusted)];
  } catch {
    return 'it is no certificate in PEM';
  }
  const [leaf] = certificates;
  if (!leaf) return 'it is no certificate in PEM';
  if (!leaf.checkPrivateKey(createPrivateKey(key))) return 'it is for another key';
  const names = namesOf(leaf);
  if (names.length !== 1 || names[0] !== nameText(name))
    return `it is for ${names.join(', ') || 'no name'}, not for ${nameText(name)} alone`;
  if (Date.parse(leaf.validTo) <= now) return `it expired on ${leaf.validTo}`;
  if (Date.parse(leaf.validFrom) > now) return `it begins on ${leaf.validFrom}`;
  return whyNotTrusted(certificates, authorities);
}

/** Whether half of the certificate's life, or of that which was asked for if it is shorter, is over. */
export function isDue(chain: string, lifetimeS: number, now = Date.now()): boolean {
  const [leaf] = certificatesOf(chain);
  if (!leaf) return true;
  const endsAt = Date.parse(leaf.validTo);
  const lifeMs = Math.min(lifetimeS * 1000, endsAt - Date.parse(leaf.validFrom));
  return endsAt - now < lifeMs / 2;
}

export function isOver(chain: string, now = Date.now()): boolean {
  const [leaf] = certificatesOf(chain);
  return !leaf || Date.parse(leaf.validTo) <= now;
}
