/** What the Configuration Data Store holds, as its callers see it. */
import type { BlueprintDocument, Instance, ServiceDocument } from './schema';

export interface BlueprintVersion {
  name: string;
  /** Grows by one whenever the content changes. */
  version: number;
  spec: BlueprintDocument;
}

export type CellRole = 'primary' | 'secondary' | 'synthetic';

/** Where a cell is in its life. Declared cells are always `active`. */
/** `quarantined`: a declared cell whose whole share a failover has taken; it is watched, under copies of requests. */
export type CellState =
  'active' | 'quarantined' | 'provisioning' | 'warming' | 'armed' | 'serving' | 'idle' | 'retired';

export interface CellRecord {
  name: string;
  service: string;
  role: CellRole;
  zone: string;
  blueprint: { name: string; version: number };
  state: CellState;
  instances: Instance[];
  /** The cell a synthetic one stands in for; null for declared cells. */
  sourceCell: string | null;
  /** The failover (workflow id) that holds the synthetic cell; null when nobody does. */
  owner: string | null;
  /** How it rests; left out once it has been woken and is ready. */
  rest?: CellRest;
}

/** How an idle cell waits, and why so. `running`: it could not be laid idle, or keeps data. */
export interface CellRest {
  how: 'frozen' | 'stopped' | 'running';
  why: string;
}

/** Where the processes of a synthetic cell were started from: nothing, or a rest for which they had been ended. */
export type StartedFrom = 'nothing' | 'stopped';

/** One start of a synthetic cell's processes. */
export interface CellStart {
  cell: string;
  from: StartedFrom;
  /** From asking the provider until all instances were ready. */
  readyMs: number;
  /**
   * What the steps of its warm-up plan took after that whose length is the cell's doing, over all runs of the plan; null:
   * it has not been warm since.
   */
  warmMs: number | null;
}

export interface CellShare {
  cell: string;
  /** Basis points; all shares of a service add up to 10,000. */
  shareBp: number;
  /** Instances, counted from the last, that stand as cover at priority 1 rather than taking the share. */
  coverInstances: number;
}

/** A service's commanded split. The epoch grows by one at every accepted change. */
export interface TrafficState {
  service: string;
  epoch: number;
  split: CellShare[];
}

/** What was asked for: the hash of each field that makes the request what it is, by the field's name. */
export type RequestHashes = Record<string, string>;

export interface TrafficChange {
  service: string;
  /** The change is refused unless this is the current epoch. */
  expectedEpoch: number;
  split: CellShare[];
  reason: string;
  by: string;
  /** The same key again returns the state the first call made. */
  idempotencyKey: string;
  /** Kept beside the key. */
  request?: RequestHashes;
  /** A person's decision: it is made even while the fleet is stopped. Default false. */
  override?: boolean;
  /**
   * A time after which the split returns to the safe one unless its holder, `by`, renews. Left out, a lease that lives
   * stays on the split, its holder's and as long as it was; without one the split stays.
   */
  leaseMs?: number;
  /** Ends a lease that lives, whoever holds it, or lets this change's own take its place. Default false. */
  releaseLease?: boolean;
  /** This change takes back that epoch, which proxies refused. A lease that lay on it stays. */
  reverts?: { epoch: number; refused: ProxyRefusal[] };
  /** The control plane that waits for the proxies and takes the change back if one refuses. Left out: nobody does. */
  carriedBy?: string;
  /** Only if a lease lies on the expected epoch and has run out by the database's clock. */
  onExpiredLease?: boolean;
}

/** A proxy that kept what it had. */
export interface ProxyRefusal {
  node: string;
  /** Type and name of what it refused. */
  resource: string;
  reason: string;
}

/** Who must renew the split of that epoch, and by when. */
export interface SplitLease {
  service: string;
  epoch: number;
  holder: string;
  durationMs: number;
  /** By the database's clock; negative once it has run out. */
  remainingMs: number;
}

/** All automatic changes are frozen. */
export interface FleetStop {
  by: string;
  reason: string;
  /** ISO 8601, by the database's clock. */
  since: string;
}

export interface AppliedChange {
  state: TrafficState;
  /** True if this key had been applied before: nothing was changed now. */
  repeated: boolean;
  /** Of the call that made it; left out where that is not known. */
  request?: RequestHashes;
  /** What lies on the service's split now. */
  lease?: SplitLease;
  /** The change that took this one back since: its state, and which proxies had refused what. */
  revertedBy?: { state: TrafficState; refused: ProxyRefusal[] };
}

/** What `understudy apply` did to one document. */
export interface DocumentChange {
  kind: 'Service' | 'Cell' | 'Blueprint';
  name: string;
  action: 'created' | 'changed' | 'unchanged';
  /** Paths within the document that differ, for `changed`. */
  paths: string[];
}

export interface ServiceRecord {
  name: string;
  spec: ServiceDocument;
}

/** The compare-and-swap found another epoch: somebody else changed the split first. */
export class StaleEpochError extends Error {
  override readonly name = 'StaleEpochError';
  constructor(
    readonly service: string,
    readonly expected: number,
    readonly actual: number,
  ) {
    super(`service ${service}: the split is at epoch ${actual}, not ${expected}; read it again and decide anew`);
  }
}

/** A document, name or split that cannot be accepted; the message says where and why. */
export class RefusedError extends Error {
  override readonly name = 'RefusedError';
}

/** The fleet-wide stop is in force: no automatic change is made until a person resumes. */
export class FleetStoppedError extends Error {
  override readonly name = 'FleetStoppedError';
  constructor(readonly stop: FleetStop) {
    super(
      `all automatic changes are stopped since ${stop.since} by ${stop.by} (${stop.reason}); the split stays as it is until somebody resumes`,
    );
  }
}

/** Somebody else's lease lives on the split: another is not laid over it. */
export class LeaseHeldError extends RefusedError {
  constructor({ service, epoch, holder, remainingMs }: SplitLease) {
    super(
      `service ${service}: its split is leased to ${holder} since epoch ${epoch}, for ${remainingMs} ms more unless renewed; change it without a lease, or release that one`,
    );
  }
}

/** The lease is not this holder's any more, or there is none. */
export class LeaseLostError extends RefusedError {}
