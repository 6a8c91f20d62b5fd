/** The load balancer's view of the Configuration Data Store, in memory: for tests that are not about Postgres. */
import {
  FleetStoppedError,
  LeaseLostError,
  RefusedError,
  StaleEpochError,
  type AppliedChange,
  type BlueprintVersion,
  type CellRecord,
  type FleetStop,
  type ServiceRecord,
  type SplitLease,
  type TrafficChange,
  type TrafficState,
} from '../../blueprints/records';
import type { Instance, ServiceDocument } from '../../blueprints/schema';
import { leaseAfter } from '../../blueprints/split-leases';
import { safeSplit, splitProblems } from '../../blueprints/splits';
import type { SplitChange } from '../../blueprints/store';
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
  readonly applied = new Map<string, AppliedChange>();
  readonly allCells: CellRecord[] = [];
  readonly allServices: ServiceRecord[] = [];
  private readonly changes: SplitChange[] = [];
  private readonly leases = new Map<string, SplitLease & { expiresAt: number }>();
  private stopped: FleetStop | undefined;
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
    const { service, split, reason, by, idempotencyKey, reverts } = change;
    const current = this.states.get(service);
    if (!current) throw new RefusedError(`service ${service} is not known`);
    const before = await this.appliedChange(service, idempotencyKey);
    if (before) return before;
    if (this.stopped && !change.override) throw new FleetStoppedError(this.stopped);
    if (current.epoch !== change.expectedEpoch) throw new StaleEpochError(service, change.expectedEpoch, current.epoch);
    const problems = splitProblems(split, await this.cells(service));
    if (problems.length > 0) throw new RefusedError(problems.join('; '));
    const becomes = leaseAfter(await this.splitLease(service), change);
    const state = { service, epoch: current.epoch + 1, split };
    this.states.set(service, state);
    this.applied.set(idempotencyKey, { state, repeated: true, ...(change.request && { request: change.request }) });
    if (reverts) {
      const key = this.changes.find(({ epoch }) => epoch === reverts.epoch)!.idempotencyKey;
      this.applied.get(key)!.revertedBy = { state, refused: reverts.refused };
    }
    const at = new Date().toISOString();
    this.changes.push({ ...state, reason, by, idempotencyKey, at, revertsEpoch: reverts?.epoch ?? null });
    if (becomes === 'ends') this.leases.delete(service);
    if (becomes === 'stays') this.leases.get(service)!.epoch = state.epoch;
    const { leaseMs: durationMs } = change;
    if (becomes === 'is replaced' && durationMs !== undefined) {
      const lease = { service, epoch: state.epoch, holder: by, durationMs, remainingMs: durationMs };
      this.leases.set(service, { ...lease, expiresAt: Date.now() + durationMs });
    }
    this.notify(service);
    const lease = await this.splitLease(service);
    return { state, repeated: false, ...(lease && { lease }) };
  }

  async appliedChange(_service: string, idempotencyKey: string): Promise<AppliedChange | undefined> {
    return this.applied.get(idempotencyKey);
  }

  async splitChanges(service: string, limit = 100, afterEpoch?: number): Promise<SplitChange[]> {
    const of = this.changes.filter((change) => change.service === service);
    const wanted = afterEpoch === undefined ? of.reverse() : of.filter(({ epoch }) => epoch > afterEpoch);
    return wanted.slice(0, limit);
  }

  async fleetStop(): Promise<FleetStop | undefined> {
    return this.stopped;
  }

  async stopFleet(by: string, reason: string): Promise<FleetStop> {
    this.stopped ??= { by, reason, since: new Date().toISOString() };
    this.notify(null);
    return this.stopped;
  }

  async resumeFleet(): Promise<FleetStop | undefined> {
    const before = this.stopped;
    this.stopped = undefined;
    this.notify(null);
    return before;
  }

  async splitLease(service: string): Promise<SplitLease | undefined> {
    const lease = this.leases.get(service);
    return lease && { ...lease, remainingMs: lease.expiresAt - Date.now() };
  }

  async renewLease(service: string, holder: string): Promise<SplitLease> {
    const lease = this.leases.get(service);
    if (lease?.holder !== holder) throw new LeaseLostError(`service ${service}: ${holder} has nothing to renew`);
    lease.expiresAt = Date.now() + lease.durationMs;
    return { ...lease, remainingMs: lease.durationMs };
  }

  async expiredLeases(): Promise<SplitLease[]> {
    return [...this.leases.values()].filter(({ expiresAt }) => expiresAt <= Date.now());
  }

  onChange(listener: (service: string | null) => void): () => void {
    this.listeners.add(listener);
    return () => void this.listeners.delete(listener);
  }
}
