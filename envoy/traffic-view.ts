/** A service's traffic as commanded and as measured by the proxies of all replicas. */
import type { CellShare, FleetStop, SplitLease, TrafficState } from '../blueprints/records';
import type { CellLoad } from './load-ledger';
import { mergeLoads, type ReplicaLoads } from './replicas/loads';
import type { Replica } from './replicas/replica';
import type { OtherReplica } from './replicas/standing';
import { wireShare } from './traffic-client';
import type { TrafficStore } from './traffic-store';

export interface TrafficViewsOptions {
  store: TrafficStore;
  replica: Pick<Replica, 'id' | 'others'>;
  proxies: () => string[];
  epochOf: (service: string) => number | undefined;
  loads: (service: string) => ReplicaLoads;
}

export interface FleetLoads {
  loads: ReplicaLoads;
  /** Node ids connected to any replica. */
  proxies: string[];
  others: OtherReplica[];
}

export class TrafficViews {
  constructor(private readonly options: TrafficViewsOptions) {}

  /** What all replicas measured. A replica that is lost, and what it measured last, says nothing. */
  async loads(service: string): Promise<FleetLoads> {
    const { store, replica, proxies, loads } = this.options;
    const others = await replica.others(service);
    const alive = others.filter((other) => !other.lost);
    const told = alive.length > 0 ? ((await store.replicas?.loads(service)) ?? []) : [];
    const parts = alive.flatMap(({ id }) => {
      const part = told.find((row) => row.replica === id);
      return part ? [{ ageMs: part.ageMs, loads: part.loads as ReplicaLoads }] : [];
    });
    const connected = new Set([...proxies(), ...alive.flatMap((other) => other.proxies)]);
    return {
      loads: mergeLoads([{ ageMs: 0, loads: loads(service) }, ...parts]),
      proxies: [...connected].sort(),
      others,
    };
  }

  /** As a `TrafficView` on the wire. */
  async view({ service, epoch, split }: TrafficState): Promise<object> {
    const { store, replica, proxies, epochOf } = this.options;
    const [fleet, stop, lease] = await Promise.all([this.loads(service), store.fleetStop(), store.splitLease(service)]);
    const loads = new Map(fleet.loads.cells.map(({ cell, load }) => [cell, load]));
    // A cell that has left the split may still have requests in flight: it is shown as long as reports cover it.
    const leaving = [...loads].filter(([cell, load]) => load.measured && !split.some((s) => s.cell === cell));
    const shares = [...split, ...leaving.map(([cell]): CellShare => ({ cell, shareBp: 0, coverInstances: 0 }))];
    return {
      service,
      epoch,
      cells: shares.map((share) => ({ ...wireShare(share), ...wireLoad(loads.get(share.cell)) })),
      proxies: fleet.proxies,
      fleet: wireStop(stop),
      ...(lease && { lease: wireLease(lease) }),
      replicas: [
        { id: replica.id, silent_ms: 0, proxies: proxies().length, epoch: epochOf(service) ?? 0 },
        ...fleet.others.map((other) => ({
          id: other.id,
          silent_ms: Math.round(other.silentMs),
          proxies: other.proxies.length,
          epoch: other.holding?.epoch ?? 0,
        })),
      ],
      copies: (fleet.loads.copies ?? []).map(({ cell, load }) => ({
        cell,
        requests_total: load.requestsTotal,
        errors_total: load.errorsTotal,
        requests_in_flight: load.requestsInFlight,
        age_ms: Math.round(load.ageMs),
      })),
    };
  }
}

export function wireStop(stop: FleetStop | undefined): object {
  return stop ? { stopped: true, ...stop } : { stopped: false };
}

export function wireLease({ service, epoch, holder, durationMs, remainingMs }: SplitLease): object {
  return { service, epoch, holder, duration_ms: durationMs, remaining_ms: remainingMs };
}

function wireLoad(load: CellLoad | undefined): object {
  if (!load) return { measured: false };
  return {
    measured: load.measured,
    requests_per_second: load.requestsPerSecond,
    error_ratio: load.errorRatio,
    requests_in_flight: load.requestsInFlight,
    measured_bp: load.measuredBp,
    age_ms: Math.round(load.ageMs),
    requests_total: load.requestsTotal,
    errors_total: load.errorsTotal,
    measured_low_bp: load.measuredLowBp,
    measured_high_bp: load.measuredHighBp,
    requests_seen: load.requestsSeen,
    silent_proxies: load.silentProxies,
    starting_proxies: load.startingProxies,
    latency: load.latency && {
      p50_ms: load.latency.p50Ms,
      p99_ms: load.latency.p99Ms,
      samples: load.latency.samples,
      age_ms: Math.round(load.latency.ageMs),
    },
  };
}
