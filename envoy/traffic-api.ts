/** The traffic API over gRPC: reads requests, refuses what cannot be field by field, and answers on the wire. */
import type { sendUnaryData, Server, ServerUnaryCall, ServerWritableStream } from '@grpc/grpc-js';
import { Metadata, status } from '@grpc/grpc-js';
import { HealthImplementation } from 'grpc-health-check';
import { ReflectionService } from '@grpc/reflection';
import type { Logger } from 'pino';
import { isStoreFailure } from '../blueprints/connection';
import type { CellShare } from '../blueprints/records';
import { drainingSplit, untilQuiet } from './drain';
import { trafficPackage, trafficService, trafficServiceName } from './protos';
import type { Replica } from './replicas/replica';
import { callerOf } from './security/traffic-authority';
import { patienceOf, waitWithin, type Patience } from './caller-patience';
import type { Applied } from './carry-through';
import type { ChangeOrder, TrafficChanges } from './traffic-changes';
import { readShare, wireShare } from './traffic-client';
import { BadRequestError, PreconditionError, statusOf, StillCarryingError, StoppingError } from './traffic-errors';
import {
  awaitViolations,
  cellViolations,
  refuse,
  requestHashes,
  required,
  splitRequestViolations,
  type ApplySplitRequest,
  type AwaitRequest,
  type CellRequest,
  type ChangeRequest,
  type DrainRequest,
  type OrderRequest,
  type RemoveRequest,
} from './traffic-requests';
import type { TrafficStore } from './traffic-store';
import { wireLease, wireStop, type TrafficViews } from './traffic-view';
import { watchTraffic, type WatchRequest } from './traffic-watch';
import { WaitingCalls, type WaitLimits } from './waiting-calls';

export interface TrafficApiOptions {
  store: TrafficStore;
  changes: TrafficChanges;
  views: TrafficViews;
  replica: Pick<Replica, 'id' | 'others' | 'standing' | 'onStanding' | 'problem'>;
  acknowledgeTimeoutMs: number;
  limits: WaitLimits;
  log: Logger;
}

/** One call that waits for proxies. */
interface Call extends Patience {
  method: string;
}

const mostWatchers = 100;

/** How often the health service looks whether the store answers. */
const healthEveryMs = 500;

export class TrafficApi {
  private watchers = 0;
  private readonly health = new HealthImplementation({ '': 'SERVING', [trafficServiceName]: 'SERVING' });
  private healthTimer: NodeJS.Timeout | undefined;
  private isServing = true;
  private readonly waiting: WaitingCalls;
  private readonly stopping = new AbortController();

  constructor(private readonly options: TrafficApiOptions) {
    this.waiting = new WaitingCalls(options.limits);
  }

  /** Adds the traffic API, the standard health service and server reflection. */
  addTo(server: Server): void {
    server.addService(trafficService(), {
      ApplySplit: this.waits((request: ApplySplitRequest, call) => this.applySplit(request, call)),
      AwaitChange: this.waits((request: AwaitRequest, call) => this.awaitChange(request, call)),
      ArmCell: this.waits((request: CellRequest, call) => this.armCell(request, call)),
      DrainCell: this.waits((request: DrainRequest, call) => this.drainCell(request, call)),
      RemoveCell: this.waits((request: RemoveRequest, call) => this.removeCell(request, call)),
      RenewLease: this.method((request: { service: string; by: string }) => this.renewLease(request)),
      GetTraffic: this.method((request: { service: string }) => this.getTraffic(request.service)),
      Stop: this.method((request: OrderRequest) => this.stop(request)),
      Resume: this.method((request: OrderRequest) => this.resume(request)),
      Watch: (call: ServerWritableStream<WatchRequest, object>) => void this.watch(call),
    });
    this.health.addToServer(server);
    new ReflectionService(trafficPackage(), { services: [trafficServiceName] }).addToServer(server);
    this.healthTimer = setInterval(() => this.reviewHealth(), healthEveryMs);
    this.healthTimer.unref();
  }

  close(): void {
    clearInterval(this.healthTimer);
    // A stream that is never ended by its watcher would keep the process.
    this.stopping.abort();
    this.health.setStatus(trafficServiceName, 'NOT_SERVING');
  }

  private async applySplit(request: ApplySplitRequest, call: Call): Promise<object> {
    const { split, expected_epoch, lease_ms, release_lease } = request;
    refuse(splitRequestViolations(request));
    const order = { ...orderOf(request, call), leaseMs: lease_ms || undefined, releaseLease: release_lease };
    return wireApplied(await this.options.changes.apply(order, expected_epoch, split.map(readShare)));
  }

