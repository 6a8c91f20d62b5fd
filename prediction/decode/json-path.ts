/** Paths into JSON, as pointer (`/a/0/b`) or dotted (`a.0.b`); only what an object owns is ever reached. */
import { isObject, own } from './json';

export type JsonPath = readonly string[];

export function parsePath(text: string): JsonPath {
  if (!text.startsWith('/')) return text.split('.');
  return text
    .slice(1)
    .split('/')
    .map((token) => token.replaceAll('~1', '/').replaceAll('~0', '~'));
}

/** Undefined where the path leads nowhere. */
export function valueAt(document: unknown, path: JsonPath): unknown {
  let value = document;
  for (const token of path) {
    if (Array.isArray(value)) value = /^\d+$/.test(token) ? (value[Number(token)] as unknown) : undefined;
    else if (isObject(value)) value = own(value, token);
    else return undefined;
  }
  return value;
}
