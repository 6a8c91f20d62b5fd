/** Who a certificate says that its holder is, and the patterns by which settings speak of identities. */
import type { Peer } from '../xds/gate';

/**
 * The identities a verified peer certificate speaks for: its SPIFFE id alone if it has one, else its DNS names. None for
 * a plaintext connection, or a certificate without either: the subject's common name is nobody's identity.
 */
export function identitiesOf(peer: Pick<Peer, 'getAuthContext'>): string[] {
  const names = peer.getAuthContext().sslPeerCertificate?.subjectaltname;
  return names === undefined ? [] : identitiesIn(names);
}

/** @param names as node writes subject alternative names: `URI:spiffe://a/b, DNS:c`; odd values are JSON strings. */
export function identitiesIn(names: string): string[] {
  const uris: string[] = [];
  const dns: string[] = [];
  for (const [, kind, quoted, plain] of names.matchAll(/(?:^|, )([A-Za-z ]+):(?:("(?:[^"\\]|\\.)*")|([^,]*))/g)) {
    // A value that had to be quoted holds a comma, a quote or worse: no name that anybody should be known by.
    if (quoted !== undefined) continue;
    if (kind === 'URI') uris.push(plain!);
    if (kind === 'DNS') dns.push(plain!.toLowerCase());
  }
  if (uris.length > 0) {
    // "An X.509 SVID MUST contain exactly one URI SAN" (SPIFFE X509-SVID, section 2).
    return uris.length === 1 && /^spiffe:\/\/[a-z0-9._-]+(\/[A-Za-z0-9._-]+)*$/.test(uris[0]!) ? uris : [];
  }
  return dns.filter((name) => /^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$/.test(name));
}

/** What each `*` of the pattern stands for in the text; undefined if the text is not of the pattern. */
export function matchPattern(pattern: string, text: string): string[] | undefined {
  return toRegExp(pattern).exec(text)?.slice(1);
}

export function matchesAny(patterns: readonly string[], text: string): boolean {
  return patterns.some((pattern) => toRegExp(pattern).test(text));
}

/** Whether the text is of the pattern, in which `{1}`, `{2}` and so on are what the stars of another match stood for. */
export function matchesTemplate(template: string, stars: readonly string[], text: string): boolean {
  return toRegExp(template, stars).test(text);
}

/** Only the stars of the settings are stars: what came out of a certificate is compared as it stands. */
function toRegExp(pattern: string, stars: readonly string[] = []): RegExp {
  const parts = pattern.split(/(\*\*|\*|\{\d\})/).map((part) => {
    if (part === '**') return '(.*)';
    if (part === '*') return '([^/]+)';
    const star = /^\{(\d)\}$/.exec(part);
    // A star that the identity's pattern does not have is no text at all: nothing is of such a template.
    if (star) return stars[Number(star[1]) - 1]?.replace(special, '\\$&') ?? '[^\\s\\S]';
    return part.replace(special, '\\$&');
  });
  return new RegExp(`^${parts.join('')}$`, 's');
}

const special = /[.*+?^${}()|[\]\\/]/g;
