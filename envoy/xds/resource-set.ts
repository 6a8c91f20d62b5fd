/** The resources as they should be now: versioned by content, serialised once. Knows nothing of streams. */
import { createHash } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import { encodeStrictly } from '../protos';
import {
  messageName,
  serviceOf,
  resourceTypes,
  typeUrl,
  type Resource,
  type ResourceKey,
  type ResourceType,
} from '../resources/resource';
import { packAny, wrapperUrl, wrapResource } from './encoding';

/** What one proxy can see of the resources. */
export interface ResourceView {
  /** The number of the newest update. */
  readonly sequence: number;
  get(type: ResourceType, name: string): VersionedResource | undefined;
  names(type: ResourceType): Iterable<string>;
  /** Whether the absence of the resource means nothing: its service cannot be built now. */
  isWithheld(name: string): boolean;
  /** Whether there is a service that cannot be built now. */
  readonly isIncomplete: boolean;
  /** What has a time to live. */
  fading(type: ResourceType): Iterable<VersionedResource>;
}

export interface VersionedResource extends ResourceKey {
  /** Hash of the content: the same over restarts and replicas, so a proxy that reconnects is sent nothing. */
  version: string;
  /** Which update brought this version; later is newer. */
  sequence: number;
  /** `unknown` for a version that a proxy brought along from before its reconnect. */
  references: ResourceKey[] | 'unknown';
  /** Ids of the nodes that may see it; without it, all. */
  visibleTo?: readonly string[] | undefined;
  /** Authenticated identities that alone may have it. */
  owners?: readonly string[] | undefined;
  /** google.protobuf.Any, for state of the world. */
  packed: Buffer;
  /** envoy.service.discovery.v3.Resource, for delta. */
  wrapped: Buffer;
  /** For what has a time to live, how it is told to a proxy that knows of that. */
  ttl?: TimeToLive;
}

/** Each in both protocols: delta wraps every resource, state of the world packs the wrapper into an Any. */
export interface TimeToLive {
  ms: number;
  wrapped: Buffer;
  packed: Buffer;
  /** "the resource field unset and the version matching": confirms without saying it again. */
  wrappedHeartbeat: Buffer;
  packedHeartbeat: Buffer;
}

export class ResourceSet {
  private readonly byType = new Map<ResourceType, Map<string, VersionedResource>>(
    resourceTypes.map(({ type }) => [type, new Map()]),
  );
  /** What each was last encoded from: what is handed in again with the same content is not encoded again. */
  private readonly encodings = new Map<string, { from: Resource; version: string; bytes: Buffer }>();
  private updates = 0;
  /** Resources serialised since the start: one that has not changed is not serialised again. */
  serialised = 0;
  private withheld: ReadonlySet<string> = new Set();
  private readonly mortal = new Map<ResourceType, Set<string>>();

  /** The number of the newest update. */
  get sequence(): number {
    return this.updates;
  }

  /**
   * Makes the set hold exactly these resources and answers what changed, new and gone ones included. Throws before
   * anything is changed if one cannot be encoded or is there twice. Of the services in `withheld` nothing is known for
   * now: what a proxy has of them from before is not taken away.
   */
  update(resources: Resource[], withheld: ReadonlySet<string> = new Set()): ResourceKey[] {
    const wanted = new Map<ResourceType, Map<string, Resource>>(resourceTypes.map(({ type }) => [type, new Map()]));
    for (const resource of resources) {
      const { type, name } = resource;
      if (type === 'secret' && !resource.visibleTo && !resource.owners)
        throw new Error(`secret ${name} names no nodes in visibleTo and no owners; say which proxies may have it`);
      if (wanted.get(type)!.has(name)) throw new Error(`${type} ${name} is there twice; names must be unique per type`);
      wanted.get(type)!.set(name, resource);
      this.encode(resource);
    }
    const changed: ResourceKey[] = [];
    this.updates += 1;
    this.withheld = withheld;
    for (const [type, held] of this.byType) {
      for (const [name, resource] of wanted.get(type)!) {
        const { version, bytes } = this.encode(resource);
        const before = held.get(name);
        if (
          before?.version === version &&
          sameNames(before.visibleTo, resource.visibleTo) &&
          sameNames(before.owners, resource.owners)
        )
          continue;
        const packed = packAny(typeUrl(type), bytes);
        const wrapped = wrapResource(name, version, packed);
        held.set(name, {
          type,
          name,
          version,
          sequence: this.updates,
          references: resource.references,
          visibleTo: resource.visibleTo,
          owners: resource.owners,
          packed,
          wrapped,
          ...(resource.ttlMs && { ttl: timeToLive(name, version, packed, resource.ttlMs) }),
        });
        if (resource.ttlMs) this.mortal.set(type, (this.mortal.get(type) ?? new Set()).add(name));
        else this.mortal.get(type)?.delete(name);
        changed.push({ type, name });
      }
      for (const name of [...held.keys()]) {
        if (wanted.get(type)!.has(name)) continue;
        held.delete(name);
        this.mortal.get(type)?.delete(name);
        this.encodings.delete(`${type} ${name}`);
        changed.push({ type, name });
      }
    }
    return changed;
  }

