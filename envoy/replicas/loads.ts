/** What the proxies of all replicas measured of a service's cells, put together honestly. Pure. */
import type { CellLoad } from '../load-ledger';

/** What one replica knows. Ages are from when it was said. */
export interface ReplicaLoads {
  cells: { cell: string; load: CellLoad }[];
  /** Age in milliseconds of the newest report of each node. */
  reports: { node: string; ageMs: number }[];
}

/** Sums rates and totals over replicas, weighs errors by requests, and keeps the greatest age: the oldest part decides. */
export function mergeLoads(parts: { ageMs: number; loads: ReplicaLoads }[]): ReplicaLoads {
  const cells = new Map<string, CellLoad>();
  const finished = new Map<string, number>();
  const failed = new Map<string, number>();
  const add = (map: Map<string, number>, cell: string, n: number): void => void map.set(cell, (map.get(cell) ?? 0) + n);
  for (const { ageMs, loads } of parts) {
    for (const { cell, load } of loads.cells) {
      const sum = cells.get(cell);
      add(finished, cell, load.requestsPerSecond);
      add(failed, cell, load.requestsPerSecond * load.errorRatio);
      const age = load.ageMs + ageMs;
      if (!sum) {
        cells.set(cell, { ...load, ageMs: age });
        continue;
      }
      // A part that covers the cell no longer says nothing about how old the knowledge of the others is.
      const isOlder = load.measured === sum.measured ? age > sum.ageMs : load.measured;
      if (isOlder) sum.ageMs = age;
      sum.measured ||= load.measured;
      sum.requestsPerSecond += load.requestsPerSecond;
      sum.requestsInFlight += load.requestsInFlight;
      sum.requestsTotal += load.requestsTotal;
      sum.errorsTotal += load.errorsTotal;
    }
  }
  const all = [...finished.values()].reduce((a, b) => a + b, 0);
  for (const [cell, load] of cells) {
    const rate = finished.get(cell)!;
    load.errorRatio = rate > 0 ? failed.get(cell)! / rate : load.errorRatio;
    if (parts.length > 1) load.measuredBp = all > 0 ? Math.round((10_000 * rate) / all) : 0;
  }
  const reports = new Map<string, { node: string; ageMs: number }>();
  for (const { ageMs, loads } of parts) {
    for (const report of loads.reports) {
      const aged = { ...report, ageMs: report.ageMs + ageMs };
      // A proxy that moved has reported to two: the newer counts.
      if (aged.ageMs < (reports.get(report.node)?.ageMs ?? Infinity)) reports.set(report.node, aged);
    }
  }
  return { cells: [...cells].map(([cell, load]) => ({ cell, load })), reports: [...reports.values()] };
}

/** What load reports say about whether a cell carries anything. */
export interface Quiet {
  verdict: 'quiet' | 'carrying' | 'unknown';
  requestsInFlight: number;
  /** Proxies whose reports say nothing about the time since then. */
  unreported: string[];
  /** One sentence. */
  words: string;
}

/**
 * Whether a cell carries nothing: every connected proxy has reported since `sinceMs` ago, each without a trace of the
 * cell, and nothing of it is in flight. A proxy that has not reported says nothing: absence of a report is not zero.
 */
export function quiet(cell: string, loads: ReplicaLoads, connected: string[], sinceMs: number): Quiet {
  const load = loads.cells.find((c) => c.cell === cell)?.load;
  const requestsInFlight = load?.requestsInFlight ?? 0;
  const newest = new Map(loads.reports.filter(({ ageMs }) => ageMs <= sinceMs).map((r) => [r.node, r.ageMs]));
  const unreported = connected.filter((node) => !newest.has(node));
  const seen = { requestsInFlight, unreported };
  if (requestsInFlight > 0) {
    return { ...seen, verdict: 'carrying', words: `${cell} has ${requestsInFlight} requests in flight` };
  }
  if (unreported.length > 0) {
    const names = unreported.slice(0, 5).join(', ');
    const words = `${unreported.length} of ${connected.length} proxies have not reported their load since (${names}); absence of a report is not zero`;
    return { ...seen, verdict: 'unknown', words };
  }
  // A trace within the newest report of some proxy: that interval was not without it.
  if (load && [...newest.values()].some((ageMs) => load.ageMs <= ageMs)) {
    const words = `the load reports of ${Math.round(load.ageMs)} ms ago still show requests of ${cell}`;
    return { ...seen, verdict: 'carrying', words };
  }
  return { ...seen, verdict: 'quiet', words: `nothing of ${cell} is in flight at ${connected.length} proxies` };
}
