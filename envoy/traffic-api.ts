/** The traffic API: changes a service's split in the store, then at the proxies, and answers what became of it there. */
import { Metadata, status, type sendUnaryData, type Server, type ServerUnaryCall } from '@grpc/grpc-js';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import {
  RefusedError,
  StaleEpochError,
  type CellShare,
  type TrafficChange,
  type TrafficState,
} from '../blueprints/records';
import { splitProblems } from '../blueprints/splits';
import type { CellLoad } from './load-ledger';
import { trafficService } from './protos';
import type { Publisher } from './publisher';
import type { ResourceKey } from './resources/resource';
import { errorTrailers, readShare, wireShare, type WireShare } from './traffic-client';
import type { TrafficStore } from './traffic-store';
import type { Acknowledgements } from './xds/server';

export interface TrafficApiOptions {
  store: TrafficStore;
  publisher: Publisher;
  proxies: () => string[];
  acknowledgements: (keys: ResourceKey[], waitMs: number) => Promise<Acknowledgements>;
  loads: (service: string) => Map<string, CellLoad>;
  acknowledgeTimeoutMs: number;
  log: Logger;
}

interface ChangeRequest {
  service: string;
  reason: string;
  by: string;
  idempotency_key: string;
  wait_ms: number;
}
type ApplySplitRequest = ChangeRequest & { expected_epoch: number; split: WireShare[] };
type CellRequest = ChangeRequest & { cell: string };

/** The request is well formed but the present state does not allow it. */
class PreconditionError extends RefusedError {}
class UnknownServiceError extends RefusedError {}

/** Arming and removing read, decide and swap; another change in between means deciding anew, a few times. */
const attempts = 5;

export class TrafficApi {
  constructor(private readonly options: TrafficApiOptions) {}

  addTo(server: Server): void {
    server.addService(trafficService(), {
      ApplySplit: this.method((request: ApplySplitRequest) => this.applySplit(request)),
      ArmCell: this.method((request: CellRequest) => this.armCell(request)),
      RemoveCell: this.method((request: CellRequest) => this.removeCell(request)),
      GetTraffic: this.method((request: { service: string }) => this.getTraffic(request.service)),
    });
  }

  private async applySplit(request: ApplySplitRequest): Promise<object> {
    await this.current(request.service);
    const state = await this.change(request, request.expected_epoch, request.split.map(readShare));
    return this.answer(request, state);
  }

  private async armCell(request: CellRequest): Promise<object> {
    const { service, cell } = request;
    const cells = await this.options.store.cells(service);
    const instances = cells.find((c) => c.name === cell)?.instances.length ?? 0;
    return this.decideAndChange(request, ({ split }) => {
      const share = split.find((s) => s.cell === cell);
      if (share && share.shareBp > 0) {
        throw new PreconditionError(
          `cell ${cell} carries ${share.shareBp} bp of ${service}: it cannot be made mere cover; take its share away first`,
        );
      }
      if (instances === 0)
        throw new RefusedError(`cell ${cell} of service ${service} has no instances to stand as cover`);
      const armed: CellShare = { cell, shareBp: 0, coverInstances: instances };
      return [...split.filter((s) => s !== share), armed];
    });
  }

  private async removeCell(request: CellRequest): Promise<object> {
    const { service, cell } = request;
    return this.decideAndChange(request, ({ split }) => {
      const share = split.find((s) => s.cell === cell);
      if (share && share.shareBp > 0) {
        throw new PreconditionError(
          `cell ${cell} carries ${share.shareBp} bp of ${service}: give its share to others before it is removed`,
        );
      }
      return split.filter((s) => s !== share);
    });
  }

  private async getTraffic(service: string): Promise<object> {
    const { epoch, split } = await this.current(service);
    const loads = this.options.loads(service);
    // A cell that has left the split may still have requests in flight: it is shown as long as reports cover it.
    const leaving = [...loads].filter(([cell, load]) => load.measured && !split.some((s) => s.cell === cell));
    const shares = [...split, ...leaving.map(([cell]): CellShare => ({ cell, shareBp: 0, coverInstances: 0 }))];
    return {
      service,
      epoch,
      cells: shares.map((share) => ({ ...wireShare(share), ...wireLoad(loads.get(share.cell)) })),
      proxies: this.options.proxies(),
    };
  }

  private async decideAndChange(request: CellRequest, decide: (state: TrafficState) => CellShare[]): Promise<object> {
    for (let attempt = 1; ; attempt += 1) {
      const state = await this.current(request.service);
      const split = decide(state);
      if (sameSplit(split, state.split)) return this.answer(request, state);
      try {
        return await this.answer(request, await this.change(request, state.epoch, split));
      } catch (error) {
        if (!(error instanceof StaleEpochError) || attempt === attempts) throw error;
        await sleep(5 * attempt);
      }
    }
  }

  private async current(service: string): Promise<TrafficState> {
    const state = await this.options.store.traffic(service);
    if (!state) throw new UnknownServiceError(`service ${service} is not known; apply its document first`);
    return state;
  }

