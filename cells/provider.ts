/** The port behind which infrastructure lies: whoever can run the instances of a cell. */
import type { BlueprintDocument } from '../blueprints/schema';

/** What is to run. `ensure` with the same cell name is idempotent. */
export interface CellSpec {
  cell: string;
  service: string;
  /** Who answers for the cell: a failover's workflow id, or `operator`. Found again by `list`. */
  owner: string;
  blueprint: BlueprintDocument;
}

export type InstancePhase = 'absent' | 'provisioning' | 'ready' | 'failed' | 'deleting';

export interface ObservedInstance {
  name: string;
  address: string;
  port: number;
  phase: InstancePhase;
  /** Set when something is wrong: what, in a sentence. */
  reason?: string;
  pid?: number;
}

export interface ObservedCell {
  cell: string;
  service: string;
  owner: string;
  /** `ready` only if every instance is; `failed` if any has failed. */
  phase: InstancePhase;
  instances: ObservedInstance[];
  /** ISO 8601. */
  observedAt: string;
}

export interface CellProvider {
  readonly kind: string;
  /** Begins to make the cell what the spec says and returns at once. Safe to call again at any time, also after a crash in mid-call. */
  ensure(spec: CellSpec): Promise<ObservedCell>;
  /** What is really there now. An unknown cell is `absent`. */
  observe(cell: string): Promise<ObservedCell>;
  /** Removes the cell and all it holds; an absent cell is fine. */
  destroy(cell: string): Promise<void>;
  /** Every cell of an owner, or all. */
  list(owner?: string): Promise<ObservedCell[]>;
}
