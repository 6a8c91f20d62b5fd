/** What a warm-up has to know of the service's callers: what proxies report, and what its document allows. */

export interface Counted {
  requests: number;
  errors: number;
}

/** Totals since the control plane began to count, for differences. */
export interface TrafficReading {
  /** Proxies connected now. */
  proxies: number;
  /** Of the whole service; null while no load report covers it. */
  requestsPerSecond: number | null;
  /** The source's share of the service, in basis points. */
  sourceBp: number;
  /** Sent to the warming cell alone: copies of callers' requests. */
  copies: Counted & { inFlight: number };
  /** What callers got of the other cells that carry; without the source, unless it is the only one. */
  peers: Counted;
}

/** Rejects where the control plane cannot be asked. */
export type ReadTraffic = () => Promise<TrafficReading>;

export interface CallersOfService {
  read: ReadTraffic;
  /** Percent of the requests that only read of which a warming cell gets copies. */
  mirrorPercent: number;
  /** Share of the service that a canary gets, in basis points. */
  canaryBp: number;
}

/** What was counted between two readings. A control plane that began anew in between has counted all of the later one. */
export function between(before: Counted, after: Counted): Counted {
  if (after.requests < before.requests) return { requests: after.requests, errors: after.errors };
  return { requests: after.requests - before.requests, errors: Math.max(0, after.errors - before.errors) };
}
