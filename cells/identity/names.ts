/** The names that certificates say: a DNS name or a URI such as a SPIFFE id, of which a cell has exactly its own. */
import type { X509Certificate } from 'node:crypto';

export interface SubjectName {
  kind: 'dns' | 'uri';
  value: string;
}

/** The name of one cell: `{cell}` is filled in. */
export function cellName({ kind, value }: SubjectName, cell: string): SubjectName {
  return { kind, value: value.replaceAll('{cell}', cell) };
}

/** As it stands in evidence and messages: `uri:spiffe://shop.example/cell/shop-a`. */
export function nameText({ kind, value }: SubjectName): string {
  return `${kind}:${value}`;
}

/** Every name that the certificate goes by, as `nameText`; kinds that are no name of a cell keep theirs (`ip address:`). */
export function namesOf(certificate: X509Certificate): string[] {
  return namesIn(certificate.subjectAltName ?? '');
}

/** @param text as Node writes alternative names: `URI:spiffe://a/b, DNS:c`; odd values are JSON strings. */
export function namesIn(text: string): string[] {
  const parts = text.matchAll(/(?:^|, )([A-Za-z ]+):("(?:[^"\\]|\\.)*"|[^,]*)/g);
  return [...parts].map(([, kind, value]) => `${kind!.toLowerCase()}:${value}`);
}
