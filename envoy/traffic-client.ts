/** A typed client of the traffic API: plain types in and out, errors that say whether a retry helps. */
import {
  credentials,
  makeGenericClientConstructor,
  status,
  type ChannelCredentials,
  type Client,
  type ClientReadableStream,
  type ServiceError,
  type requestCallback,
} from '@grpc/grpc-js';
import {
  FleetStoppedError,
  LeaseLostError,
  RefusedError,
  StaleEpochError,
  type CellShare,
  type FleetStop,
  type ProxyRefusal,
  type SplitLease,
  type TrafficChange,
  type TrafficState,
} from '../blueprints/records';
import { fewestForP99 } from './latency-ledger';
import type { CellLoad } from './load-ledger';
import { trafficService } from './protos';

/** The whole split; cells that are not named leave the configuration. */
export interface ApplySplit extends Omit<TrafficChange, 'reverts' | 'onExpiredLease' | 'carriedBy' | 'request'> {
  /** Milliseconds to wait for acknowledgements; left out, the control plane's configured time. */
  waitMs?: number;
}

export type CellChange = Omit<ApplySplit, 'expectedEpoch' | 'split' | 'leaseMs' | 'releaseLease'> & { cell: string };

export interface DrainCell extends CellChange {
  /** Who takes the share; left out, the other cells that carry, in proportion. */
  to?: string;
}

export interface RemoveCell extends CellChange {
  /** Remove although load reports show requests in flight, or say nothing. Default false. */
  despiteMeasured?: boolean;
}

/** What became of a change, per proxy. Whoever `refused` runs on with what it had. */
export interface ApplyResult {
  epoch: number;
  split: CellShare[];
  /** Node ids. */
  acknowledged: string[];
  refused: ProxyRefusal[];
  pending: string[];
  gone: string[];
  /** Have answered, at another replica than where they were when the wait began. */
  moved: string[];
  /** Milliseconds from the publish to the last acknowledgement. */
  tookMs: number;
  /**
   * COMPLETE: every proxy that has to has it. PARTIAL: the time was up. HELD: a proxy refused and the split stays.
   * ROLLED_BACK: a proxy refused, and `epoch` and `split` are those that took it back.
   */
  outcome: 'COMPLETE' | 'PARTIAL' | 'HELD' | 'ROLLED_BACK';
  /** The epoch that was taken back; 0 if none was. */
  rolledBackEpoch: number;
  /** What lies on the split with this change. */
  lease?: SplitLease;
}

export interface DrainResult {
  applied: ApplyResult;
  /** True only if load reports from every connected proxy, since its acknowledgement, show nothing of the cell. */
  drained: boolean;
  requestsInFlight: number;
  /** Proxies whose reports say nothing yet about the time since then. */
  unreported: string[];
  words: string;
}

/** What a cell is to carry, and what load reports say that it does. */
export interface CellTraffic extends CellShare, CellLoad {}

/** What went to a cell past the split: copies of callers' requests, and probes. */
export type CellCopies = { cell: string } & Pick<
  CellLoad,
  'requestsTotal' | 'errorsTotal' | 'requestsInFlight' | 'ageMs'
>;

export interface TrafficView {
  service: string;
  epoch: number;
  cells: CellTraffic[];
  /** Proxies connected now, at any replica. */
  proxies: string[];
  /** The fleet-wide stop, if it is in force. */
  stop?: FleetStop;
  lease?: SplitLease;
  replicas?: { id: string; silentMs: number; proxies: number; epoch: number }[];
  /** Left out by a control plane of a version before it. */
  copies?: CellCopies[];
}

/** What a watcher is told. */
export type TrafficEvent =
  | { kind: 'change'; change: TrafficState & { reason: string; by: string; at: string; revertsEpoch: number } }
  | { kind: 'progress'; progress: { epoch: number; acknowledged: number; refused: ProxyRefusal[]; pending: string[] } }
  | { kind: 'loads'; loads: TrafficView }
  | { kind: 'fleet'; stop: FleetStop | undefined };

/** The control plane could not be reached or failed; nothing is wrong with the request, so a retry helps. */
export class TrafficUnavailableError extends Error {
  override readonly name = 'TrafficUnavailableError';
  readonly retryable = true;
}

/**
 * The idempotency key was used for another request. Do not repeat this one under it; `awaitChange` says what became of
 * the other.
 */
export class KeyReusedError extends RefusedError {}

