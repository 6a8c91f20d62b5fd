/** One proxy's ADS stream: its subscriptions by type, and the order in which they are answered. */
import { resourceTypes, typeOfUrl, type ResourceKey, type ResourceType } from '../resources/resource';
import { DeltaSubscription } from './delta-subscription';
import type { DiscoveryAnswer } from './encoding';
import { openGate, StreamError, type Admission } from './gate';
import { describeSubscription, type TypeStatus } from './inspection';
import type { ResourceSet, ResourceView } from './resource-set';
import { StateOfTheWorldSubscription } from './sotw-subscription';
import type { NodeMemory } from './node-memory';
import type { DiscoveryRequest, Heard, Recollection, Standing, StreamContext, Subscription } from './subscription';

export type Protocol = 'delta' | 'sotw';

/** A request as it comes over the wire. */
export type AdsRequest = DiscoveryRequest & { type_url?: string; node?: Node | null };

interface Node {
  id?: string;
  cluster?: string;
  client_features?: string[];
  user_agent_name?: string;
  user_agent_version?: string;
  user_agent_build_version?: { version?: { major_number?: number; minor_number?: number; patch?: number } };
}

/** Which type names which, so that a stream that follows the one will ask for the other. */
const parentOf: Partial<Record<ResourceType, ResourceType>> = { endpoints: 'cluster', route: 'listener' };

/** What a client declares that knows of times to live; the second name is that of the documentation of the protocol. */
const ttlFeatures: Record<Protocol, string[]> = {
  delta: ['xds.config.supports-resource-ttl', 'xds.config.resource-in-sotw'],
  sotw: ['xds.config.resource-in-sotw', 'xds.config.supports-resource-in-sotw'],
};

/** So long a proxy that comes back is given to say what of each type it holds; Envoy does it in one burst. */
const settlesWithinMs = 1000;

export class AdsStream implements StreamContext {
  node = '';
  /** Name and version of the program at the other end, as it says. */
  agent = '';
  private readonly subscriptions = new Map<ResourceType, Subscription>();
  /** What this proxy can see; replaced once its node is known. */
  resources: ResourceView;
  isReconnected = false;
  hasSettled = true;
  supportsTtl = false;
  private readonly waitingSince = new Map<ResourceType, number>();
  private settling: NodeJS.Timeout | undefined;

  constructor(
    readonly protocol: Protocol,
    private readonly all: ResourceSet,
    private readonly write: (answer: DiscoveryAnswer, type: ResourceType) => void,
    /** Asks for a call of `flush` soon. */
    private readonly isDue: () => void,
    private readonly admission: Admission = openGate.admit(
      { getAuthContext: () => ({}), getPeer: () => '' },
      'discovery',
    ),
    private readonly memory?: NodeMemory,
  ) {
    this.resources = all.seenBy('', '');
  }

  /** Takes a request in. Answers are written soon after, so that a burst of requests is answered together. */
  hear(request: AdsRequest): Heard & { type: ResourceType } {
    // "only the first message on the stream is guaranteed to carry the node"; a later, different one is ignored.
    if (!this.node) this.introduce(request.node ?? {});
    const type = typeOfUrl(request.type_url ?? '');
    if (!type) {
      const known = resourceTypes.map((t) => t.message).join(', ');
      throw new StreamError(`type_url ${request.type_url || '(none)'} is not served here; known are ${known}`);
    }
    if (!this.subscriptions.has(type) && bringsState(request)) this.welcomeBack();
    const subscription = this.subscription(type);
    const asked = (request.resource_names ?? []).length + (request.resource_names_subscribe ?? []).length;
    this.admission.hear({ names: asked, held: subscription.names.size });
    const heard = subscription.hear(request);
    if (heard.kind === 'ack' || heard.kind === 'nack') this.waitingSince.delete(type);
    if (heard.kind === 'nack') this.remember();
    this.isDue();
    return { ...heard, type };
  }

  /** These resources were published anew or removed. */
  touch(keys: ResourceKey[]): void {
    for (const { type, name } of keys) this.subscriptions.get(type)?.touch(name);
    this.isDue();
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

  /** How it stands, type by type, for people. */
  describe(): TypeStatus[] {
    return [...this.subscriptions.values()].map((subscription) => describeSubscription(subscription, this.resources));
  }

  /** Whether it has left a response unanswered since before that time. */
  hasStalledSince(time: number): boolean {
    return [...this.waitingSince.values()].some((since) => since < time);
  }

  /** Confirms what the proxy would otherwise drop at the end of its time to live. */
  beat(now: number): void {
    for (const subscription of this.subscriptions.values()) subscription.beat(now);
    this.isDue();
  }

  siblings(type: ResourceType): Subscription | undefined {
    return this.subscriptions.get(type);
  }

  recall(type: ResourceType): Recollection[] {
    return (this.isReconnected && this.memory?.of(this.remembered, type)) || [];
  }

  close(): void {
    clearTimeout(this.settling);
    if (this.node) this.remember();
  }

  private introduce(node: Node): void {
    const { id = '', cluster = '', client_features: features = [] } = node;
    if (!id) throw new StreamError('the first request names no node id; set node.id in the bootstrap');
    this.admission.bind({ id, cluster });
    this.node = id;
    this.agent = agentOf(node);
    this.resources = this.all.seenBy(id, this.admission.identity);
    this.supportsTtl = ttlFeatures[this.protocol].some((feature) => features.includes(feature));
  }

  private welcomeBack(): void {
    if (this.isReconnected) return;
    this.isReconnected = true;
    this.hasSettled = false;
    this.settling = setTimeout(() => {
      this.hasSettled = true;
      this.isDue();
    }, settlesWithinMs).unref();
  }

  /** Of whom: who poses as a node with another certificate is not given what the node's own accepted. */
  private get remembered(): string {
    return `${this.admission.identity} ${this.node}`;
  }

  private remember(): void {
    this.memory?.keep(
      this.remembered,
      [...this.subscriptions.values()].flatMap((subscription) => subscription.recollections()),
    );
  }

  private standingOf({ type, name }: ResourceKey, sequence: number): Standing {
    const own = this.subscriptions.get(type)?.standing(name, sequence) ?? 'unconcerned';
    if (own !== 'unconcerned' || !this.resources.get(type, name)) return own;
    const parent = parentOf[type];
    // A proxy that follows all clusters is about to ask for this one's endpoints: it does not have them yet.
    return parent && this.subscriptions.get(parent)?.wildcard ? 'pending' : own;
  }

  /** What is referred to goes first; what has to wait goes with a later acknowledgement. */
  flush(): void {
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
      subscription = new Kind(type, this);
      this.subscriptions.set(type, subscription);
    }
    return subscription;
  }
}

/** Whether the client holds something from an earlier stream. */
function bringsState(request: AdsRequest): boolean {
  return Boolean(request.version_info) || Object.keys(request.initial_resource_versions ?? {}).length > 0;
}

function agentOf({ user_agent_name: name = '', user_agent_version, user_agent_build_version: build }: Node): string {
  const { major_number: major = 0, minor_number: minor = 0, patch = 0 } = build?.version ?? {};
  const version = user_agent_version || (build?.version ? `${major}.${minor}.${patch}` : '');
  // It ends up in logs and labels, and anybody may claim to be anything.
  return `${name} ${version}`.trim().slice(0, 60);
}
