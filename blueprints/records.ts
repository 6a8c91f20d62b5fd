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
export type CellState = 'active' | 'provisioning' | 'warming' | 'armed' | 'serving' | 'idle' | 'retired';

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

export interface TrafficChange {
  service: string;
  /** The change is refused unless this is the current epoch. */
  expectedEpoch: number;
  split: CellShare[];
  reason: string;
  by: string;
  /** The same key again returns the state the first call made. */
  idempotencyKey: string;
}

export interface AppliedChange {
  state: TrafficState;
  /** True if this key had been applied before: nothing was changed now. */
  repeated: boolean;
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
