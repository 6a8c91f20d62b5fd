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

export interface Location {
  cell: string;
  instance?: string;
}

export interface CellDirectory {
  find(cell: string): KnownCell | undefined;
  /**
   * The declared instance with that name, address or address:port. Undefined if there is none, or if several cells
   * share it; without `instance` if several of one cell do.
   */
  locate?(nameOrAddress: string): Location | undefined;
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
  /** Null: shared by several cells. */
  private located = new Map<string, Location | null>();

  constructor(private readonly store: CellStore) {}

  find(cell: string): KnownCell | undefined {
    return this.known.get(cell);
  }

  locate(nameOrAddress: string): Location | undefined {
    const found = this.located.get(nameOrAddress);
    if (found !== undefined) return found ?? undefined;
    // A scraper names the port of its exporter, not the service's.
    const address = /^(.+):\d+$/.exec(nameOrAddress)?.[1];
    return address === undefined ? undefined : (this.located.get(address) ?? undefined);
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
    this.located = locations(cells.filter((cell) => cell.state !== 'retired'));
  }
}

function locations(cells: readonly CellRecord[]): Map<string, Location | null> {
  const located = new Map<string, Location | null>();
  const add = (name: string, cell: string, instance: string) => {
    const other = located.get(name);
    if (other === undefined) located.set(name, { cell, instance });
    else if (other?.cell !== cell) located.set(name, null);
    else if (other.instance !== instance) located.set(name, { cell });
  };
  for (const { name: cell, instances } of cells) {
    for (const { name, address, port } of instances) {
      for (const key of new Set([name, address, `${address}:${port}`])) add(key, cell, name);
    }
  }
  return located;
}
