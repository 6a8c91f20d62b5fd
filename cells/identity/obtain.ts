/** Gets a certificate for a key from an issuer, and takes it only if it is what was asked for. */
import { createPrivateKey, type X509Certificate } from 'node:crypto';
import { certificatesOf, oneLine, whyNotTrusted } from './chain';
import type { CertificateIssuer } from './issuer';
import { nameText, namesOf, type SubjectName } from './names';
import { certificateRequest, keysOf, x509 } from './x509';

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
  const reason = whyNotUsable({ ...wanted, chain, trusted, key });
  if (reason !== undefined)
    throw new Error(`the certificate that was issued for ${nameText(wanted.name)} cannot be used: ${reason}`);
  return { chain: certificatesOf(chain).map(String).join(''), trusted };
}

export interface Usable {
  chain: string;
  trusted: string;
  key: string;
  name: SubjectName;
  /** It must not live longer: nothing but its end makes it worthless. */
  lifetimeS: number;
}

/** By so much the clock of an authority may be ahead of ours. */
const clockMs = 60_000;

/** Why nobody should show this certificate as theirs; undefined if it is good. Never quotes the key. */
export function whyNotUsable({ chain, trusted, key, name, lifetimeS }: Usable, now = Date.now()): string | undefined {
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
  if (Date.parse(leaf.validTo) > now + lifetimeS * 1000 + clockMs)
    return `it holds until ${leaf.validTo}, longer than cells.identity.lifetimeS allows (${lifetimeS} s)`;
  return (
    whyOfNoUse(leaf) ?? whyNotTrusted(certificates, authorities) ?? whyNotTrustedNow(certificates, authorities, now)
  );
}

const purposes = { 'server authentication': '1.3.6.1.5.5.7.3.1', 'client authentication': '1.3.6.1.5.5.7.3.2' };

/** What TLS would hold against the certificate at either end of a connection: cells call one another, too. */
function whyOfNoUse(leaf: X509Certificate): string | undefined {
  if (leaf.ca) return 'it is that of an authority, which could certify others';
  const uses = new x509.X509Certificate(leaf.raw).getExtension(x509.KeyUsagesExtension)?.usages;
  if (uses !== undefined && (uses & x509.KeyUsageFlags.digitalSignature) === 0)
    return 'its key usage leaves out digitalSignature';
  // Without the extension it may be used for anything.
  const extended = leaf.keyUsage as string[] | undefined;
  const missing = Object.entries(purposes).filter(([, id]) => extended?.includes(id) === false);
  if (missing.length === 0) return undefined;
  return `its extended key usage leaves out ${missing.map(([purpose]) => purpose).join(' and ')}`;
}

/** For a chain that is trusted but for its times. */
function whyNotTrustedNow(
  chain: readonly X509Certificate[],
  authorities: readonly X509Certificate[],
  now: number,
): string | undefined {
  const holds = ({ validFrom, validTo }: X509Certificate) => Date.parse(validFrom) <= now && now < Date.parse(validTo);
  if (whyNotTrusted(chain.filter(holds), authorities.filter(holds)) === undefined) return undefined;
  const over = [...chain, ...authorities].filter((one) => !holds(one)).map(({ subject }) => oneLine(subject));
  return `it leads to a trusted authority only by way of one that has expired or not begun: ${over.join('; ')}`;
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
