/** What the control plane counts and measures, for Prometheus. Every metric is described here and nowhere else. */
import { status } from '@grpc/grpc-js';
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { ResourceKey, ResourceType } from '../resources/resource';
import type { ProxyStream, XdsObserver } from '../xds/observer';
import type { Heard } from '../xds/subscription';

/** What is read when somebody asks, rather than counted as it happens. */
export interface MetricSources {
  /** Bytes and number of the resources as they are now, by type. */
  configSize: () => { type: string; resources: number; bytes: number }[];
  /** Proxies that wait to be admitted. */
  admissionQueue: () => number;
  /** Services whose present state in the store cannot be published. */
  unpublishable: () => number;
  /** Seconds since the store was last read; undefined before the first time. */
  storeAgeS: () => number | undefined;
  /** Certificates in use, by where. */
  certificates: () => { place: string; expiresAt: number; problem: string | undefined }[];
}

/** As many names as this get a label of their own; all later ones share `other`, so that no proxy can flood a scrape. */
const namesAtMost = 100;

const seconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];

type State = 'converged' | 'converging' | 'refusing';

interface Followed {
  /** When the unanswered response of each type was sent. */
  waiting: Map<ResourceType, number>;
  refusing: Set<ResourceType>;
  agent: string;
}

export class ControlPlaneMetrics implements XdsObserver {
  readonly registry = new Registry();
  private readonly streams = new Map<ProxyStream, Followed>();
  private readonly nodeNames = new BoundedNames();
  private readonly agentNames = new BoundedNames();
  /** Publications that some proxy has not answered yet, and when they were made. */
  private publishedAt: number[] = [];
  private unanswered = 0;

  private readonly pushes = this.counter('understudy_xds_pushes_total', 'Responses sent to proxies.', [
    'type',
    'protocol',
  ]);
  private readonly pushedBytes = this.counter('understudy_xds_pushed_bytes_total', 'Bytes of those responses.', [
    'type',
  ]);
  private readonly pushTime = this.histogram(
    'understudy_xds_push_seconds',
    'From sending a response to the answer of that proxy.',
    ['type'],
  );
  private readonly publications = this.counter(
    'understudy_xds_publications_total',
    'Times that resources changed.',
    [],
  );
  private readonly convergence = this.histogram(
    'understudy_xds_convergence_seconds',
    'From a publication until no proxy owed an answer any more.',
    [],
  );
  private readonly rejects = this.counter(
    'understudy_xds_rejects_total',
    `Resource versions that a proxy refused. Nodes beyond the first ${namesAtMost} count as "other".`,
    ['type', 'node'],
  );
  private readonly expired = this.counter(
    'understudy_xds_expired_nonces_total',
    'Answers to something older than the last response.',
    ['type'],
  );
  private readonly stalledStreams = this.counter(
    'understudy_xds_stalled_streams_total',
    'Streams cut off for leaving a response unanswered.',
    [],
  );
  private readonly turnedAwayStreams = this.counter(
    'understudy_xds_turned_away_total',
    'Streams that were not let in or not let go on, by gRPC status.',
    ['code'],
  );
  private readonly asked = this.counter(
    'understudy_traffic_changes_total',
    'Changes asked for over the traffic API, by method and gRPC status.',
    ['method', 'outcome'],
  );
  private readonly auditLost = this.counter(
    'understudy_audit_unwritten_total',
    'Audit records that are only in the log, since Postgres did not take them.',
    [],
  );

  constructor(sources: MetricSources, { ofProcess = true }: { ofProcess?: boolean } = {}) {
    if (ofProcess) collectDefaultMetrics({ register: this.registry });
    const connected = this.gauge(
      'understudy_xds_connected_proxies',
      'Streams of proxies, by what they run and how they stand.',
      ['protocol', 'version', 'state'],
    );
    const size = this.gauge('understudy_xds_config_bytes', 'Bytes of all resources as they are now.', ['type']);
    const resources = this.gauge('understudy_xds_config_resources', 'Resources as they are now.', ['type']);
    const queue = this.gauge('understudy_xds_admission_queue', 'Proxies that wait to be admitted.', []);
    const failing = this.gauge(
      'understudy_build_failing_services',
      'Services whose present state in the store cannot be published and that stay as they were.',
      [],
    );
    const age = this.gauge('understudy_store_age_seconds', 'Since the Configuration Data Store was last read.', []);
    const expiry = this.gauge(
      'understudy_certificate_expiry_timestamp_seconds',
      'End of the life of the certificate in use, Unix time.',
      ['place'],
    );
    const unusable = this.gauge(
      'understudy_certificate_files_unusable',
      '1 while the files of a certificate cannot be used and the one before stays.',
      ['place'],
    );
    // All that is read is read together, once per scrape.
    const read = (): void => {
      connected.reset();
      for (const [proxy, { agent }] of this.streams)
        connected.inc({ protocol: proxy.protocol, version: agent, state: this.stateOf(proxy) });
      for (const { type, resources: count, bytes } of sources.configSize()) {
        size.set({ type }, bytes);
        resources.set({ type }, count);
      }
      queue.set(sources.admissionQueue());
      failing.set(sources.unpublishable());
      const ageS = sources.storeAgeS();
      if (ageS !== undefined) age.set(ageS);
      for (const { place, expiresAt, problem } of sources.certificates()) {
        expiry.set({ place }, expiresAt / 1000);
        unusable.set({ place }, problem === undefined ? 0 : 1);
      }
    };
    this.read = read;
  }

