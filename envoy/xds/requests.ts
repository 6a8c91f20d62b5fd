/**
 * Reads discovery requests from their bytes, by hand: an acknowledgement has two or three short fields, comes once per
 * proxy and change, and needs neither a message object nor the plain object made of it. Fields that nobody here asks
 * for are skipped. Numbers are those of envoy/service/discovery/v3/discovery.proto.
 */
import { Reader } from 'protobufjs/minimal';
import { StreamError } from './gate';
import type { AdsRequest, Protocol } from './stream';

/** Throws StreamError if the bytes are not a request. */
export function readRequest(protocol: Protocol, bytes: Buffer): AdsRequest {
  try {
    const reader = Reader.create(bytes);
    return protocol === 'delta' ? readDelta(reader) : readStateOfTheWorld(reader);
  } catch (error) {
    throw new StreamError(`a request cannot be read as ${protocol} discovery request: ${(error as Error).message}`);
  }
}

/** DeltaDiscoveryRequest */
function readDelta(reader: Reader): AdsRequest {
  const request: AdsRequest = {};
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    switch (tag >>> 3) {
      case 1:
        request.node = readNode(nested(reader));
        break;
      case 2:
        request.type_url = reader.string();
        break;
      case 3:
        (request.resource_names_subscribe ??= []).push(reader.string());
        break;
      case 4:
        (request.resource_names_unsubscribe ??= []).push(reader.string());
        break;
      case 5: {
        const [name, version] = readMapEntry(nested(reader));
        // A name may be `__proto__`: the object must have no other keys than those that were sent.
        (request.initial_resource_versions ??= Object.create(null) as Record<string, string>)[name] = version;
        break;
      }
      case 6:
        request.response_nonce = reader.string();
        break;
      case 7:
        request.error_detail = readStatus(nested(reader));
        break;
      default:
        reader.skipType(tag & 7);
    }
  }
  return request;
}

/** DiscoveryRequest */
function readStateOfTheWorld(reader: Reader): AdsRequest {
  const request: AdsRequest = {};
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    switch (tag >>> 3) {
      case 1:
        request.version_info = reader.string();
        break;
      case 2:
        request.node = readNode(nested(reader));
        break;
      case 3:
        (request.resource_names ??= []).push(reader.string());
        break;
      case 4:
        request.type_url = reader.string();
        break;
      case 5:
        request.response_nonce = reader.string();
        break;
      case 6:
        request.error_detail = readStatus(nested(reader));
        break;
      default:
        reader.skipType(tag & 7);
    }
  }
  return request;
}

/** envoy.config.core.v3.Node: of what can be many kilobytes, who it is and what it can do. */
function readNode(reader: Reader): NonNullable<AdsRequest['node']> {
  const node: NonNullable<AdsRequest['node']> = {};
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    switch (tag >>> 3) {
      case 1:
        node.id = reader.string();
        break;
      case 2:
        node.cluster = reader.string();
        break;
      case 6:
        node.user_agent_name = reader.string();
        break;
      case 7:
        node.user_agent_version = reader.string();
        break;
      case 8:
        node.user_agent_build_version = readBuildVersion(nested(reader));
        break;
      case 10:
        (node.client_features ??= []).push(reader.string());
        break;
      default:
        reader.skipType(tag & 7);
    }
  }
  return node;
}

/** envoy.config.core.v3.BuildVersion: of it the envoy.type.v3.SemanticVersion. */
function readBuildVersion(reader: Reader): { version?: { major_number: number; minor_number: number; patch: number } } {
  const numbers = [0, 0, 0];
  let isSaid = false;
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    if (tag >>> 3 !== 1) {
      reader.skipType(tag & 7);
      continue;
    }
    isSaid = true;
    const version = nested(reader);
    while (version.pos < version.len) {
      const part = version.uint32();
      if (part >>> 3 <= 3 && (part & 7) === 0) numbers[(part >>> 3) - 1] = version.uint32();
      else version.skipType(part & 7);
    }
  }
  const [major_number = 0, minor_number = 0, patch = 0] = numbers;
  return isSaid ? { version: { major_number, minor_number, patch } } : {};
}

/** google.rpc.Status */
function readStatus(reader: Reader): NonNullable<AdsRequest['error_detail']> {
  const read: NonNullable<AdsRequest['error_detail']> = { code: 0, message: '' };
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    if (tag >>> 3 === 1) read.code = reader.int32();
    else if (tag >>> 3 === 2) read.message = reader.string();
    else reader.skipType(tag & 7);
  }
  return read;
}

function readMapEntry(reader: Reader): [key: string, value: string] {
  let key = '';
  let value = '';
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    if (tag >>> 3 === 1) key = reader.string();
    else if (tag >>> 3 === 2) value = reader.string();
    else reader.skipType(tag & 7);
  }
  return [key, value];
}

function nested(reader: Reader): Reader {
  return Reader.create(reader.bytes());
}