  /** Every resource as it is now. */
  *all(): Iterable<VersionedResource> {
    for (const held of this.byType.values()) yield* held.values();
  }

  /** What the proxy of that node id can see, whose certificate says that identity; empty if it showed none. */
  seenBy(node: string, identity = ''): ResourceView {
    const { byType } = this;
    const mayKnow = ({ visibleTo, owners }: VersionedResource): boolean =>
      (!visibleTo || visibleTo.includes(node)) && (!owners || (identity !== '' && owners.includes(identity)));
    const { mortal } = this;
    const sequence = (): number => this.updates;
    const isIncomplete = (): boolean => this.withheld.size > 0;
    return {
      get sequence() {
        return sequence();
      },
      get isIncomplete() {
        return isIncomplete();
      },
      *fading(type) {
        for (const name of mortal.get(type) ?? []) {
          const resource = byType.get(type)!.get(name)!;
          if (mayKnow(resource)) yield resource;
        }
      },
      get: (type, name) => {
        const resource = byType.get(type)!.get(name);
        return resource && mayKnow(resource) ? resource : undefined;
      },
      *names(type) {
        for (const resource of byType.get(type)!.values()) if (mayKnow(resource)) yield resource.name;
      },
      isWithheld: (name) => this.withheld.size > 0 && this.withheld.has(serviceOf(name)),
    };
  }

  /** The shortest time to live of all, milliseconds; undefined if everything lives for ever. */
  shortestTtlMs(): number | undefined {
    let shortest: number | undefined;
    for (const [type, names] of this.mortal)
      for (const name of names) shortest = Math.min(shortest ?? Infinity, this.byType.get(type)!.get(name)!.ttl!.ms);
    return shortest;
  }

  private encode(resource: Resource): { version: string; bytes: Buffer } {
    const { type, name, message, ttlMs } = resource;
    const key = `${type} ${name}`;
    const before = this.encodings.get(key);
    if (before && before.from.ttlMs === ttlMs && isDeepStrictEqual(before.from.message, message)) return before;
    const bytes = encodeStrictly(messageName(type), message);
    this.serialised += 1;
    // "To update the TTL the management server resends the resource": another time to live is another version.
    const hash = createHash('sha256').update(bytes);
    if (ttlMs) hash.update(`ttl=${ttlMs}`);
    const encoded = { from: resource, version: hash.digest('hex').slice(0, 16), bytes };
    this.encodings.set(key, encoded);
    return encoded;
  }
}

function timeToLive(name: string, version: string, packed: Buffer, ms: number): TimeToLive {
  const wrapped = wrapResource(name, version, packed, ms);
  const wrappedHeartbeat = wrapResource(name, version, undefined, ms);
  const inAny = (wrapper: Buffer): Buffer => packAny(wrapperUrl, wrapper);
  return { ms, wrapped, wrappedHeartbeat, packed: inAny(wrapped), packedHeartbeat: inAny(wrappedHeartbeat) };
}

function sameNames(one: readonly string[] | undefined, other: readonly string[] | undefined): boolean {
  if (!one || !other) return one === other;
  return one.length === other.length && one.every((name) => other.includes(name));
}
