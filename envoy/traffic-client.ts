/** A typed client of the traffic API: plain types in and out, errors that say whether a retry helps. */
import {
  credentials,
  makeGenericClientConstructor,
  status,
  type ChannelCredentials,
  type Client,
  type ServiceError,
  type requestCallback,
} from '@grpc/grpc-js';
import { RefusedError, StaleEpochError, type CellShare, type TrafficChange } from '../blueprints/records';
import { fewestForP99 } from './latency-ledger';
import type { CellLoad } from './load-ledger';
import { trafficService } from './protos';

/** The whole split; cells that are not named leave the configuration. */
export interface ApplySplit extends TrafficChange {
  /** Milliseconds to wait for acknowledgements; left out, the control plane's configured time. */
  waitMs?: number;
}

export type CellChange = Omit<ApplySplit, 'expectedEpoch' | 'split'> & { cell: string };

/** What became of a change, per proxy. Whoever `refused` runs on with what it had. */
export interface ApplyResult {
  epoch: number;
  split: CellShare[];
  /** Node ids. */
  acknowledged: string[];
  refused: { node: string; resource: string; reason: string }[];
  pending: string[];
  gone: string[];
  /** Milliseconds from the publish to the last acknowledgement. */
  tookMs: number;
}

/** What a cell is to carry, and what load reports say that it does. */
export interface CellTraffic extends CellShare, CellLoad {}

export interface TrafficView {
  service: string;
  epoch: number;
  cells: CellTraffic[];
  /** Proxies connected now. */
  proxies: string[];
}

/** The control plane could not be reached or failed; nothing is wrong with the request, so a retry helps. */
export class TrafficUnavailableError extends Error {
  override readonly name = 'TrafficUnavailableError';
  readonly retryable = true;
}

/** Trailers by which the server tells the typed errors apart. */
export const errorTrailers = { kind: 'understudy-error', expected: 'understudy-expected', actual: 'understudy-actual' };

type Call = (request: object, options: { deadline: number }, callback: requestCallback<unknown>) => void;

/** How much longer than the control plane's own wait a call may take. */
const graceMs = 10_000;

export class TrafficClient {
  private readonly client: Client;

  /** @param address host:port of the control plane's traffic API. Plaintext unless credentials are given. */
  constructor(
    readonly address: string,
    channel: ChannelCredentials = credentials.createInsecure(),
  ) {
    const TrafficStub = makeGenericClientConstructor(trafficService(), 'Traffic');
    this.client = new TrafficStub(address, channel, {
      // A control plane that restarts is met again within a second.
      'grpc.initial_reconnect_backoff_ms': 100,
      'grpc.max_reconnect_backoff_ms': 1000,
    });
  }

  /** Replaces the service's split. Throws StaleEpochError, RefusedError (do not repeat) or TrafficUnavailableError (do). */
  async applySplit(change: ApplySplit): Promise<ApplyResult> {
    const request = { ...wireChange(change), expected_epoch: change.expectedEpoch, split: change.split.map(wireShare) };
    return readResult(await this.call('ApplySplit', request, change.service, change.waitMs));
  }

  /** Puts all instances of a cell that carries no share behind the others, as cover. */
  async armCell(change: CellChange): Promise<ApplyResult> {
    const request = { ...wireChange(change), cell: change.cell };
    return readResult(await this.call('ArmCell', request, change.service, change.waitMs));
  }

  /** Takes a cell that carries no share out of the service's configuration. */
  async removeCell(change: CellChange): Promise<ApplyResult> {
    const request = { ...wireChange(change), cell: change.cell };
    return readResult(await this.call('RemoveCell', request, change.service, change.waitMs));
  }

  /** The split as commanded and as measured by load reports. */
  async getTraffic(service: string): Promise<TrafficView> {
    return readView(await this.call('GetTraffic', { service }, service));
  }

  close(): void {
    this.client.close();
  }

