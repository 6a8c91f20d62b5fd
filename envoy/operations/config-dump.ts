/** What the control plane would tell a proxy now, for people to read. Secrets are named, never shown. */
import { decodeMessage, type EnvoyMessage } from '../protos';
import { messageName, resourceTypes } from '../resources/resource';
import type { VersionedResource } from '../xds/resource-set';

export interface DumpedResource {
  type: string;
  name: string;
  version: string;
  /** Which update brought this version. */
  sequence: number;
  owners?: readonly string[];
  visibleTo?: readonly string[];
  content: unknown;
}

export function configDump(resources: Iterable<VersionedResource>): DumpedResource[] {
  const order = resourceTypes.map(({ type }) => type);
  return [...resources]
    .sort((a, b) => order.indexOf(a.type) - order.indexOf(b.type) || (a.name < b.name ? -1 : 1))
    .map(({ type, name, version, sequence, owners, visibleTo, packed }) => ({
      type,
      name,
      version,
      sequence,
      ...(owners && { owners }),
      ...(visibleTo && { visibleTo }),
      // Not even decoded: what is never read cannot slip through a redaction that forgets a field.
      content: type === 'secret' ? '[redacted]' : readable(decodeAny(packed, messageName(type))),
    }));
}

function decodeAny(packed: Buffer, name: string): EnvoyMessage {
  const { value } = decodeMessage('google.protobuf.Any', packed) as { value?: Buffer };
  return decodeMessage(name, value ?? Buffer.alloc(0));
}

/** Messages within messages are unpacked; what cannot be is shown by its length. */
function readable(value: unknown): unknown {
  if (Buffer.isBuffer(value)) return `[${value.length} bytes]`;
  if (Array.isArray(value)) return value.map(readable);
  if (typeof value !== 'object' || value === null) return value;
  const { type_url: typeUrl, value: packed } = value as { type_url?: unknown; value?: unknown };
  if (typeof typeUrl === 'string' && Buffer.isBuffer(packed)) {
    const name = typeUrl.slice(typeUrl.lastIndexOf('/') + 1);
    try {
      return { '@type': typeUrl, ...(readable(decodeMessage(name, packed)) as object) };
    } catch {
      return { '@type': typeUrl, value: `[${packed.length} bytes]` };
    }
  }
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, readable(item)]));
}
