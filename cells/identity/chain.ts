/** Whether a certificate leads to an authority that is trusted, and what a PEM text holds. */
import { X509Certificate } from 'node:crypto';

/** Every certificate of the text, in its order. Throws if one cannot be read; a text without any gives none. */
export function certificatesOf(pem: string): X509Certificate[] {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? [];
  return blocks.map((block) => new X509Certificate(block));
}

/**
 * Why the chain, leaf first, does not end at a trusted root; undefined if it does. Times are not looked at. A trusted
 * authority that is no root is not enough: OpenSSL, and with it most programs, then trusts nobody.
 */
export function whyNotTrusted(
  [leaf, ...between]: readonly X509Certificate[],
  trusted: readonly X509Certificate[],
): string | undefined {
  if (!leaf) return 'there is no certificate';
  const seen = new Set<X509Certificate>();
  for (let at = leaf; ;) {
    if (trusted.some((authority) => isIssuedBy(at, authority) && isIssuedBy(authority, authority))) return undefined;
    seen.add(at);
    const next = [...between, ...trusted].find((one) => !seen.has(one) && one.ca && isIssuedBy(at, one));
    if (!next) return endsAt(at, trusted);
    at = next;
  }
}

function endsAt(last: X509Certificate, trusted: readonly X509Certificate[]): string {
  const issuer = oneLine(last.issuer);
  if (!trusted.some(({ raw }) => raw.equals(last.raw)))
    return `it was issued by ${issuer}, which leads to none of the trusted authorities`;
  return `it leads to ${oneLine(last.subject)}, which is trusted but no root: that of ${issuer} has to be trusted, too`;
}

function isIssuedBy(certificate: X509Certificate, issuer: X509Certificate): boolean {
  return certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey);
}

/** Distinguished names have a line per part. */
export function oneLine(name: string): string {
  return name.split('\n').join(', ');
}