  private async awaitChange(request: AwaitRequest, patience: Call): Promise<object> {
    refuse(awaitViolations(request));
    const { service, idempotency_key: idempotencyKey, wait_ms: waitMs } = request;
    const { changes } = this.options;
    await changes.current(service);
    return wireApplied(await changes.await({ service, idempotencyKey, waitMs, patience }));
  }

  private async armCell(request: CellRequest, call: Call): Promise<object> {
    refuse(cellViolations(request));
    const { service, cell } = request;
    const instances = (await this.cellOf(service, cell)).instances.length;
    const applied = await this.options.changes.decide(orderOf(request, call), ({ split }) => {
      const share = split.find((s) => s.cell === cell);
      if (share && share.shareBp > 0) {
        throw new PreconditionError(
          `cell ${cell} carries ${share.shareBp} bp of ${service}: it cannot be made mere cover; take its share away first`,
        );
      }
      if (instances === 0) {
        const problem = `cell ${cell} of service ${service} has no instances to stand as cover`;
        throw new BadRequestError([{ field: 'cell', problem }]);
      }
      const armed: CellShare = { cell, shareBp: 0, coverInstances: instances };
      return [...split.filter((s) => s !== share), armed];
    });
    return wireApplied(applied);
  }

  private async drainCell(request: DrainRequest, call: Call): Promise<object> {
    refuse(cellViolations(request));
    const { service, cell, to } = request;
    await this.cellOf(service, cell);
    if (to !== '') await this.cellOf(service, to, 'to');
    if (to === cell) throw new BadRequestError([{ field: 'to', problem: `${cell} cannot take its own share` }]);
    const began = performance.now();
    const applied = await this.options.changes.decide(orderOf(request, call), ({ split }) =>
      drainingSplit(service, split, cell, to || undefined),
    );
    const answer = { applied: wireApplied(applied), drained: false, requests_in_flight: 0, unreported: [] as string[] };
    if (applied.outcome !== 'COMPLETE' || applied.pending.length > 0) {
      return { ...answer, words: `${cell} may still get requests: ${wordsOf(applied)}` };
    }
    const carries = applied.state.split.find((s) => s.cell === cell)?.shareBp ?? 0;
    if (carries > 0) return { ...answer, words: `${cell} has been given ${carries} bp again since` };
    const leftMs = waitWithin(call, this.waitMs(request) - (performance.now() - began));
    const { verdict, requestsInFlight, unreported, words } = await untilQuiet(
      this.options.views,
      service,
      cell,
      leftMs,
      call.hasLeft,
    );
    return { ...answer, drained: verdict === 'quiet', requests_in_flight: requestsInFlight, unreported, words };
  }

  private async removeCell(request: RemoveRequest, call: Call): Promise<object> {
    refuse(cellViolations(request));
    const { service, cell, despite_measured } = request;
    // For all attempts together, however often the split is changed meanwhile.
    const until = performance.now() + waitWithin(call, this.waitMs(request));
    const { hasLeft } = call;
    const applied = await this.options.changes.decide(orderOf(request, call), async ({ split }) => {
      const share = split.find((s) => s.cell === cell);
      if (!share) return split;
      if (share.shareBp > 0) {
        throw new PreconditionError(
          `cell ${cell} carries ${share.shareBp} bp of ${service}: give its share to others before it is removed`,
        );
      }
      if (!despite_measured) {
        const leftMs = Math.max(0, until - performance.now());
        const { verdict, words } = await untilQuiet(this.options.views, service, cell, leftMs, hasLeft);
        if (hasLeft()) throw new StillCarryingError(`cell ${cell} of ${service} is not removed: the caller has left`);
        if (verdict !== 'quiet') throw new StillCarryingError(`cell ${cell} of ${service} is not removed: ${words}`);
      }
      return split.filter((s) => s !== share);
    });
    return wireApplied(applied);
  }

  private async renewLease({ service, by }: { service: string; by: string }): Promise<object> {
    refuse(required({ service, by }, 'service', 'by'));
    await this.options.changes.current(service);
    return wireLease(await this.options.store.renewLease(service, by));
  }

  private async getTraffic(service: string): Promise<object> {
    refuse(required({ service }, 'service'));
    return this.options.views.view(await this.options.changes.current(service));
  }

  private async stop({ by, reason }: OrderRequest): Promise<object> {
    refuse(required({ by, reason }, 'by', 'reason'));
    const stop = await this.options.store.stopFleet(by, reason);
    // The first stop stays: who ordered that one is said.
    this.options.log.warn({ by, reason }, `all automatic changes are stopped, by ${stop.by}: ${stop.reason}`);
    return wireStop(stop);
  }

  private async resume({ by, reason }: OrderRequest): Promise<object> {
    refuse(required({ by, reason }, 'by', 'reason'));
    const ended = await this.options.store.resumeFleet(by, reason);
    this.options.log.warn({ by, reason }, `automatic changes are made again, by ${by}: ${reason}`);
    return { ...ended, stopped: false };
  }

