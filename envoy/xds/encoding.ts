/** Puts xDS responses together from parts that are already serialised, so that a response is built once for all proxies. */
import { Writer } from 'protobufjs/minimal';
import type { VersionedResource } from './resource-set';
import type { Protocol } from './stream';

/** What a proxy is to be told about one type. */
export interface DiscoveryAnswer {
  typeUrl: string;
  nonce: string;
  version: string;
  resources: VersionedResource[];
  /** Names that are gone; delta only. */
  removed: string[];
  /** What is only confirmed: its time to live begins anew. */
  heartbeats: VersionedResource[];
  /** The proxy knows of times to live. */
  supportsTtl: boolean;
}

/** A resource with its name, version and time to live around it. */
export const wrapperUrl = 'type.googleapis.com/envoy.service.discovery.v3.Resource';

/** Smaller frames are copied for each stream, in one piece; the body of larger ones is shared. */
const copiedBytes = 4096;
const prefixBytes = 5;
/** Both DeltaDiscoveryResponse and DiscoveryResponse have the nonce in field 5. Fields may come in any order. */
const nonceTag = field(5);

/**
 * gRPC frames of responses. Proxies in the same state are due the same response but for the nonce, which is each
 * stream's own: so the body is kept, and the nonce is put behind it.
 */
export class ResponseFrames {
  private readonly latest = new Map<string, { answer: DiscoveryAnswer; body: Buffer }>();
  /** Bodies put together since the start; a change that all proxies follow takes one. */
  built = 0;

  constructor(private readonly protocol: Protocol) {}

  /** The frame of the answer, prefix included, in one part or several. */
  of(answer: DiscoveryAnswer): Buffer[] {
    const body = this.body(answer);
    const nonceBytes = Buffer.byteLength(answer.nonce);
    if (nonceBytes > 127) throw new Error(`nonce of ${nonceBytes} bytes; at most 127 fit its one-byte length`);
    const length = body.length + 2 + nonceBytes;
    const isCopied = length <= copiedBytes;
    const frame = Buffer.allocUnsafe(prefixBytes + (isCopied ? length : 0));
    frame[0] = 0;
    frame.writeUInt32BE(length, 1);
    const tail = isCopied ? frame : Buffer.allocUnsafe(2 + nonceBytes);
    let at = 0;
    if (isCopied) at = prefixBytes + body.copy(frame, prefixBytes);
    tail[at] = nonceTag;
    tail[at + 1] = nonceBytes;
    tail.write(answer.nonce, at + 2, 'latin1');
    return isCopied ? [frame] : [frame, body, tail];
  }

  private body(answer: DiscoveryAnswer): Buffer {
    const kept = this.latest.get(answer.typeUrl);
    if (kept && isSame(kept.answer, answer)) return kept.body;
    const body = this.protocol === 'delta' ? encodeDelta(answer) : encodeStateOfTheWorld(answer);
    this.built += 1;
    this.latest.set(answer.typeUrl, { answer, body });
    return body;
  }
}

function isSame(one: DiscoveryAnswer, other: DiscoveryAnswer): boolean {
  return (
    one.version === other.version &&
    one.supportsTtl === other.supportsTtl &&
    one.heartbeats.length === other.heartbeats.length &&
    one.resources.length === other.resources.length &&
    one.removed.length === other.removed.length &&
    one.resources.every((resource, i) => resource === other.resources[i]) &&
    one.heartbeats.every((resource, i) => resource === other.heartbeats[i]) &&
    one.removed.every((name, i) => name === other.removed[i])
  );
}

/** A tag of wire type 2. */
function field(number: number): number {
  return (number << 3) | 2;
}

function finish(writer: Writer): Buffer {
  const bytes = writer.finish();
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** google.protobuf.Any */
export function packAny(typeUrl: string, value: Buffer): Buffer {
  return finish(Writer.create().uint32(field(1)).string(typeUrl).uint32(field(2)).bytes(value));
}

/** envoy.service.discovery.v3.Resource: version = 1, resource = 2, name = 3, ttl = 6. Without the resource, a heartbeat. */
export function wrapResource(name: string, version: string, packed: Buffer | undefined, ttlMs?: number): Buffer {
  const writer = Writer.create().uint32(field(1)).string(version);
  if (packed) writer.uint32(field(2)).bytes(packed);
  writer.uint32(field(3)).string(name);
  if (ttlMs) writer.uint32(field(6)).bytes(durationBytes(ttlMs));
  return finish(writer);
}

/** google.protobuf.Duration: seconds = 1, nanos = 2 */
function durationBytes(milliseconds: number): Buffer {
  const seconds = Math.floor(milliseconds / 1000);
  const nanos = Math.round((milliseconds - seconds * 1000) * 1e6);
  return finish(Writer.create().uint32(8).int64(seconds).uint32(16).int32(nanos));
}

/** DeltaDiscoveryResponse without its nonce: system_version_info = 1, resources = 2, type_url = 4, removed_resources = 6 */
function encodeDelta(answer: DiscoveryAnswer): Buffer {
  const writer = Writer.create().uint32(field(1)).string(answer.version);
  for (const { wrapped, ttl } of answer.resources)
    writer.uint32(field(2)).bytes(answer.supportsTtl && ttl ? ttl.wrapped : wrapped);
  for (const { ttl } of answer.heartbeats) writer.uint32(field(2)).bytes(ttl!.wrappedHeartbeat);
  writer.uint32(field(4)).string(answer.typeUrl);
  for (const name of answer.removed) writer.uint32(field(6)).string(name);
  return finish(writer);
}

/** DiscoveryResponse without its nonce: version_info = 1, resources = 2, type_url = 4 */
function encodeStateOfTheWorld(answer: DiscoveryAnswer): Buffer {
  const writer = Writer.create().uint32(field(1)).string(answer.version);
  for (const { packed, ttl } of answer.resources)
    writer.uint32(field(2)).bytes(answer.supportsTtl && ttl ? ttl.packed : packed);
  for (const { ttl } of answer.heartbeats) writer.uint32(field(2)).bytes(ttl!.packedHeartbeat);
  return finish(writer.uint32(field(4)).string(answer.typeUrl));
}
