/** Puts xDS responses together from parts that are already serialised, so that a resource is encoded once for all proxies. */
import { Writer } from 'protobufjs/minimal';
import type { VersionedResource } from './resource-set';

/** What a proxy is to be told about one type. */
export interface DiscoveryAnswer {
  typeUrl: string;
  nonce: string;
  version: string;
  resources: VersionedResource[];
  /** Names that are gone; delta only. */
  removed: string[];
}

const field = (number: number): number => (number << 3) | 2;

function finish(writer: Writer): Buffer {
  const bytes = writer.finish();
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** google.protobuf.Any */
export function packAny(typeUrl: string, value: Buffer): Buffer {
  return finish(Writer.create().uint32(field(1)).string(typeUrl).uint32(field(2)).bytes(value));
}

/** envoy.service.discovery.v3.Resource: version = 1, resource = 2, name = 3 */
export function wrapResource(name: string, version: string, packed: Buffer): Buffer {
  const writer = Writer.create().uint32(field(1)).string(version).uint32(field(2)).bytes(packed);
  return finish(writer.uint32(field(3)).string(name));
}

/** DeltaDiscoveryResponse: system_version_info = 1, resources = 2, type_url = 4, nonce = 5, removed_resources = 6 */
export function encodeDelta(answer: DiscoveryAnswer): Buffer {
  const writer = Writer.create().uint32(field(1)).string(answer.version);
  for (const resource of answer.resources) writer.uint32(field(2)).bytes(resource.wrapped);
  writer.uint32(field(4)).string(answer.typeUrl).uint32(field(5)).string(answer.nonce);
  for (const name of answer.removed) writer.uint32(field(6)).string(name);
  return finish(writer);
}

/** DiscoveryResponse: version_info = 1, resources = 2, type_url = 4, nonce = 5 */
export function encodeStateOfTheWorld(answer: DiscoveryAnswer): Buffer {
  const writer = Writer.create().uint32(field(1)).string(answer.version);
  for (const resource of answer.resources) writer.uint32(field(2)).bytes(resource.packed);
  return finish(writer.uint32(field(4)).string(answer.typeUrl).uint32(field(5)).string(answer.nonce));
}
