/** The xDS server: publishes a set of resources to every connected proxy and says what became of it. */
import { status, type Server, type ServerDuplexStream, type ServiceDefinition } from '@grpc/grpc-js';
import type { Logger } from 'pino';
import { envoyService } from '../protos';
import type { Resource, ResourceKey, ResourceType } from '../resources/resource';
import { ResourceSet } from './resource-set';
import { openGate, StreamError, type Admission, type StreamGate } from './gate';
import type { ProxyStream, XdsObserver } from './observer';
import { AdsStream, type AdsRequest, type Protocol } from './stream';
import type { Heard } from './subscription';

/** What became of a publication, by node id. */
export interface Acknowledgements {
  acked: string[];
  nacked: { node: string; type: string; resource: string; error: string }[];
  /** Connected, but had not answered by the deadline. */
  pending: string[];
  /** Was connected when the wait began and has gone without an answer. */
  gone: string[];
  /** From the beginning of the wait to the last answer. */
  tookMs: number;
}

export interface XdsServerOptions {
  log: Logger;
  /** A proxy that leaves a response unanswered for longer is cut off; it will come back. Default 30,000. */
  stalledAfterMs?: number;
  /** Who may open a stream and as which node. Default: everybody, as every node. */
  gate?: StreamGate;
  /** Hears of everything that happens, for metrics and audit. */
  observer?: XdsObserver;
}

type Call = ServerDuplexStream<AdsRequest, Buffer>;

/** A stream's other end. */
interface Connection {
  call: Call;
  proxy: ProxyStream;
  admission: Admission;
}

export class XdsServer {
  private readonly resources = new ResourceSet();
  private readonly streams = new Map<AdsStream, Connection>();
  private readonly waits = new Set<() => void>();
  private readonly observer: XdsObserver;
  private readonly sweeper: NodeJS.Timeout;
  /** Since the start, for metrics and tests. */
  readonly counts = { responses: 0, acks: 0, nacks: 0, stale: 0, stalled: 0 };

  constructor(private readonly options: XdsServerOptions) {
    this.observer = options.observer ?? {};
    const stalledAfterMs = options.stalledAfterMs ?? 30_000;
    this.sweeper = setInterval(() => this.cutStalled(stalledAfterMs), stalledAfterMs / 4);
    this.sweeper.unref();
  }

  /** Adds the aggregated discovery service. Publish once before binding a port: a proxy must not be told of nothing. */
  addTo(server: Server): void {
    const methods = envoyService('envoy.service.discovery.v3.AggregatedDiscoveryService');
    // Responses are put together from bytes that were encoded once; grpc-js is handed the result.
    const asBytes = Object.entries(methods).map(([name, method]) => [
      name,
      { ...method, responseSerialize: (bytes: Buffer) => bytes },
    ]);
    server.addService(Object.fromEntries(asBytes) as ServiceDefinition, {
      StreamAggregatedResources: (call: Call) => this.serve(call, 'sotw'),
      DeltaAggregatedResources: (call: Call) => this.serve(call, 'delta'),
    });
  }

  /** Makes these the resources. Proxies are sent what changed, at once; nothing if nothing did. */
  publish(resources: Resource[], withheld?: ReadonlySet<string>): ResourceKey[] {
    const changed = this.resources.update(resources, withheld);
    if (changed.length > 0) this.observer.published?.(changed, this.resources.sequence);
    if (changed.length > 0) for (const stream of this.streams.keys()) stream.touch(changed);
    this.review();
    return changed;
  }

  /** Publishes and waits until every connected proxy that is concerned has answered, or the deadline has passed. */
  async publishAndWait(resources: Resource[], waitMs: number): Promise<Acknowledgements> {
    return this.acknowledgements(this.publish(resources), waitMs);
  }

  /** Waits until every proxy connected now has answered for these resources as they are now. */
  acknowledgements(keys: ResourceKey[], waitMs: number): Promise<Acknowledgements> {
    const began = performance.now();
    const sequence = this.resources.sequence;
    const asked = [...this.streams.keys()].filter((stream) => stream.node !== '');
    let tookMs = 0;
    let answered = 0;
    const read = (): Acknowledgements => {
      const result: Acknowledgements = { acked: [], nacked: [], pending: [], gone: [], tookMs };
      for (const stream of asked) {
        const { standing, refused } = stream.standing(keys, sequence);
        if (standing === 'acked') result.acked.push(stream.node);
        else if (standing === 'pending') (this.streams.has(stream) ? result.pending : result.gone).push(stream.node);
        for (const { key, error } of refused)
          result.nacked.push({ node: stream.node, type: key.type, resource: key.name, error });
      }
      return result;
    };
    return new Promise((resolve) => {
      const finish = (): void => {
        clearTimeout(timer);
        this.waits.delete(review);
        resolve(read());
      };
      const review = (): void => {
        const { acked, nacked, pending } = read();
        if (acked.length + nacked.length > answered) tookMs = performance.now() - began;
        answered = acked.length + nacked.length;
        if (pending.length === 0) finish();
      };
      const timer = setTimeout(finish, waitMs);
      this.waits.add(review);
      review();
    });
  }

