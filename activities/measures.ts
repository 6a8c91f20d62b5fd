/** Reads load, capacity and counters of a failover's two cells out of the load balancer's view. */
import type { TrafficReading } from '../cells/warm-up/service-traffic';
import type { CellTraffic, TrafficView } from '../envoy/traffic-client';
import type { Totals } from '../workflows/failover';

/** What the blueprint's declared capacity is of the service's traffic now, in basis points; null while nothing is measured. */
export function capacityBp(view: TrafficView, requestsPerSecond: number): number | null {
  const measured = view.cells.filter((c) => c.measured);
  const total = measured.reduce((sum, c) => sum + c.requestsPerSecond, 0);
  if (total <= 0) return null;
  return Math.min(10_000, Math.floor((requestsPerSecond / total) * 10_000));
}

/** A cell's load as a part of its declared capacity; an unmeasured cell counts as idle. */
export function loadOf(view: TrafficView, cell: string, requestsPerSecond: number): number {
  const traffic = trafficOf(view, cell);
  return traffic?.measured ? traffic.requestsPerSecond / requestsPerSecond : 0;
}

export function shareOf(view: TrafficView, cell: string): number {
  return trafficOf(view, cell)?.shareBp ?? 0;
}

export function totalsOf(view: TrafficView, cell: string): Totals {
  const traffic = trafficOf(view, cell);
  return { requests: traffic?.requestsTotal ?? 0, errors: traffic?.errorsTotal ?? 0 };
}

/** Of all other cells of the service together; null where no other cell has answered anything. */
export function peersOf(view: TrafficView, ...two: string[]): Totals | null {
  const peers = view.cells.filter((c) => !two.includes(c.cell) && c.shareBp > 0);
  const sum = (of: (c: CellTraffic) => number | undefined) => peers.reduce((total, c) => total + (of(c) ?? 0), 0);
  return peers.length === 0 ? null : { requests: sum((c) => c.requestsTotal), errors: sum((c) => c.errorsTotal) };
}

/** What a warm-up of the synthetic cell asks of the proxies' reports. */
export function warmUpReading(view: TrafficView, syntheticCell: string, source: string): TrafficReading {
  const measured = view.cells.filter((c) => c.measured);
  const copies = view.copies?.find((c) => c.cell === syntheticCell);
  return {
    proxies: view.proxies.length,
    requestsPerSecond: measured.length === 0 ? null : measured.reduce((sum, c) => sum + c.requestsPerSecond, 0),
    sourceBp: shareOf(view, source),
    copies: {
      requests: copies?.requestsTotal ?? 0,
      errors: copies?.errorsTotal ?? 0,
      inFlight: copies?.requestsInFlight ?? 0,
    },
    peers: peersOf(view, source, syntheticCell) ?? totalsOf(view, source),
  };
}

export function latencyOf(view: TrafficView, cell: string): CellTraffic['latency'] {
  return trafficOf(view, cell)?.latency;
}

function trafficOf(view: TrafficView, cell: string): CellTraffic | undefined {
  return view.cells.find((c) => c.cell === cell);
}
