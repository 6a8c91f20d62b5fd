/**
 * An xDS client that says exactly what the script says, over a real gRPC stream, and shows exactly what it hears:
 *
 *     client.asks('cluster');                        // everything
 *     await client.hears('cluster a@1 b@2');         // the next answer of all is this, to the letter
 *     client.acks();
 *     await client.isLeftInPeace();                  // and nothing more comes
 *
 * `a@2` is resource a at revision 2, `-a` a removal, `~a` a heartbeat, `ttl=` its time to live in milliseconds.
 */
import { credentials, makeGenericClientConstructor, type Client, type ClientDuplexStream } from '@grpc/grpc-js';
import { expect } from 'chai';
import { decodeMessage, envoyService, milliseconds, type EnvoyMessage } from '../../envoy/protos';
import { messageName, typeOfUrl, typeUrl, type ResourceType } from '../../envoy/resources/resource';
import type { Protocol } from '../../envoy/xds/stream';
import { revisionOf } from './xds-world';

export interface ClientOptions {
  node?: string;
  features?: string[];
  /** Versions held from an earlier stream: `client.held` of that one. */
  brings?: ReadonlyMap<ResourceType, Held>;
}

/** What a client has accepted of one type. */
export interface Held {
  /** Delta: version by name. */
  versions: Map<string, string>;
  /** State of the world: the version of the last answer. */
  version: string;
  /** Revision by name. */
  resources: Map<string, number>;
}

export interface Answer {
  type: ResourceType;
  nonce: string;
  version: string;
  items: { name: string; version: string; revision: number | 'heartbeat'; ttlMs: number | undefined }[];
  removed: string[];
}

interface Packed {
  type_url: string;
  value: Buffer;
}
interface Wrapper {
  name?: string;
  version?: string;
  resource?: Packed;
  ttl?: { seconds?: string; nanos?: number };
}
interface WireAnswer {
  type_url: string;
  nonce: string;
  version_info?: string;
  resources?: (Wrapper & Packed)[];
  removed_resources?: string[];
}

const wrapper = 'envoy.service.discovery.v3.Resource';
let barriers = 0;

export class ScriptedClient {
  readonly node: string;
  readonly held: Map<ResourceType, Held>;
  /** How the stream ended. */
  readonly ended: Promise<Error | 'ended'>;
  /** Answers so far, by type; barriers left out. */
  readonly heard: Record<ResourceType, number> = { cluster: 0, endpoints: 0, listener: 0, route: 0, secret: 0 };
  private readonly unread: Answer[] = [];
  private last: Answer | undefined;
  private wake: (() => void) | undefined;
  private readonly names = new Map<ResourceType, string[]>();
  private readonly nonces = new Map<ResourceType, string>();
  private readonly client: Client;
  private readonly stream: ClientDuplexStream<object, WireAnswer>;
  private hasSpoken = false;

  constructor(
    port: number,
    readonly protocol: Protocol,
    private readonly raise: (barrier: string) => void,
    private readonly options: ClientOptions,
  ) {
    this.node = options.node ?? 'scripted';
    this.held = new Map([...(options.brings ?? [])].map(([type, held]) => [type, structuredClone(held)]));
    const ads = envoyService('envoy.service.discovery.v3.AggregatedDiscoveryService');
    this.client = new (makeGenericClientConstructor(ads, 'Ads'))(`127.0.0.1:${port}`, credentials.createInsecure());
    const method = protocol === 'delta' ? 'DeltaAggregatedResources' : 'StreamAggregatedResources';
    const open = (this.client as unknown as Record<string, () => ClientDuplexStream<object, WireAnswer>>)[method]!;
    this.stream = open.call(this.client);
    this.stream.on('data', (answer: WireAnswer) => {
      this.unread.push(this.read(answer));
      this.wake?.();
    });
    this.ended = new Promise((resolve) => {
      this.stream.on('error', resolve);
      this.stream.on('end', () => resolve('ended'));
    });
  }

  /** Sends a request as it is; the first one carries the node. */
  send(type: ResourceType, request: object = {}): void {
    const node = { id: this.node, client_features: this.options.features ?? [] };
    this.stream.write({ type_url: typeUrl(type), ...(!this.hasSpoken && this.node && { node }), ...request });
    this.hasSpoken = true;
  }

  /** Asks for these names besides those asked for before, as a client of its protocol does; with none, for everything. */
  asks(type: ResourceType, ...names: string[]): void {
    const before = this.names.get(type);
    this.names.set(type, [...(before ?? []), ...names.filter((name) => !before?.includes(name))]);
    if (this.protocol === 'sotw') return this.send(type, this.wholeRequest(type));
    const brings = before ? undefined : this.options.brings?.get(type)?.versions;
    this.send(type, {
      resource_names_subscribe: names,
      ...(brings && { initial_resource_versions: Object.fromEntries(brings) }),
    });
  }

  /** Asks for these names no longer. */
  drops(type: ResourceType, ...names: string[]): void {
    this.names.set(
      type,
      (this.names.get(type) ?? []).filter((name) => !names.includes(name)),
    );
    for (const name of names) this.holding(type).versions.delete(name);
    for (const name of names) this.holding(type).resources.delete(name);
    if (this.protocol === 'sotw') this.send(type, this.wholeRequest(type));
    else this.send(type, { resource_names_unsubscribe: names });
  }

