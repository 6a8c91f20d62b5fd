/** The port behind which infrastructure lies: whoever can run the instances of a cell. docs/providers.md tells its promises. */
import type { BlueprintDocument } from '../blueprints/schema';
import type { IdentityFiles } from './identity/identity-files';
import type { TargetTls } from './identity/target-tls';

/** What is to run. `ensure` with the same cell name is idempotent. */
export interface CellSpec {
  cell: string;
  service: string;
  /** Who answers for the cell: a failover's workflow id, or `operator`. Found again by `list`. */
  owner: string;
  blueprint: BlueprintDocument;
  /** Seconds from now for which the cell is kept though nobody renews its lease. Left out: the lease stays as it is. */
  leaseS?: number;
  /** By instance: where its key and certificate lie. Only where the blueprint gives cells an identity. */
  identity?: Readonly<Record<string, IdentityFiles>>;
}

/** What we show of ourselves to cells that have an identity, when they are asked whether they are ready. */
export type OwnTls = () => Promise<TargetTls>;

/** `frozen`: what runs of it stands still and keeps its memory. `stopped`: it is ended, to be started again. */
export type IdleWay = 'frozen' | 'stopped';

/** `idle`: kept, but it does not run; `ensure` wakes it. */
export type InstancePhase = 'absent' | 'provisioning' | 'ready' | 'idle' | 'failed' | 'deleting';

/** What holds an instance to its limits now, read back from the system. What is left out is not limited. */
export interface Limits {
  memoryBytes?: number;
  cpus?: number;
  processes?: number;
  /** What enforces them: `cgroup v2`, `cgroup v1`, `prlimit`, `engine`. */
  by: string;
}

export interface ObservedInstance {
  name: string;
  address: string;
  port: number;
  phase: InstancePhase;
  /** Set when something is wrong: what, in a sentence. */
  reason?: string;
  pid?: number;
  limits?: Limits;
}

export interface ObservedCell {
  cell: string;
  service: string;
  owner: string;
  /** `ready` or `idle` only if every instance is; `failed` if any has failed. */
  phase: InstancePhase;
  instances: ObservedInstance[];
  /** ISO 8601. */
  observedAt: string;
  /** Until when the cell is kept though nobody renews its lease, ISO 8601. Left out: it has no lease. */
  expiresAt?: string;
}

export interface CellProvider {
  readonly kind: string;
  /**
   * Begins to make the cell what the spec says, wakes it if it lies idle, and returns at once. Safe to call again at any
   * time, also after a crash in mid-call. RefusedError: calling again will not help.
   */
  ensure(spec: CellSpec): Promise<ObservedCell>;
  /** What is really there now. An unknown cell is `absent`. */
  observe(cell: string): Promise<ObservedCell>;
  /** Lets the cell stand by at next to no cost. One that rests already may be asked to rest in the other way. */
  idle(cell: string, how: IdleWay): Promise<ObservedCell>;
  /** Puts the end of the lease `leaseS` seconds from now. False if there is no such cell: nothing is made. */
  renew(cell: string, leaseS: number): Promise<boolean>;
  /** Removes the cell and all it holds; an absent cell is fine. */
  destroy(cell: string): Promise<void>;
  /** Removes the cell if its lease has lapsed or its destruction had begun. False if it is kept. */
  removeLapsed(cell: string): Promise<boolean>;
  /** Every cell of an owner, or all. */
  list(owner?: string): Promise<ObservedCell[]>;
}

/** `ready` or `idle` only if every instance is; `failed` if any has failed. */
export function phaseOf(instances: readonly ObservedInstance[]): InstancePhase {
  if (instances.some(({ phase }) => phase === 'failed')) return 'failed';
  if (instances.every(({ phase }) => phase === 'ready')) return 'ready';
  return instances.every(({ phase }) => phase === 'idle') ? 'idle' : 'provisioning';
}

export function isLapsed({ expiresAt }: Pick<ObservedCell, 'expiresAt'>, now = Date.now()): boolean {
  return expiresAt !== undefined && Date.parse(expiresAt) <= now;
}

/** The end of a lease of so many seconds that begins now. */
export function leaseEnd(leaseS: number): string {
  return new Date(Date.now() + leaseS * 1000).toISOString();
}

export function instanceNames({ cell, blueprint }: Pick<CellSpec, 'cell' | 'blueprint'>): string[] {
  return Array.from({ length: blueprint.resources.instances }, (_, i) => `${cell}-${i + 1}`);
}
