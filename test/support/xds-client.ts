/** A plain xDS client with credentials of its own, which shows what it is given and how its stream ends. */
import {
  credentials,
  makeGenericClientConstructor,
  type ChannelCredentials,
  type Client,
  type ClientDuplexStream,
} from '@grpc/grpc-js';
import { decodeMessage, envoyService, type EnvoyMessage } from '../../envoy/protos';
import { messageName, typeOfUrl, typeUrl, type ResourceType } from '../../envoy/resources/resource';
import { waitUntil } from '../../local/wait';
import type { Protocol } from '../../envoy/xds/stream';

export interface Answer {
  type: ResourceType;
  nonce: string;
  version: string;
  /** Resources by name, with their version (delta) and content. */
  resources: Map<string, { version: string; message: EnvoyMessage }>;
  /** Names in the order and number in which they came. */
  names: string[];
  removed: string[];
}

interface WireAnswer {
  type_url: string;
  nonce: string;
  version_info?: string;
  system_version_info?: string;
  resources?: { name?: string; version?: string; resource?: Packed; value?: Buffer }[];
  removed_resources?: string[];
}
interface Packed {
  type_url: string;
  value: Buffer;
}

export class XdsClient {
  /** Answers that no `take` has taken yet. */
  readonly answers: Answer[] = [];
  ended: Error | 'ended' | undefined;
  private readonly client: Client;
  private readonly stream: ClientDuplexStream<object, WireAnswer>;
  private first = true;

  constructor(
    readonly port: number,
    readonly protocol: Protocol,
    readonly node = 'scripted',
    channel: ChannelCredentials = credentials.createInsecure(),
  ) {
    const Ads = makeGenericClientConstructor(
      envoyService('envoy.service.discovery.v3.AggregatedDiscoveryService'),
      'Ads',
    );
    this.client = new Ads(`127.0.0.1:${port}`, channel);
    const method = protocol === 'delta' ? 'DeltaAggregatedResources' : 'StreamAggregatedResources';
    const open = (this.client as unknown as Record<string, () => ClientDuplexStream<object, WireAnswer>>)[method]!;
    this.stream = open.call(this.client);
    this.stream.on('data', (answer: WireAnswer) => this.answers.push(this.read(answer)));
    this.stream.on('error', (error: Error) => (this.ended = error));
    this.stream.on('end', () => (this.ended ??= 'ended'));
  }

  /** Sends a request; the first one carries the node. */
  send(type: ResourceType, request: object = {}): void {
    const node = this.first && this.node ? { node: { id: this.node } } : {};
    this.first = false;
    this.stream.write({ type_url: typeUrl(type), ...node, ...request });
  }

  /** The next answer of this type, whichever came before it of other types. */
  async take(type: ResourceType): Promise<Answer> {
    return waitUntil(
      () => {
        const at = this.answers.findIndex((answer) => answer.type === type);
        return at >= 0 && this.answers.splice(at, 1)[0];
      },
      { withinMs: 5000, everyMs: 2, what: `an answer of type ${type}` },
    );
  }

  ack(answer: Answer, more: object = {}): void {
    const version = this.protocol === 'sotw' ? { version_info: answer.version } : {};
    this.send(answer.type, { response_nonce: answer.nonce, ...version, ...more });
  }

  nack(answer: Answer, message: string, more: object = {}): void {
    this.send(answer.type, { response_nonce: answer.nonce, error_detail: { code: 3, message }, ...more });
  }

  /** Takes and acknowledges. */
  async accept(type: ResourceType, more: object = {}): Promise<Answer> {
    const answer = await this.take(type);
    this.ack(answer, more);
    return answer;
  }

  close(): void {
    this.stream.cancel();
    this.client.close();
  }

  private read(answer: WireAnswer): Answer {
    const type = typeOfUrl(answer.type_url)!;
    const entries = (answer.resources ?? []).map(({ version = '', resource, value }) => {
      const message = decodeMessage(messageName(type), resource?.value ?? value!);
      return [String(message.cluster_name ?? message.name), { version, message }] as const;
    });
    return {
      type,
      nonce: answer.nonce,
      version: answer.version_info ?? answer.system_version_info ?? '',
      resources: new Map(entries),
      names: entries.map(([name]) => name).sort(),
      removed: [...(answer.removed_resources ?? [])].sort(),
    };
  }
}
