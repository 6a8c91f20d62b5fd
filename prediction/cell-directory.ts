/** Which cells there are and how their services want to be protected, kept at hand for the scoring loop. */
import type { CellRecord, ServiceRecord } from '../blueprints/records';
import type { Policy } from '../blueprints/schema';

export interface KnownCell {
  service: string;
  policy: Policy;
  sloLatencyMs: number;
  sloErrorRatio: number;
  /** Scored like any other, but no failover is ever started for it. */
  synthetic: boolean;
}

export interface CellDirectory {
  find(cell: string): KnownCell | undefined;
  /** Reads the configuration again. Throws if it cannot be read; what was known before then stays. */
  refresh(): Promise<void>;
}

/** The part of the Configuration Data Store that the directory reads. */
export interface CellStore {
  services(): Promise<ServiceRecord[]>;
  cells(): Promise<CellRecord[]>;
}

export class StoreCellDirectory implements CellDirectory {
  private known = new Map<string, KnownCell>();

  constructor(private readonly store: CellStore) {}

  find(cell: string): KnownCell | undefined {
    return this.known.get(cell);
  }

  async refresh(): Promise<void> {
    const [services, cells] = await Promise.all([this.store.services(), this.store.cells()]);
    const specs = new Map(services.map(({ name, spec }) => [name, spec]));
    const next = new Map<string, KnownCell>();
    for (const cell of cells) {
      const spec = specs.get(cell.service);
      if (!spec) continue;
      next.set(cell.name, {
        service: cell.service,
        policy: spec.policy,
        sloLatencyMs: spec.slo.latencyMs,
        sloErrorRatio: spec.slo.errorRatio,
        synthetic: cell.role === 'synthetic',
      });
    }
    this.known = next;
  }
}
