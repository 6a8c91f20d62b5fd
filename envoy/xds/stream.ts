/** One proxy's ADS stream: its subscriptions by type, and the order in which they are answered. */
import { resourceTypes, typeOfUrl, type ResourceKey, type ResourceType } from '../resources/resource';
import { DeltaSubscription } from './delta-subscription';
import type { DiscoveryAnswer } from './encoding';
import { openGate, StreamError, type Admission } from './gate';
import type { ResourceSet, ResourceView } from './resource-set';
import { StateOfTheWorldSubscription } from './sotw-subscription';
import type { DiscoveryRequest, Heard, Standing, Subscription } from './subscription';

export type Protocol = 'delta' | 'sotw';

/** A request as it comes over the wire. */
export type AdsRequest = DiscoveryRequest & {
  type_url?: string;
  node?: { id?: string; cluster?: string; client_features?: string[] } | null;
};

/** Which type names which, so that a stream that follows the one will ask for the other. */
const parentOf: Partial<Record<ResourceType, ResourceType>> = { endpoints: 'cluster', route: 'listener' };

export class AdsStream {
  node = '';
  private readonly subscriptions = new Map<ResourceType, Subscription>();
  /** What this proxy can see; known once its node is. */
  private view: ResourceView | undefined;
  private readonly waitingSince = new Map<ResourceType, number>();
  private scheduled: NodeJS.Immediate | undefined;

  constructor(
    readonly protocol: Protocol,
    private readonly resources: ResourceSet,
    private readonly write: (answer: DiscoveryAnswer, type: ResourceType) => void,
    private readonly admission: Admission = openGate.admit(
      { getAuthContext: () => ({}), getPeer: () => '' },
      'discovery',
    ),
  ) {}

  /** Takes a request in. Answers are written soon after, so that a burst of requests is answered together. */
  hear(request: AdsRequest): Heard & { type: ResourceType } {
    // "only the first message on the stream is guaranteed to carry the node"; a later, different one is ignored.
    if (!this.node) {
      const { id = '', cluster = '' } = request.node ?? {};
      if (!id) throw new StreamError('the first request names no node id; set node.id in the bootstrap');
      this.admission.bind({ id, cluster });
      this.node = id;
    }
    this.view ??= this.resources.seenBy(this.node, this.admission.identity);
    const type = typeOfUrl(request.type_url ?? '');
    if (!type) {
      const known = resourceTypes.map((t) => t.message).join(', ');
      throw new StreamError(`type_url ${request.type_url || '(none)'} is not served here; known are ${known}`);
    }
    const subscription = this.subscription(type);
    const asked = (request.resource_names ?? []).length + (request.resource_names_subscribe ?? []).length;
    this.admission.hear({ names: asked, held: subscription.names.size });
    const heard = subscription.hear(request);
    if (heard.kind === 'ack' || heard.kind === 'nack') this.waitingSince.delete(type);
    this.scheduled ??= setImmediate(() => this.flush());
    return { ...heard, type };
  }

  /** These resources were published anew or removed. Sends at once what can be sent. */
  touch(keys: ResourceKey[]): void {
    for (const { type, name } of keys) this.subscriptions.get(type)?.touch(name);
    this.flush();
  }

  /** How the stream stands towards what the update of that sequence made of these resources. */
  standing(
    keys: readonly ResourceKey[],
    sequence: number,
  ): { standing: Standing; refused: { key: ResourceKey; error: string }[] } {
    const refused: { key: ResourceKey; error: string }[] = [];
    let isPending = false;
    let isConcerned = false;
    for (const key of keys) {
      const standing = this.standingOf(key, sequence);
      if (standing !== 'unconcerned') isConcerned = true;
      if (standing === 'pending') isPending = true;
      if (typeof standing === 'object') refused.push({ key, error: standing.rejected });
    }
    if (refused.length > 0) return { standing: { rejected: refused[0]!.error }, refused };
    return { standing: isPending ? 'pending' : isConcerned ? 'acked' : 'unconcerned', refused };
  }

  /** Whether it has left a response unanswered since before that time. */
  hasStalledSince(time: number): boolean {
    return [...this.waitingSince.values()].some((since) => since < time);
  }

  close(): void {
    clearImmediate(this.scheduled);
  }

  private standingOf({ type, name }: ResourceKey, sequence: number): Standing {
    const own = this.subscriptions.get(type)?.standing(name, sequence) ?? 'unconcerned';
    if (own !== 'unconcerned' || !this.view?.get(type, name)) return own;
    const parent = parentOf[type];
    // A proxy that follows all clusters is about to ask for this one's endpoints: it does not have them yet.
    return parent && this.subscriptions.get(parent)?.wildcard ? 'pending' : own;
  }

  /** What is referred to goes first; what has to wait goes with a later acknowledgement. */
  private flush(): void {
    clearImmediate(this.scheduled);
    this.scheduled = undefined;
    for (const { type } of resourceTypes) {
      const answer = this.subscriptions.get(type)?.respond();
      if (!answer) continue;
      this.waitingSince.set(type, Date.now());
      this.write(answer, type);
    }
  }

  private subscription(type: ResourceType): Subscription {
    let subscription = this.subscriptions.get(type);
    if (!subscription) {
      const Kind = this.protocol === 'delta' ? DeltaSubscription : StateOfTheWorldSubscription;
      subscription = new Kind(type, this.view!, (other) => this.subscriptions.get(other));
      this.subscriptions.set(type, subscription);
    }
    return subscription;
  }
}
