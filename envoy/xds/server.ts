/** The xDS server: publishes a set of resources to every connected proxy and says what became of it. */
import { status, type Server, type ServiceDefinition } from '@grpc/grpc-js';
import type { Logger } from 'pino';
import { envoyService } from '../protos';
import type { Resource, ResourceKey, ResourceType } from '../resources/resource';
import { Arrivals, type Arrival, type ArrivalLimits } from './arrivals';
import { ResponseFrames, type DiscoveryAnswer } from './encoding';
import { ResourceSet, type VersionedResource } from './resource-set';
import { NodeMemory } from './node-memory';
import { openGate, StreamError, type Admission, type StreamGate } from './gate';
import { stateOf, type ProxyStatus } from './inspection';
import { MessageStream, retireConnection, type RawCall } from './message-stream';
import type { ProxyStream, XdsObserver } from './observer';
import { readRequest } from './requests';
import { AdsStream, type Protocol } from './stream';
import type { Heard } from './subscription';
import { Turns } from './turns';
import { Waits, type Acknowledgements } from './waits';

export type { Acknowledgements } from './waits';

export interface XdsServerOptions {
  log: Logger;
  /** A proxy that leaves a response unanswered for longer is cut off; it will come back. Default 30,000. */
  stalledAfterMs?: number;
  /** A stream that has not said who it is by then is ended. Default 15,000. */
  firstRequestWithinMs?: number;
  /** A larger request ends its stream before it is read. Default 4 MiB. */
  requestBytes?: number;
  /** Who may open a stream and as which node. Default: everybody, as every node. */
  gate?: StreamGate;
  /** Hears of everything that happens, for metrics and audit. */
  observer?: XdsObserver;
  /** How many new streams are let in at once and per second. */
  arrivals?: ArrivalLimits | undefined;
}

/** A stream's other end. */
interface Connection {
  messages: MessageStream;
  proxy: ProxyStream;
  admission: Admission;
  arrival: Arrival;
  /** Since when its requests are read; Infinity while it waits to be let in. */
  heardSince: () => number;
}

export class XdsServer {
  private readonly resources = new ResourceSet();
  private readonly streams = new Map<AdsStream, Connection>();
  private readonly waits = new Waits((stream) => this.streams.has(stream));
  private readonly turns = new Turns<AdsStream>((stream) => stream.flush());
  private readonly observer: XdsObserver;
  private readonly arrivals: Arrivals;
  private readonly frames = { delta: new ResponseFrames('delta'), sotw: new ResponseFrames('sotw') };
  private readonly sweeper: NodeJS.Timeout;
  private readonly memory = new NodeMemory();
  private heart: { everyMs: number; timer: NodeJS.Timeout } | undefined;
  /** Since the start, for metrics and tests. */
  readonly counts = { responses: 0, acks: 0, nacks: 0, stale: 0, stalled: 0 };

  constructor(private readonly options: XdsServerOptions) {
    this.observer = options.observer ?? {};
    this.arrivals = new Arrivals(options.arrivals);
    const stalledAfterMs = options.stalledAfterMs ?? 30_000;
    this.sweeper = setInterval(() => this.sweep(stalledAfterMs), Math.min(1000, stalledAfterMs / 4));
    this.sweeper.unref();
  }

  /** Adds the aggregated discovery service. Publish once before binding a port: a proxy must not be told of nothing. */
  addTo(server: Server): void {
    const methods = envoyService('envoy.service.discovery.v3.AggregatedDiscoveryService');
    // Both ways bytes are all that grpc-js sees: see `message-stream.ts`.
    const asIs = (bytes: Buffer): Buffer => bytes;
    const asBytes = Object.entries(methods).map(([name, method]) => [
      name,
      { ...method, requestDeserialize: asIs, responseSerialize: asIs },
    ]);
    server.addService(Object.fromEntries(asBytes) as ServiceDefinition, {
      StreamAggregatedResources: (call: RawCall) => this.serve(call, 'sotw'),
      DeltaAggregatedResources: (call: RawCall) => this.serve(call, 'delta'),
    });
  }