  private call(method: string, request: object, service: string, waitMs = 0): Promise<unknown> {
    const stub = this.client as unknown as Record<string, Call>;
    const deadline = Date.now() + waitMs + graceMs;
    return new Promise((resolve, reject) => {
      stub[method]!.call(this.client, request, { deadline }, (error: ServiceError | null, answer?: unknown) =>
        error ? reject(typedError(error, service, this.address)) : resolve(answer),
      );
    });
  }
}

function typedError(error: ServiceError, service: string, address: string): Error {
  const trailer = (key: string): string | undefined => error.metadata.get(key)[0]?.toString();
  if (trailer(errorTrailers.kind) === 'stale-epoch') {
    return new StaleEpochError(service, Number(trailer(errorTrailers.expected)), Number(trailer(errorTrailers.actual)));
  }
  if (
    [status.INVALID_ARGUMENT, status.FAILED_PRECONDITION, status.NOT_FOUND, status.PERMISSION_DENIED].includes(
      error.code,
    )
  ) {
    return new RefusedError(error.details, { cause: error });
  }
  return new TrafficUnavailableError(`traffic API at ${address}: ${error.details} (${status[error.code]}); try again`, {
    cause: error,
  });
}

function wireChange(change: CellChange | ApplySplit): object {
  return {
    service: change.service,
    reason: change.reason,
    by: change.by,
    idempotency_key: change.idempotencyKey,
    wait_ms: change.waitMs ?? 0,
  };
}

/** CellShare as the wire has it. */
export interface WireShare {
  cell: string;
  share_bp: number;
  cover_instances: number;
}

export function wireShare(share: CellShare): WireShare {
  return { cell: share.cell, share_bp: share.shareBp, cover_instances: share.coverInstances };
}

export function readShare(share: WireShare): CellShare {
  return { cell: share.cell, shareBp: share.share_bp, coverInstances: share.cover_instances };
}

function readResult(answer: unknown): ApplyResult {
  const { split, took_ms, ...rest } = answer as Omit<ApplyResult, 'split' | 'tookMs'> & {
    split: WireShare[];
    took_ms: number;
  };
  return { ...rest, split: split.map(readShare), tookMs: took_ms };
}

interface WireTraffic extends WireShare {
  measured: boolean;
  requests_per_second: number;
  error_ratio: number;
  requests_in_flight: number;
  measured_bp: number;
  age_ms: number;
  requests_total: number;
  errors_total: number;
  measured_low_bp: number;
  measured_high_bp: number;
  requests_seen: number;
  silent_proxies: string[];
  starting_proxies: string[];
  latency: { p50_ms: number; p99_ms?: number; samples: number; age_ms: number } | null;
}

function readView(answer: unknown): TrafficView {
  const { cells, ...rest } = answer as Omit<TrafficView, 'cells'> & { cells: WireTraffic[] };
  return { ...rest, cells: cells.map((cell) => ({ ...readShare(cell), ...readLoad(cell) })) };
}

function readLoad(c: WireTraffic): CellLoad {
  const { latency } = c;
  return {
    measured: c.measured,
    requestsPerSecond: c.requests_per_second,
    errorRatio: c.error_ratio,
    requestsInFlight: c.requests_in_flight,
    measuredBp: c.measured_bp,
    ageMs: c.age_ms,
    requestsTotal: c.requests_total,
    errorsTotal: c.errors_total,
    measuredLowBp: c.measured_low_bp,
    measuredHighBp: c.measured_high_bp,
    requestsSeen: c.requests_seen,
    silentProxies: c.silent_proxies,
    startingProxies: c.starting_proxies,
    ...(latency && {
      latency: {
        p50Ms: latency.p50_ms,
        p99Ms: latency.samples >= fewestForP99 ? latency.p99_ms : undefined,
        samples: latency.samples,
        ageMs: latency.age_ms,
      },
    }),
  };
}
