/** Lets proxies' streams in: by certificate, as the nodes that certificate may be, within limits. */
import { status } from '@grpc/grpc-js';
import type { Limits, ProxyRule } from '../../blueprints/control-plane-settings';
import { StreamError, type Admission, type Peer, type StreamGate } from '../xds/gate';
import { identitiesOf, matchesTemplate, matchPattern } from './identity';

export interface StreamGateOptions {
  /** Which identity may be which node. Undefined on a plaintext port: everybody may be every node. */
  rules: readonly ProxyRule[] | undefined;
  limits: Pick<Limits, 'namesPerSubscription' | 'streamsPerIdentity' | 'requestsPerSecond' | 'requestBurst'>;
  /** Milliseconds of a clock that never goes back. */
  now?: () => number;
}

export class CertificateGate implements StreamGate {
  /** Streams that are open, by kind and identity, or address. */
  private readonly open = new Map<string, number>();

  constructor(private readonly options: StreamGateOptions) {}

  admit(peer: Peer, kind: 'discovery' | 'load-reports'): Admission {
    const { rules, limits } = this.options;
    const { identity, holds } = rules ? this.identify(rules, peer) : { identity: '', holds: [] };
    const counted = `${kind} ${identity || peer.getPeer().replace(/:\d+$/, '')}`;
    const streams = (this.open.get(counted) ?? 0) + 1;
    if (streams > limits.streamsPerIdentity) {
      throw new StreamError(
        `${counted.slice(kind.length + 1)} has ${limits.streamsPerIdentity} streams open already, the most it may`,
        status.RESOURCE_EXHAUSTED,
      );
    }
    this.open.set(counted, streams);
    const allowance = new Allowance(limits, this.options.now ?? (() => performance.now()));
    return {
      identity,
      bind: ({ id = '', cluster = '' }) => {
        if (!rules || holds.some((rule) => rule(id, cluster))) return;
        throw new StreamError(
          `${identity} may not be node ${id} of cluster ${cluster || '(none)'}; see controlPlane.proxies in the settings`,
          status.PERMISSION_DENIED,
        );
      },
      hear: ({ names, held }) => {
        if (names > limits.namesPerSubscription || held > limits.namesPerSubscription) {
          throw new StreamError(
            `${Math.max(names, held)} resource names are subscribed, the most allowed is ${limits.namesPerSubscription}`,
            status.RESOURCE_EXHAUSTED,
          );
        }
        if (!allowance.take()) {
          throw new StreamError(
            `more than ${limits.requestsPerSecond} requests a second come over this stream`,
            status.RESOURCE_EXHAUSTED,
          );
        }
      },
      leave: () => {
        const left = (this.open.get(counted) ?? 1) - 1;
        if (left === 0) this.open.delete(counted);
        else this.open.set(counted, left);
      },
    };
  }

  private identify(
    rules: readonly ProxyRule[],
    peer: Peer,
  ): { identity: string; holds: ((id: string, cluster: string) => boolean)[] } {
    const claimed = identitiesOf(peer);
    for (const identity of claimed) {
      const holds = rules.flatMap((rule) => {
        const stars = matchPattern(rule.identity, identity);
        if (!stars) return [];
        return [
          (id: string, cluster: string) =>
            rule.nodes.some((node) => matchesTemplate(node, stars, id)) &&
            rule.clusters.some((wanted) => matchesTemplate(wanted, stars, cluster)),
        ];
      });
      if (holds.length > 0) return { identity, holds };
    }
    throw new StreamError(
      claimed.length > 0
        ? `${claimed.join(', ')} may be no node here; see controlPlane.proxies in the settings`
        : 'the certificate says neither one SPIFFE id nor a DNS name, so nobody is known by it',
      status.PERMISSION_DENIED,
    );
  }
}

/** A bucket that fills at a steady rate: bursts are taken, floods are not. */
class Allowance {
  private left: number;
  private at: number;

  constructor(
    private readonly limits: { requestsPerSecond: number; requestBurst: number },
    private readonly now: () => number,
  ) {
    this.left = limits.requestBurst;
    this.at = now();
  }

  take(): boolean {
    const now = this.now();
    const { requestsPerSecond, requestBurst } = this.limits;
    this.left = Math.min(requestBurst, this.left + ((now - this.at) / 1000) * requestsPerSecond) - 1;
    this.at = now;
    return this.left >= 0;
  }
}