  /** Node ids of the proxies connected now. */
  proxies(): string[] {
    return [...new Set([...this.streams.keys()].map((stream) => stream.node).filter((node) => node !== ''))].sort();
  }

  /** Ends all streams; Envoy would never end its own. */
  close(): void {
    clearInterval(this.sweeper);
    for (const { call } of this.streams.values()) call.end();
  }

  private serve(call: Call, protocol: Protocol): void {
    const { log, gate = openGate } = this.options;
    const connectedAt = Date.now();
    let admission: Admission;
    try {
      admission = gate.admit(call, 'discovery');
    } catch (error) {
      call.on('error', () => undefined);
      this.turnAway({ node: '', protocol, identity: '', connectedAt }, call, error as Error);
      return;
    }
    const proxy: ProxyStream = { node: '', protocol, identity: admission.identity, connectedAt };
    const stream = new AdsStream(
      protocol,
      this.resources,
      (bytes, type, resources) => {
        this.counts.responses += 1;
        this.observer.sent?.(proxy, type, resources, bytes.length);
        call.write(bytes);
      },
      admission,
    );
    this.streams.set(stream, { call, proxy, admission });
    call.on('data', (request: AdsRequest) => {
      // What was on its way when the stream was ended.
      if (!this.streams.has(stream)) return;
      const isNew = stream.node === '';
      try {
        const heard = stream.hear(request);
        proxy.node = stream.node;
        if (isNew) {
          const { node } = stream;
          log.info({ node, protocol, identity: proxy.identity }, `proxy ${node} is connected by ${protocol} ADS`);
          this.observer.connected?.(proxy);
        }
        this.note(proxy, heard);
      } catch (error) {
        this.drop(stream);
        this.turnAway(proxy, call, error as Error);
      }
      this.review();
    });
    call.on('end', () => {
      this.drop(stream);
      call.end();
    });
    call.on('cancelled', () => this.drop(stream));
    call.on('error', () => this.drop(stream));
  }

  /** Ends a stream that may not begin or go on, and says why. */
  private turnAway(proxy: ProxyStream, call: Call, error: Error): void {
    const code = error instanceof StreamError ? error.code : status.INTERNAL;
    const { node, identity } = proxy;
    const peer = call.getPeer();
    const who = node ? `proxy ${node}` : identity || peer;
    this.options.log.warn({ node, identity, peer, code, err: error }, `stream of ${who} is ended: ${error.message}`);
    this.observer.turnedAway?.(proxy, code, error.message);
    call.emit('error', Object.assign(new Error(error.message), { code }));
  }

  private note(proxy: ProxyStream, heard: Heard & { type: ResourceType }): void {
    const { node } = proxy;
    this.observer.answered?.(proxy, heard.type, heard);
    if (heard.kind === 'ack') this.counts.acks += 1;
    if (heard.kind === 'stale') this.counts.stale += 1;
    if (heard.kind !== 'nack') return;
    this.counts.nacks += 1;
    for (const { type, name, version, error } of heard.rejected) {
      this.options.log.warn(
        { node, type, resource: name, version, error },
        `proxy ${node} refuses ${type} ${name} at version ${version} and keeps what it had: ${error}`,
      );
    }
  }

  private drop(stream: AdsStream): void {
    const connection = this.streams.get(stream);
    if (!connection) return;
    this.streams.delete(stream);
    connection.admission.leave();
    stream.close();
    if (stream.node) {
      this.options.log.info({ node: stream.node }, `proxy ${stream.node} has gone`);
      this.observer.disconnected?.(connection.proxy);
    }
    this.review();
  }

  /** Something happened that a wait may have been for. */
  private review(): void {
    for (const wait of [...this.waits]) wait();
  }

  private cutStalled(afterMs: number): void {
    for (const [stream, { call, proxy }] of [...this.streams]) {
      if (!stream.hasStalledSince(Date.now() - afterMs)) continue;
      this.counts.stalled += 1;
      this.options.log.warn(
        { node: stream.node },
        `proxy ${stream.node} has left a response unanswered for more than ${afterMs} ms and is cut off`,
      );
      this.observer.stalled?.(proxy);
      call.emit(
        'error',
        Object.assign(new Error('a response was left unanswered'), { code: status.DEADLINE_EXCEEDED }),
      );
      this.drop(stream);
    }
  }
}