  /** The store first: what is committed there is published sooner or later, whatever happens to this process. */
  private async change(request: ChangeRequest, expectedEpoch: number, split: CellShare[]): Promise<TrafficState> {
    const { service, reason, by } = request;
    if (request.idempotency_key === '') {
      throw new RefusedError('idempotency_key is empty; give each change a key of its own and repeat it on a retry');
    }
    await this.refuseUnpublishable(service, split);
    const change: TrafficChange = {
      service,
      expectedEpoch,
      split,
      reason,
      by,
      idempotencyKey: request.idempotency_key,
    };
    const { state, repeated } = await this.options.store.changeTraffic(change);
    const words = state.split.map(
      (s) => `${s.cell} ${s.shareBp}${s.coverInstances ? ` +${s.coverInstances} cover` : ''}`,
    );
    this.options.log.info(
      { service, epoch: state.epoch, split: state.split, reason, by, repeated },
      `split of ${service} ${repeated ? 'was already' : 'is now'} ${words.join(', ')} (epoch ${state.epoch}), by ${by}: ${reason}`,
    );
    return state;
  }

  /** What the store accepts but the proxies would misread is refused before it is committed. */
  private async refuseUnpublishable(service: string, split: CellShare[]): Promise<void> {
    const { store, publisher } = this.options;
    const record = (await store.services()).find(({ name }) => name === service);
    const cells = await store.cells(service);
    // Whatever the store itself will judge is left to it: it also knows whether this very change was made before.
    if (!record || splitProblems(split, cells).length > 0) return;
    const { problem } = publisher.build({
      service: record,
      cells,
      traffic: { service, epoch: 0, split },
      blueprints: [],
    });
    if (problem) throw new RefusedError(`service ${service}: ${problem}`);
  }

  private async answer({ service, wait_ms }: ChangeRequest, state: TrafficState): Promise<object> {
    const { publisher, acknowledgements, acknowledgeTimeoutMs, log } = this.options;
    await publisher.refresh(service);
    const problem = publisher.problem(service);
    if (problem) throw new PreconditionError(`service ${service} is committed but cannot be published: ${problem}`);
    const keys = publisher.splitKeys(service);
    const { acked, nacked, pending, gone, tookMs } = await acknowledgements(keys, wait_ms || acknowledgeTimeoutMs);
    log.info(
      { service, epoch: state.epoch, acked: acked.length, refused: nacked.length, pending, gone, tookMs },
      `epoch ${state.epoch} of ${service}: ${acked.length} proxies took it in ${tookMs.toFixed(1)} ms, ${nacked.length} refused, ${pending.length} pending, ${gone.length} gone`,
    );
    return {
      epoch: state.epoch,
      split: state.split.map(wireShare),
      acknowledged: acked,
      refused: nacked.map(({ node, type, resource, error }) => ({
        node,
        resource: `${type} ${resource}`,
        reason: error,
      })),
      pending,
      gone,
      took_ms: Math.round(tookMs),
    };
  }

  private method<Request>(handle: (request: Request) => Promise<object>) {
    return (call: ServerUnaryCall<Request, object>, callback: sendUnaryData<object>): void => {
      handle(call.request).then(
        (answer) => callback(null, answer),
        (error: Error) => callback(this.statusOf(error, call.getPath())),
      );
    };
  }

  private statusOf(error: Error, method: string): { code: status; details: string; metadata: Metadata } {
    const metadata = new Metadata();
    if (error instanceof StaleEpochError) {
      metadata.set(errorTrailers.kind, 'stale-epoch');
      metadata.set(errorTrailers.expected, String(error.expected));
      metadata.set(errorTrailers.actual, String(error.actual));
      return { code: status.FAILED_PRECONDITION, details: error.message, metadata };
    }
    if (error instanceof RefusedError) {
      const precondition = error instanceof PreconditionError ? status.FAILED_PRECONDITION : status.INVALID_ARGUMENT;
      const code = error instanceof UnknownServiceError ? status.NOT_FOUND : precondition;
      return { code, details: error.message, metadata };
    }
    this.options.log.error({ err: error, method }, `${method} has failed: ${error.message}`);
    return { code: status.UNAVAILABLE, details: error.message, metadata };
  }
}

function sameSplit(a: CellShare[], b: CellShare[]): boolean {
  const key = (split: CellShare[]): string =>
    split
      .map((s) => `${s.cell} ${s.shareBp} ${s.coverInstances}`)
      .sort()
      .join();
  return key(a) === key(b);
}

function wireLoad(load: CellLoad | undefined): object {
  if (!load) return { measured: false };
  return {
    measured: load.measured,
    requests_per_second: load.requestsPerSecond,
    error_ratio: load.errorRatio,
    requests_in_flight: load.requestsInFlight,
    measured_bp: load.measuredBp,
    age_ms: Math.round(load.ageMs),
    requests_total: load.requestsTotal,
    errors_total: load.errorsTotal,
    measured_low_bp: load.measuredLowBp,
    measured_high_bp: load.measuredHighBp,
    requests_seen: load.requestsSeen,
    silent_proxies: load.silentProxies,
    starting_proxies: load.startingProxies,
    latency: load.latency && {
      p50_ms: load.latency.p50Ms,
      p99_ms: load.latency.p99Ms,
      samples: load.latency.samples,
      age_ms: Math.round(load.latency.ageMs),
    },
  };
}
