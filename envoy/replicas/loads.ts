/** What the proxies of all replicas measured of a service's cells, put together honestly. Pure. */
import type { CellLoad } from '../load-ledger';
import { measuredShare } from '../measured-share';

/** What one replica knows. Ages are from when it was said. */
export interface ReplicaLoads {
  cells: { cell: string; load: CellLoad }[];
  /** What went to cells past the split. Left out by a replica of a version before it. */
  copies?: { cell: string; load: CellLoad }[];
  /** Age in milliseconds of the newest report of each node. */
  reports: { node: string; ageMs: number }[];
}

/**
 * Sums rates and totals over replicas, weighs errors and shares by requests, and keeps the greatest age: the oldest
 * part decides. What a proxy has not told its replica is missing here too, and named.
 */
export function mergeLoads(parts: { ageMs: number; loads: ReplicaLoads }[]): ReplicaLoads {
  if (parts.length === 1) return parts[0]!.loads;
  const told = new Map<string, CellLoad[]>();
  const copied = new Map<string, CellLoad[]>();
  const reports = new Map<string, { node: string; ageMs: number }>();
  const add = (to: Map<string, CellLoad[]>, cell: string, load: CellLoad, ageMs: number) =>
    to.set(cell, [...(to.get(cell) ?? []), { ...load, ageMs: load.ageMs + ageMs }]);
  for (const { ageMs, loads } of parts) {
    for (const { cell, load } of loads.cells) add(told, cell, load, ageMs);
    for (const { cell, load } of loads.copies ?? []) add(copied, cell, load, ageMs);
    for (const { node, ageMs: age } of loads.reports) {
      // A proxy that moved has reported to two: the newer counts.
      if (age + ageMs < (reports.get(node)?.ageMs ?? Infinity)) reports.set(node, { node, ageMs: age + ageMs });
    }
  }
  // Every cell of a replica was reckoned on the same requests of the service.
  const seen = parts.reduce(
    (all, { loads }) => all + Math.max(0, ...loads.cells.map((c) => c.load.requestsSeen ?? 0)),
    0,
  );
  const cells = [...told].map(([cell, loads]) => ({ cell, load: mergeCell(loads, seen) }));
  // Shares say nothing here: nobody meant to share them out.
  const copies = [...copied].map(([cell, loads]) => ({ cell, load: mergeCell(loads, 0) }));
  return { cells, copies, reports: [...reports.values()] };
}

function mergeCell(loads: CellLoad[], requestsSeen: number): CellLoad {
  const sum = (figure: (load: CellLoad) => number): number => loads.reduce((all, load) => all + figure(load), 0);
  const names = (of: (load: CellLoad) => string[] | undefined): string[] =>
    [...new Set(loads.flatMap((load) => of(load) ?? []))].sort();
  const covering = loads.filter(({ measured }) => measured);
  const requestsPerSecond = sum((load) => load.requestsPerSecond);
  const share = measuredShare(
    sum((load) => (load.measuredBp * (load.requestsSeen ?? 0)) / 10_000),
    requestsSeen,
  );
  // The replica whose proxies sampled most speaks for the latency.
  const latencies = loads.flatMap(({ latency }) => latency ?? []).sort((a, b) => b.samples - a.samples);
  return {
    measured: covering.length > 0,
    requestsPerSecond,
    errorRatio: requestsPerSecond > 0 ? sum((l) => l.errorRatio * l.requestsPerSecond) / requestsPerSecond : 0,
    requestsInFlight: sum((load) => load.requestsInFlight),
    // A part that covers the cell no longer says nothing about how old the knowledge of the others is.
    ageMs: covering.length > 0 ? Math.max(...covering.map((l) => l.ageMs)) : Math.min(...loads.map((l) => l.ageMs)),
    requestsTotal: sum((load) => load.requestsTotal),
    errorsTotal: sum((load) => load.errorsTotal),
    ...share,
    requestsSeen,
    silentProxies: names((load) => load.silentProxies),
    startingProxies: names((load) => load.startingProxies),
    ...(latencies[0] && { latency: latencies[0] }),
  };
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