  private async watch(call: ServerWritableStream<WatchRequest, object>): Promise<void> {
    const fail = (error: Error): void => void call.emit('error', this.statusOf(error, call.getPath()));
    if (this.watchers >= mostWatchers) {
      const details = `${mostWatchers} watchers are served already; try another replica or later`;
      call.emit('error', { code: status.RESOURCE_EXHAUSTED, details, metadata: new Metadata() });
      return;
    }
    this.watchers += 1;
    try {
      refuse(required(call.request, 'service'));
      await watchTraffic(call, { ...this.options, stopping: this.stopping.signal });
      if (this.stopping.signal.aborted)
        throw new StoppingError('this control plane is stopping; watch at another, or again');
      call.end();
    } catch (error) {
      fail(error as Error);
    } finally {
      this.watchers -= 1;
    }
  }

  private async cellOf(service: string, cell: string, field = 'cell') {
    await this.options.changes.current(service);
    const cells = await this.options.store.cells(service);
    const found = cells.find((c) => c.name === cell);
    if (found) return found;
    const has = cells.map((c) => c.name).join(', ') || 'none';
    throw new BadRequestError([
      { field, problem: `cell ${cell} is not a cell of service ${service} (it has: ${has})` },
    ]);
  }

  private waitMs({ wait_ms }: ChangeRequest): number {
    return wait_ms || this.options.acknowledgeTimeoutMs;
  }

  private reviewHealth(): void {
    const problem = this.options.replica.problem();
    if ((problem === undefined) === this.isServing) return;
    this.isServing = problem === undefined;
    this.health.setStatus(trafficServiceName, this.isServing ? 'SERVING' : 'NOT_SERVING');
    if (problem) this.options.log.warn(`${problem}: changes are refused, proxies keep what they have`);
    else this.options.log.info('the Configuration Data Store answers again: changes are taken');
  }

  /** A call that may wait for proxies: no longer than its caller does, and not too many of them at once. */
  private waits<Request>(handle: (request: Request, call: Call) => Promise<object>) {
    return this.method(async (request: Request, call: ServerUnaryCall<Request, object>) => {
      const client = callerOf(call.metadata).identity || call.getPeer().replace(/:\d+$/, '');
      const leave = this.waiting.enter(client);
      try {
        const method = call.getPath().split('/').at(-1)!;
        return await handle(request, { ...patienceOf(call), method });
      } finally {
        leave();
      }
    });
  }

  private method<Request>(handle: (request: Request, call: ServerUnaryCall<Request, object>) => Promise<object>) {
    return (call: ServerUnaryCall<Request, object>, callback: sendUnaryData<object>): void => {
      handle(call.request, call).then(
        (answer) => callback(null, answer),
        (error: Error) => callback(this.statusOf(error, call.getPath())),
      );
    };
  }

  private statusOf(error: Error, method: string) {
    const foreseen = statusOf(error);
    if (foreseen) return foreseen;
    const problem = this.options.replica.problem();
    const metadata = new Metadata();
    this.options.log.error({ err: error, method }, `${method} has failed: ${error.message}`);
    if (problem || isStoreFailure(error)) {
      const details = `${problem ?? 'the Configuration Data Store has failed'}: ${error.message}`;
      return { code: status.UNAVAILABLE, details, metadata };
    }
    // A mistake of ours: what it says is for the log, where its stack is.
    const details = `${method} has failed by a fault of the control plane; its log says more`;
    return { code: status.INTERNAL, details, metadata };
  }
}

function orderOf(request: ChangeRequest, patience: Call): ChangeOrder {
  const { service, reason, by, idempotency_key: idempotencyKey, wait_ms: waitMs, override } = request;
  const words = { service, reason, by, idempotencyKey, request: requestHashes(patience.method, request) };
  return { ...words, waitMs, override, patience, leaseMs: undefined, releaseLease: false };
}

function wireApplied(applied: Applied): object {
  const { state, acknowledged, refused, pending, gone, moved, tookMs, outcome, rolledBackEpoch } = applied;
  return {
    epoch: state.epoch,
    split: state.split.map(wireShare),
    acknowledged,
    refused,
    pending,
    gone,
    moved,
    took_ms: Math.round(tookMs),
    outcome,
    rolled_back_epoch: rolledBackEpoch,
    ...(applied.lease && { lease: wireLease(applied.lease) }),
  };
}

function wordsOf({ refused, pending, outcome }: Applied): string {
  const words = [
    ...refused.map(({ node, reason }) => `${node} refused: ${reason}`),
    ...pending.map((n) => `${n} is pending`),
  ];
  return `${outcome.toLowerCase().replace('_', ' ')}${words.length > 0 ? `; ${words.join('; ')}` : ''}`;
}
