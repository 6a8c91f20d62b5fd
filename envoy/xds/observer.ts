/** What the xDS server tells whoever counts, draws or records it. It decides nothing by what becomes of it. */
import type { ResourceKey, ResourceType } from '../resources/resource';
import type { Protocol } from './stream';
import type { Heard } from './subscription';

/** One proxy's stream, the same object from beginning to end. */
export interface ProxyStream {
  /** `node.id` of the proxy; empty until its first request has come. */
  node: string;
  /** What it says it is, as `envoy 1.40.0`; empty until its first request has come, or if it does not say. */
  agent: string;
  readonly protocol: Protocol;
  /** As its certificate says; empty on a plaintext port. */
  readonly identity: string;
  /** Unix time in milliseconds. */
  readonly connectedAt: number;
}

/** Every method must return at once and never throw. */
export interface XdsObserver {
  /** Its first request has been taken: `proxy.node` is set. */
  connected?(proxy: ProxyStream): void;
  /** Told for streams that were told as connected. */
  disconnected?(proxy: ProxyStream): void;
  /** Told before anything of it is sent. `changed` is not empty. */
  published?(changed: readonly ResourceKey[], sequence: number): void;
  /** A response was handed to the transport. */
  sent?(proxy: ProxyStream, type: ResourceType, resources: number, bytes: number): void;
  /** A request was understood: an acknowledgement, a refusal, a stale nonce, or a subscription. */
  answered?(proxy: ProxyStream, type: ResourceType, heard: Heard): void;
  /** A proxy left a response unanswered for too long and is cut off. */
  stalled?(proxy: ProxyStream): void;
  /** A stream was ended by us: `code` is a gRPC status, `reason` a sentence. */
  turnedAway?(proxy: ProxyStream, code: number, reason: string): void;
}

/** One observer that passes everything on to several. */
export function observers(...all: XdsObserver[]): XdsObserver {
  const tell =
    <K extends keyof XdsObserver>(event: K) =>
    (...facts: Parameters<NonNullable<XdsObserver[K]>>): void => {
      for (const observer of all) {
        const method = observer[event] as ((...f: typeof facts) => void) | undefined;
        method?.apply(observer, facts);
      }
    };
  return {
    connected: tell('connected'),
    disconnected: tell('disconnected'),
    published: tell('published'),
    sent: tell('sent'),
    answered: tell('answered'),
    stalled: tell('stalled'),
    turnedAway: tell('turnedAway'),
  };
}