  /** Makes these the resources. Proxies are sent what changed, at once; nothing if nothing did. */
  publish(resources: Resource[], withheld?: ReadonlySet<string>): ResourceKey[] {
    const changed = this.resources.update(resources, withheld);
    if (changed.length > 0) this.observer.published?.(changed, this.resources.sequence);
    if (changed.length > 0) for (const stream of this.streams.keys()) stream.touch(changed);
    this.keepAlive();
    this.waits.published();
    return changed;
  }

  /** Publishes and waits until every connected proxy that is concerned has answered, or the deadline has passed. */
  async publishAndWait(resources: Resource[], waitMs: number): Promise<Acknowledgements> {
    return this.acknowledgements(this.publish(resources), waitMs);
  }

  /** Waits until every proxy connected now has answered for these resources as they are now. */
  acknowledgements(keys: ResourceKey[], waitMs: number): Promise<Acknowledgements> {
    const asked = [...this.streams.keys()].filter((stream) => stream.node !== '');
    return this.waits.begin(asked, keys, this.resources.sequence, waitMs);
  }

  /** Node ids of the proxies connected now. */
  proxies(): string[] {
    return [...new Set([...this.streams.keys()].map((stream) => stream.node).filter((node) => node !== ''))].sort();
  }

  /** What publishing took since the start: resources that were serialised, and responses put together from them. */
  get work(): { serialised: number; built: number } {
    return { serialised: this.resources.serialised, built: this.frames.delta.built + this.frames.sotw.built };
  }

  /** What the reader that is furthest behind makes us hold, in bytes; responses shared with others are not its own. */
  get mostHeldBytes(): number {
    return Math.max(0, ...[...this.streams.values()].map(({ messages }) => messages.heldBytes));
  }

  /** How every connected proxy stands, for people. */
  inspect(): ProxyStatus[] {
    const named = [...this.streams].filter(([stream]) => stream.node !== '');
    return named.map(([stream, { proxy }]) => {
      const types = stream.describe();
      const { node, identity, agent, protocol } = proxy;
      const connectedAt = new Date(proxy.connectedAt).toISOString();
      return { node, identity, protocol, agent, connectedAt, state: stateOf(types), types };
    });
  }

  /** Every resource as it is now. */
  published(): Iterable<VersionedResource> {
    return this.resources.all();
  }

  /** How many streams wait to be let in. */
  get queued(): number {
    return this.arrivals.queued;
  }

  /** Ends all streams; Envoy would never end its own. */
  close(): void {
    clearInterval(this.sweeper);
    clearInterval(this.heart?.timer);
    this.arrivals.close();
    for (const { messages } of this.streams.values()) messages.end();
    this.waits.close();
  }

  private serve(call: RawCall, protocol: Protocol): void {
    const { gate = openGate } = this.options;
    const connectedAt = Date.now();
    call.on('error', () => undefined);
    let admission: Admission;
    try {
      // Of a proxy that is told of nothing, nothing is left.
      if (this.resources.sequence === 0) throw new StreamError('nothing is published yet', status.UNAVAILABLE);
      admission = gate.admit(call, 'discovery');
    } catch (error) {
      this.turnAway({ node: '', agent: '', protocol, identity: '', connectedAt }, call, error as Error);
      return;
    }
    const proxy: ProxyStream = { node: '', agent: '', protocol, identity: admission.identity, connectedAt };
    const stream: AdsStream = new AdsStream(
      protocol,
      this.resources,
      (answer, type) => this.send(proxy, messages, answer, type),
      () => this.turns.ask(stream),
      admission,
      this.memory,
    );
    const messages = new MessageStream(
      call,
      {
        message: (bytes) => this.take(stream, bytes),
        ended: () => messages.end(),
        gone: () => this.drop(stream),
      },
      this.options.requestBytes,
    );
    let heardFrom = Infinity;
    const arrival = this.arrivals.arrive(() => {
      heardFrom = Date.now();
      messages.start();
    });
    this.streams.set(stream, { messages, proxy, admission, arrival, heardSince: () => heardFrom });
  }