  /** The next answer, of whichever type, is this one to the letter. */
  async hears(expected: string): Promise<Answer> {
    const answer = await this.next();
    expect(described(answer)).to.equal(expected);
    return answer;
  }

  /** Accepts the last answer, or the given one. */
  acks(answer: Answer = this.last!): void {
    this.take(answer);
    const ack = this.protocol === 'sotw' ? this.wholeRequest(answer.type) : {};
    this.send(answer.type, { ...ack, response_nonce: answer.nonce });
  }

  /** Refuses the last answer, or the given one: the request carries the version that was held before. */
  nacks(message: string, answer: Answer = this.last!): void {
    const refusal = this.protocol === 'sotw' ? this.wholeRequest(answer.type) : {};
    this.send(answer.type, { ...refusal, response_nonce: answer.nonce, error_detail: { code: 3, message } });
  }

  async hearsAndAcks(expected: string): Promise<Answer> {
    const answer = await this.hears(expected);
    this.acks(answer);
    return answer;
  }

  /**
   * Nothing has come and nothing is on its way: a secret that nobody had is published and asked for, and is the next
   * thing heard. The stream is in order, and secrets come last of all types.
   */
  async isLeftInPeace(): Promise<void> {
    const name = `barrier-${(barriers += 1)}`;
    this.raise(name);
    this.asks('secret', name);
    const answer = await this.next();
    expect(described(answer)).to.equal(`secret ${name}@1`);
    this.acks(answer);
    expect(this.unread.map(described)).to.deep.equal([]);
  }

  /** Revision by name of what it holds of a type. */
  holds(type: ResourceType): Record<string, number> {
    return Object.fromEntries([...(this.held.get(type)?.resources ?? [])].sort(([a], [b]) => (a < b ? -1 : 1)));
  }

  /** The next answer, of whichever type. */
  async next(withinMs = 5000): Promise<Answer> {
    if (this.unread.length === 0) {
      await new Promise<void>((resolve, reject) => {
        const late = (): void => reject(new Error(`no answer came within ${withinMs} ms`));
        const timer = setTimeout(late, withinMs);
        this.wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    this.wake = undefined;
    this.last = this.unread.shift()!;
    this.nonces.set(this.last.type, this.last.nonce);
    return this.last;
  }

  /** Goes without a word. */
  leave(): void {
    this.stream.on('error', () => undefined);
    this.stream.cancel();
    this.client.close();
  }

  private wholeRequest(type: ResourceType): object {
    const version = this.held.get(type)?.version;
    const nonce = this.nonces.get(type);
    return {
      resource_names: this.names.get(type) ?? [],
      ...(version && { version_info: version }),
      ...(nonce && { response_nonce: nonce }),
    };
  }

  private holding(type: ResourceType): Held {
    const held = this.held.get(type) ?? { versions: new Map(), version: '', resources: new Map() };
    this.held.set(type, held);
    return held;
  }

  private take(answer: Answer): void {
    const held = this.holding(answer.type);
    const isWhole = this.protocol === 'sotw' && (answer.type === 'cluster' || answer.type === 'listener');
    if (isWhole) held.resources.clear();
    for (const { name, version, revision } of answer.items) {
      if (revision === 'heartbeat') continue;
      held.versions.set(name, version);
      held.resources.set(name, revision);
    }
    for (const name of answer.removed) {
      held.versions.delete(name);
      held.resources.delete(name);
    }
    held.version = answer.version;
  }

  private read(wire: WireAnswer): Answer {
    const type = typeOfUrl(wire.type_url)!;
    const items = (wire.resources ?? []).map((item) => {
      const isWrapped = this.protocol === 'delta' || item.type_url.endsWith(wrapper);
      const wrapped =
        this.protocol === 'delta' ? item : isWrapped ? (decodeMessage(wrapper, item.value) as Wrapper) : {};
      const packed = isWrapped ? wrapped.resource : item;
      const message: EnvoyMessage | undefined = packed && decodeMessage(messageName(type), packed.value);
      return {
        name: wrapped.name ?? String(message?.cluster_name ?? message?.name),
        version: wrapped.version ?? '',
        revision: message ? revisionOf(type, message) : ('heartbeat' as const),
        ttlMs: wrapped.ttl ? milliseconds(wrapped.ttl) : undefined,
      };
    });
    const isBarrier = items.some(({ name }) => name.startsWith('barrier-'));
    if (!isBarrier) this.heard[type] += 1;
    return { type, nonce: wire.nonce, version: wire.version_info ?? '', items, removed: wire.removed_resources ?? [] };
  }
}

/** An answer in the words of a script. */
export function described({ type, items, removed }: Answer): string {
  const words = items.map(({ name, revision, ttlMs }) => {
    const ttl = ttlMs === undefined ? '' : ` ttl=${ttlMs}`;
    return revision === 'heartbeat' ? `~${name}${ttl}` : `${name}@${revision}${ttl}`;
  });
  return [type, ...words.sort(), ...removed.map((name) => `-${name}`).sort()].join(' ');
}