/** The change is made, but cannot be published as the service is. The same call again waits for it, once that is mended. */
export class UnpublishedError extends TrafficUnavailableError {}

/** Somebody else's lease lives on the split. */
export class LeasedError extends RefusedError {}

/** Load reports show that the cell still carries traffic, or do not show that it does not. Later they may. */
export class StillCarryingError extends Error {
  override readonly name = 'StillCarryingError';
  readonly retryable = true;
}

/** Trailers by which the server tells the typed errors apart. */
export const errorTrailers = {
  kind: 'understudy-error',
  expected: 'understudy-expected',
  actual: 'understudy-actual',
  stop: 'understudy-stop',
};

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
    const { expectedEpoch: expected_epoch, leaseMs: lease_ms = 0, releaseLease: release_lease = false } = change;
    const request = {
      ...wireChange(change),
      expected_epoch,
      lease_ms,
      release_lease,
      split: change.split.map(wireShare),
    };
    return readResult(await this.call('ApplySplit', request, change.service, change.waitMs));
  }

  /**
   * Waits again for a change that was made under this key before, and says what became of it. Throws RefusedError if
   * none was.
   */
  async awaitChange(service: string, idempotencyKey: string, waitMs = 0): Promise<ApplyResult> {
    const request = { service, idempotency_key: idempotencyKey, wait_ms: waitMs };
    return readResult(await this.call('AwaitChange', request, service, waitMs));
  }

  /** Puts all instances of a cell that carries no share behind the others, as cover. */
  async armCell(change: CellChange): Promise<ApplyResult> {
    const request = { ...wireChange(change), cell: change.cell };
    return readResult(await this.call('ArmCell', request, change.service, change.waitMs));
  }

  /** Takes a cell's share to 0 and watches its requests in flight end. Repeat it with the same key until it is drained. */
  async drainCell(change: DrainCell): Promise<DrainResult> {
    const request = { ...wireChange(change), cell: change.cell, to: change.to ?? '' };
    const { applied, requests_in_flight, ...rest } = (await this.call(
      'DrainCell',
      request,
      change.service,
      change.waitMs,
    )) as Omit<DrainResult, 'requestsInFlight'> & { requests_in_flight: number };
    return { ...rest, applied: readResult(applied), requestsInFlight: requests_in_flight };
  }

  /**
   * Takes a cell out of the service's configuration once it neither is to carry nor, by load reports, does. Throws
   * StillCarryingError if the reports do not show that in time.
   */
  async removeCell(change: RemoveCell): Promise<ApplyResult> {
    const request = { ...wireChange(change), cell: change.cell, despite_measured: change.despiteMeasured ?? false };
    return readResult(await this.call('RemoveCell', request, change.service, change.waitMs));
  }

  /** Extends the lease on a service's split by its own duration. Throws LeaseLostError if it is not the holder's. */
  async renewLease(service: string, by: string): Promise<SplitLease> {
    return readLease((await this.call('RenewLease', { service, by }, service)) as WireLease);
  }

  /** Freezes every automatic change of every service; splits stay as they are. */
  async stop(by: string, reason: string): Promise<FleetStop> {
    return readStop((await this.call('Stop', { by, reason }, '')) as WireStop)!;
  }

  /** Answers the stop that it ended, if there was one. */
  async resume(by: string, reason: string): Promise<FleetStop | undefined> {
    const ended = (await this.call('Resume', { by, reason }, '')) as WireStop;
    return ended.since === '' ? undefined : readStop({ ...ended, stopped: true });
  }

  /** Every change after an epoch, in order, what becomes of it, and loads. Ends by error, or when the signal aborts. */
  async *watch(
    service: string,
    {
      fromEpoch = 0,
      loadsEveryMs = 0,
      signal,
    }: { fromEpoch?: number; loadsEveryMs?: number; signal?: AbortSignal } = {},
  ): AsyncGenerator<TrafficEvent> {
    const stub = this.client as unknown as Record<string, (request: object) => ClientReadableStream<WireEvent>>;
    const call = stub.Watch!.call(this.client, { service, from_epoch: fromEpoch, loads_every_ms: loadsEveryMs });
    const cancel = (): void => call.cancel();
    // A signal that was given before tells nobody any more.
    if (signal?.aborted) cancel();
    signal?.addEventListener('abort', cancel, { once: true });
    try {
      for await (const event of call) yield readEvent(service, event as WireEvent);
    } catch (error) {
      if (!signal?.aborted) throw typedError(error as ServiceError, service, this.address);
    } finally {
      signal?.removeEventListener('abort', cancel);
      call.cancel();
    }
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
  if (trailer(errorTrailers.kind) === 'stopped') {
    return new FleetStoppedError(JSON.parse(trailer(errorTrailers.stop)!) as FleetStop);
  }
  if (trailer(errorTrailers.kind) === 'still-carrying') return new StillCarryingError(error.details, { cause: error });
  if (trailer(errorTrailers.kind) === 'lease-lost') return new LeaseLostError(error.details, { cause: error });
  if (trailer(errorTrailers.kind) === 'key-reused') return new KeyReusedError(error.details, { cause: error });
  if (trailer(errorTrailers.kind) === 'leased') return new LeasedError(error.details, { cause: error });
  if (trailer(errorTrailers.kind) === 'unpublished') return new UnpublishedError(error.details, { cause: error });
  const refused = [
    status.INVALID_ARGUMENT,
    status.FAILED_PRECONDITION,
    status.NOT_FOUND,
    status.OUT_OF_RANGE,
    status.PERMISSION_DENIED,
  ];
  if (refused.includes(error.code)) {
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
    override: change.override ?? false,
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

interface WireLease {
  service: string;
  epoch: number;
  holder: string;
  duration_ms: number;
  remaining_ms: number;
}
type WireStop = FleetStop & { stopped: boolean };
interface WireView {
  service: string;
  epoch: number;
  cells: WireTraffic[];
  proxies: string[];
  fleet: WireStop | null;
  lease: WireLease | null;
  replicas: { id: string; silent_ms: number; proxies: number; epoch: number }[];
  copies: { cell: string; requests_total: number; errors_total: number; requests_in_flight: number; age_ms: number }[];
}
interface WireEvent {
  event: 'change' | 'progress' | 'loads' | 'fleet';
  change?: { epoch: number; split: WireShare[]; reason: string; by: string; at: string; reverts_epoch: number };
  progress?: { epoch: number; acknowledged: number; refused: ProxyRefusal[]; pending: string[] };
  loads?: WireView;
  fleet?: WireStop;
}

function readResult(answer: unknown): ApplyResult {
  const { split, took_ms, rolled_back_epoch, lease, ...rest } = answer as Omit<
    ApplyResult,
    'split' | 'tookMs' | 'rolledBackEpoch' | 'lease'
  > & {
    split: WireShare[];
    took_ms: number;
    rolled_back_epoch: number;
    lease: WireLease | null;
  };
  return {
    ...rest,
    split: split.map(readShare),
    tookMs: took_ms,
    rolledBackEpoch: rolled_back_epoch,
    ...(lease && { lease: readLease(lease) }),
  };
}

function readLease({ service, epoch, holder, duration_ms, remaining_ms }: WireLease): SplitLease {
  return { service, epoch, holder, durationMs: duration_ms, remainingMs: remaining_ms };
}

function readStop(stop: WireStop | null | undefined): FleetStop | undefined {
  return stop?.stopped ? { by: stop.by, reason: stop.reason, since: stop.since } : undefined;
}

function readEvent(service: string, { event, change, progress, loads, fleet }: WireEvent): TrafficEvent {
  if (event === 'change' && change) {
    const { split, reverts_epoch, ...rest } = change;
    return {
      kind: 'change',
      change: { ...rest, service, split: split.map(readShare), revertsEpoch: reverts_epoch },
    };
  }
  if (event === 'progress' && progress) return { kind: 'progress', progress };
  if (event === 'loads' && loads) return { kind: 'loads', loads: readView(loads) };
  return { kind: 'fleet', stop: readStop(fleet) };
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
  const { cells, fleet, lease, replicas, copies, service, epoch, proxies } = answer as WireView;
  const stop = readStop(fleet);
  return {
    service,
    epoch,
    proxies,
    ...(stop && { stop }),
    ...(lease && { lease: readLease(lease) }),
    replicas: replicas.map(({ silent_ms, ...rest }) => ({ ...rest, silentMs: silent_ms })),
    cells: cells.map((cell) => ({ ...readShare(cell), ...readLoad(cell) })),
    copies: copies.map((c) => ({
      cell: c.cell,
      requestsTotal: c.requests_total,
      errorsTotal: c.errors_total,
      requestsInFlight: c.requests_in_flight,
      ageMs: c.age_ms,
    })),
  };
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