  private send(proxy: ProxyStream, messages: MessageStream, answer: DiscoveryAnswer, type: ResourceType): void {
    this.counts.responses += 1;
    const frame = this.frames[proxy.protocol].of(answer);
    if (this.observer.sent) {
      const bytes = frame.reduce((sum, part) => sum + part.length, 0);
      this.observer.sent(proxy, type, answer.resources.length + answer.removed.length, bytes);
    }
    messages.send(frame);
  }

  private take(stream: AdsStream, bytes: Buffer): void {
    const connection = this.streams.get(stream);
    // What was on its way when the stream was ended.
    if (!connection) return;
    const { proxy, messages, arrival } = connection;
    const isNew = stream.node === '';
    try {
      const heard = stream.hear(readRequest(proxy.protocol, bytes));
      proxy.node = stream.node;
      proxy.agent = stream.agent;
      if (isNew) {
        const { node, identity, protocol } = proxy;
        this.options.log.info({ node, protocol, identity }, `proxy ${node} is connected by ${protocol} ADS`);
        this.observer.connected?.(proxy);
      }
      if (heard.kind === 'ack' || heard.kind === 'nack') arrival.done();
      this.note(proxy, heard);
    } catch (error) {
      this.drop(stream);
      this.turnAway(proxy, messages.call, error as Error);
    }
    this.waits.heard(stream);
  }

  /** Ends a stream that may not begin or go on, and says why. */
  private turnAway(proxy: ProxyStream, call: RawCall, error: Error): void {
    const code = error instanceof StreamError ? error.code : status.INTERNAL;
    const { node, identity } = proxy;
    const peer = call.getPeer();
    const who = node ? `proxy ${node}` : identity || peer;
    this.options.log.warn({ node, identity, peer, code, err: error }, `stream of ${who} is ended: ${error.message}`);
    this.observer.turnedAway?.(proxy, code, error.message);
    call.emit('error', Object.assign(new Error(error.message), { code }));
    if (code === Number(status.PERMISSION_DENIED)) retireConnection(call);
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
    connection.arrival.done();
    connection.admission.leave();
    stream.close();
    this.turns.forget(stream);
    if (stream.node) {
      this.options.log.info({ node: stream.node }, `proxy ${stream.node} has gone`);
      this.observer.disconnected?.(connection.proxy);
    }
    this.waits.heard(stream);
  }

  /** What has a time to live is confirmed in time, looked after often enough for the shortest. */
  private keepAlive(): void {
    const shortestMs = this.resources.shortestTtlMs();
    const everyMs = shortestMs && Math.max(10, Math.floor(shortestMs / 12));
    if (everyMs === this.heart?.everyMs) return;
    clearInterval(this.heart?.timer);
    const beat = (): void => {
      for (const stream of this.streams.keys()) stream.beat(Date.now());
    };
    this.heart = everyMs ? { everyMs, timer: setInterval(beat, everyMs).unref() } : undefined;
  }

  /** Cuts off who has left a response unanswered, and ends what goes on over connections that have reached their age. */
  private sweep(stalledAfterMs: number): void {
    const longAgo = Date.now() - stalledAfterMs;
    const silentSince = Date.now() - (this.options.firstRequestWithinMs ?? 15_000);
    for (const [stream, { messages, proxy, heardSince }] of [...this.streams]) {
      if (stream.node === '' && heardSince() < silentSince) {
        this.drop(stream);
        const why = new StreamError('it has not said which node it is', status.DEADLINE_EXCEEDED);
        this.turnAway(proxy, messages.call, why);
      } else if (stream.hasStalledSince(longAgo)) this.cutOff(stream, messages, proxy, stalledAfterMs);
      else if (messages.isBeingRetired && !stream.hasStalledSince(Infinity)) messages.end();
    }
  }

  private cutOff(stream: AdsStream, messages: MessageStream, proxy: ProxyStream, afterMs: number): void {
    this.counts.stalled += 1;
    this.options.log.warn(
      { node: proxy.node },
      `proxy ${proxy.node} has left a response unanswered for more than ${afterMs} ms and is cut off`,
    );
    this.observer.stalled?.(proxy);
    this.drop(stream);
    if (messages.isBlocked) messages.destroyConnection();
    else messages.fail(status.DEADLINE_EXCEEDED, 'a response was left unanswered');
  }
}
