/** The load balancer's view of the Configuration Data Store, in memory: for tests that are not about Postgres. */
import {
  RefusedError,
  StaleEpochError,
  type AppliedChange,
  type BlueprintVersion,
  type CellRecord,
  type ServiceRecord,
  type TrafficChange,
  type TrafficState,
} from '../../blueprints/records';
import type { Instance, ServiceDocument } from '../../blueprints/schema';
import { safeSplit, splitProblems } from '../../blueprints/splits';
import type { TrafficStore } from '../../envoy/traffic-store';
import { blueprintDocument } from './documents';

export function cellRecord(name: string, instances: Instance[], change: Partial<CellRecord> = {}): CellRecord {
  return {
    name,
    service: 'shop',
    role: name.endsWith('-a') ? 'primary' : 'secondary',
    zone: 'local',
    blueprint: { name: 'shop', version: 1 },
    state: 'active',
    instances,
    sourceCell: null,
    owner: null,
    ...change,
  };
}

export class MemoryTrafficStore implements TrafficStore {
  readonly states = new Map<string, TrafficState>();
  readonly applied = new Map<string, TrafficState>();
  readonly allCells: CellRecord[] = [];
  readonly allServices: ServiceRecord[] = [];
  private readonly listeners = new Set<(service: string | null) => void>();

  add(service: ServiceDocument, cells: CellRecord[]): void {
    this.allServices.push({ name: service.name, spec: service });
    this.allCells.push(...cells);
    this.states.set(service.name, { service: service.name, epoch: 1, split: safeSplit(service) });
    this.notify(service.name);
  }

  notify(service: string | null): void {
    for (const listener of this.listeners) listener(service);
  }

  async services(): Promise<ServiceRecord[]> {
    return [...this.allServices];
  }

  async cells(service?: string): Promise<CellRecord[]> {
    return this.allCells.filter((cell) => !service || cell.service === service);
  }

  async blueprint(name: string, version: number): Promise<BlueprintVersion> {
    return { name, version, spec: blueprintDocument({ name }) };
  }

  async traffic(service: string): Promise<TrafficState | undefined> {
    return this.states.get(service);
  }

  async changeTraffic(change: TrafficChange): Promise<AppliedChange> {
    const current = this.states.get(change.service);
    if (!current) throw new RefusedError(`service ${change.service} is not known`);
    const before = this.applied.get(change.idempotencyKey);
    if (before) return { state: before, repeated: true };
    if (current.epoch !== change.expectedEpoch)
      throw new StaleEpochError(change.service, change.expectedEpoch, current.epoch);
    const problems = splitProblems(change.split, await this.cells(change.service));
    if (problems.length > 0) throw new RefusedError(problems.join('; '));
    const state = { service: change.service, epoch: current.epoch + 1, split: change.split };
    this.states.set(change.service, state);
    this.applied.set(change.idempotencyKey, state);
    this.notify(change.service);
    return { state, repeated: false };
  }

  onChange(listener: (service: string | null) => void): () => void {
    this.listeners.add(listener);
    return () => void this.listeners.delete(listener);
  }
}