  private readonly read: () => void;

  /** The text that Prometheus scrapes. */
  async text(): Promise<string> {
    this.read();
    return this.registry.metrics();
  }

  noteAsked(method: string, outcome: string): void {
    this.asked.inc({ method, outcome });
  }

  noteAuditLost(): void {
    this.auditLost.inc();
  }

  connected(proxy: ProxyStream): void {
    this.streams.set(proxy, {
      waiting: new Map(),
      refusing: new Set(),
      agent: this.agentNames.of(proxy.agent || 'unknown'),
    });
  }

  disconnected(proxy: ProxyStream): void {
    this.unanswered -= this.streams.get(proxy)?.waiting.size ?? 0;
    this.streams.delete(proxy);
    this.settle();
  }

  published(_changed: readonly ResourceKey[]): void {
    this.publications.inc();
    if (this.streams.size > 0) this.publishedAt.push(performance.now());
    // What no proxy is to be told of is done with as soon as nothing has been sent.
    setImmediate(() => this.settle());
  }

  sent(proxy: ProxyStream, type: ResourceType, _resources: number, bytes: number): void {
    this.pushes.inc({ type, protocol: proxy.protocol });
    this.pushedBytes.inc({ type }, bytes);
    const followed = this.streams.get(proxy);
    if (!followed) return;
    if (!followed.waiting.has(type)) this.unanswered += 1;
    followed.waiting.set(type, performance.now());
  }

  answered(proxy: ProxyStream, type: ResourceType, { kind, rejected }: Heard): void {
    if (kind === 'stale') this.expired.inc({ type });
    if (kind === 'nack') this.rejects.inc({ type, node: this.nodeNames.of(proxy.node) }, Math.max(1, rejected.length));
    if (kind !== 'ack' && kind !== 'nack') return;
    const followed = this.streams.get(proxy);
    if (!followed) return;
    if (kind === 'nack') followed.refusing.add(type);
    else followed.refusing.delete(type);
    const sentAt = followed.waiting.get(type);
    if (sentAt === undefined) return;
    this.pushTime.observe({ type }, (performance.now() - sentAt) / 1000);
    followed.waiting.delete(type);
    this.unanswered -= 1;
    if (this.unanswered === 0) setImmediate(() => this.settle());
  }

  stalled(): void {
    this.stalledStreams.inc();
  }

  turnedAway(_proxy: ProxyStream, code: number): void {
    this.turnedAwayStreams.inc({ code: status[code] ?? String(code) });
  }

  private stateOf(proxy: ProxyStream): State {
    const { refusing, waiting } = this.streams.get(proxy)!;
    if (refusing.size > 0) return 'refusing';
    return waiting.size > 0 ? 'converging' : 'converged';
  }

  /** All publications so far have converged if nobody owes an answer. */
  private settle(): void {
    if (this.unanswered > 0) return;
    const now = performance.now();
    for (const at of this.publishedAt) this.convergence.observe((now - at) / 1000);
    this.publishedAt = [];
  }

  private counter<T extends string>(name: string, help: string, labelNames: T[]): Counter<T> {
    return new Counter({ name, help, labelNames, registers: [this.registry] });
  }

  private gauge<T extends string>(name: string, help: string, labelNames: T[]): Gauge<T> {
    return new Gauge({ name, help, labelNames, registers: [this.registry] });
  }

  private histogram<T extends string>(name: string, help: string, labelNames: T[]): Histogram<T> {
    return new Histogram({ name, help, labelNames, buckets: seconds, registers: [this.registry] });
  }
}

class BoundedNames {
  private readonly known = new Set<string>();

  of(name: string): string {
    if (this.known.has(name)) return name;
    if (this.known.size >= namesAtMost) return 'other';
    this.known.add(name);
    return name;
  }
}
