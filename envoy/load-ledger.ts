/** What load reports say about each cell of each cluster: rates over the last seconds, totals, and what is not known. */
import type { CellLatency } from './latency-ledger';
import { measuredShare } from './measured-share';

/** One locality's figures in one report. */
export interface CellReport {
  cell: string;
  /** Requests begun in the interval. */
  issued: number;
  /** Not 5xx, or gRPC statuses that are not the server's fault. */
  succeeded: number;
  failed: number;
  /** At the end of the interval. */
  inProgress: number;
}

export interface ClusterReport {
  cluster: string;
  /** The interval as it really was, not as it was asked for. */
  intervalMs: number;
  /** A cell that issued nothing may be left out: that says nothing about its requests in flight. */
  cells: CellReport[];
  /** Requests that Envoy shed above the in-flight limit. It counts them among the failed of the cell it had chosen. */
  shed?: number;
}

export interface CellLoad {
  /** Whether a report of the last seconds covers the cell. If not, the rates say nothing. */
  measured: boolean;
  /** Of the proxies that report; if one is silent, the true rate is higher. */
  requestsPerSecond: number;
  errorRatio: number;
  /** As last reported: a cell that is left out of a report keeps what it had. */
  requestsInFlight: number;
  /** Share of the cluster's requests in basis points. */
  measuredBp: number;
  /** Age of the newest report that covers the cell. */
  ageMs: number;
  /** Since the ledger began. */
  requestsTotal: number;
  errorsTotal: number;
  /**
   * Bounds of the true share at 95 % confidence, in basis points, from the number of requests (Wilson's interval). It
   * takes each pick for random; Envoy's are not, see `measured-share.ts`: the truth lies well within. 0 to 10,000
   * without any request.
   */
  measuredLowBp?: number;
  measuredHighBp?: number;
  /** Requests of the whole service on which shares are reckoned. */
  requestsSeen?: number;
  /** Proxies whose part is missing, because they have stopped reporting though they are connected. */
  silentProxies?: string[];
  /** Proxies that have not reported for the first time yet; Envoy loses the first interval of a new cluster. */
  startingProxies?: string[];
  /** Of the sampled requests; missing if the service has none sampled or nothing reached the cell. */
  latency?: CellLatency;
}

/** How a proxy's load reports stand. */
export interface ReportingProxy {
  node: string;
  state: 'reporting' | 'silent' | 'starting';
  /** Since its last report; for a proxy that is starting, since it connected. */
  ageMs: number;
}

interface Kept {
  at: number;
  intervalMs: number;
  cells: Map<string, CellReport>;
}

interface CellTotals {
  issued: number;
  failed: number;
  lastAt: number;
}

interface Cluster {
  /** Recent reports by node. */
  reports: Map<string, Kept[]>;
  /** The newest known requests in flight, by cell and node. */
  inFlight: Map<string, Map<string, number>>;
  totals: Map<string, CellTotals>;
}

interface Node {
  connectedAt: number;
  lastAt: number | undefined;
}

/**
 * The failures that are the cells' own. What was shed never reached a cell: it was not issued, so it is what the failed are
 * too many by. Connections that were refused are too, but those are not counted as shed.
 */
function withoutShed({ cells, shed = 0 }: ClusterReport, inProgressBefore: (cell: string) => number): CellReport[] {
  if (shed === 0) return cells;
  const neverIssued = cells.map(({ cell, issued, succeeded, failed, inProgress }) => {
    const ended = issued + inProgressBefore(cell) - inProgress;
    return Math.min(failed, Math.max(0, failed - (ended - succeeded)));
  });
  const part = Math.min(
    1,
    shed /
      Math.max(
        1,
        neverIssued.reduce((sum, n) => sum + n, 0),
      ),
  );
  return cells.map((report, i) => ({ ...report, failed: report.failed - Math.round(neverIssued[i]! * part) }));
}

export class LoadLedger {
  private readonly clusters = new Map<string, Cluster>();
  private readonly nodes = new Map<string, Node>();

  /**
   * @param windowMs how far back rates look; several reports must fit in.
   * @param silentAfterMs without a report for this long a connected proxy is silent.
   */
  constructor(
    private readonly windowMs = 5000,
    private readonly silentAfterMs = 3000,
  ) {}

  /** A proxy has opened its stream: from now on its silence means something. */
  connected(node: string, at: number): void {
    this.nodes.set(node, { connectedAt: at, lastAt: undefined });
  }

  /**
   * Takes in all that one node says at once, at that time (milliseconds, monotonic). A cluster of which it has spoken
   * before and does not now has issued nothing meanwhile.
   */
  heard(node: string, reports: ClusterReport[], at: number): void {
    const before = this.nodes.get(node);
    for (const report of reports) this.record(node, report, at);
    const spoken = new Set(reports.map(({ cluster }) => cluster));
    const quietMs = before?.lastAt === undefined ? 0 : at - before.lastAt;
    if (quietMs > 0)
      for (const [name, cluster] of this.clusters)
        if (!spoken.has(name) && cluster.reports.has(node))
          this.record(node, { cluster: name, intervalMs: quietMs, cells: [] }, at);
    this.nodes.set(node, { connectedAt: before?.connectedAt ?? at, lastAt: at });
  }

  /** Takes in one node's report of one cluster. */
  record(node: string, report: ClusterReport, at: number): void {
    let cluster = this.clusters.get(report.cluster);
    if (!cluster) {
      cluster = { reports: new Map(), inFlight: new Map(), totals: new Map() };
      this.clusters.set(report.cluster, cluster);
    }
    const cells = withoutShed(report, (cell) => cluster.inFlight.get(cell)?.get(node) ?? 0);
    const recent = (cluster.reports.get(node) ?? []).filter((kept) => at - kept.at < this.windowMs);
    recent.push({ at, intervalMs: report.intervalMs, cells: new Map(cells.map((c) => [c.cell, c])) });
    cluster.reports.set(node, recent);
    for (const { cell, issued, failed, inProgress } of cells) {
      const totals = cluster.totals.get(cell) ?? { issued: 0, failed: 0, lastAt: at };
      cluster.totals.set(cell, { issued: totals.issued + issued, failed: totals.failed + failed, lastAt: at });
      const byNode = cluster.inFlight.get(cell) ?? new Map<string, number>();
      cluster.inFlight.set(cell, byNode.set(node, inProgress));
    }
  }

  /** A node has gone, and its requests in flight with it. The totals stay. */
  forget(node: string): void {
    this.nodes.delete(node);
    for (const cluster of this.clusters.values()) {
      cluster.reports.delete(node);
      for (const byNode of cluster.inFlight.values()) byNode.delete(node);
    }
  }

  /** The proxies that hold a stream, and whether they report. */
  proxies(at: number): ReportingProxy[] {
    return [...this.nodes].map(([node, { connectedAt, lastAt }]) => {
      const ageMs = at - (lastAt ?? connectedAt);
      if (ageMs > this.silentAfterMs) return { node, state: 'silent', ageMs };
      return { node, state: lastAt === undefined ? 'starting' : 'reporting', ageMs };
    });
  }

  /**
   * The load of each cell that a report of these clusters, taken together, has ever covered. A service has one cluster
   * for all its cells or one for each.
   */
  read(clusterNames: string | ((cluster: string) => boolean), at: number): Map<string, CellLoad> {
    const isMeant = typeof clusterNames === 'string' ? (name: string) => name === clusterNames : clusterNames;
    const clusters = [...this.clusters].filter(([name]) => isMeant(name)).map(([, cluster]) => cluster);
    const proxies = this.proxies(at);
    const inState = (state: ReportingProxy['state']): string[] =>
      proxies.filter((proxy) => proxy.state === state).map(({ node }) => node);
    const sums = new Map<string, Sum>();
    for (const cluster of clusters) for (const cell of cluster.totals.keys()) this.add(sums, cluster, cell, at);
    const all = [...sums.values()].reduce((total, { issued }) => total + issued, 0);
    return new Map(
      [...sums].map(([cell, sum]) => [
        cell,
        {
          measured: sum.covered,
          requestsPerSecond: sum.requestsPerSecond,
          errorRatio: sum.finished > 0 ? sum.failed / sum.finished : 0,
          requestsInFlight: sum.inFlight,
          ...measuredShare(sum.issued, all),
          ageMs: at - sum.lastAt,
          requestsTotal: sum.total,
          errorsTotal: sum.errors,
          requestsSeen: all,
          silentProxies: inState('silent'),
          startingProxies: inState('starting'),
        },
      ]),
    );
  }

  private add(sums: Map<string, Sum>, cluster: Cluster, cell: string, at: number): void {
    const sum = sums.get(cell) ?? { ...nothing };
    sums.set(cell, sum);
    const totals = cluster.totals.get(cell)!;
    sum.total += totals.issued;
    sum.errors += totals.failed;
    sum.lastAt = Math.max(sum.lastAt, totals.lastAt);
    for (const inFlight of cluster.inFlight.get(cell)?.values() ?? []) sum.inFlight += inFlight;
    for (const reports of cluster.reports.values()) {
      let intervalMs = 0;
      let issued = 0;
      for (const kept of reports.filter((report) => at - report.at < this.windowMs)) {
        intervalMs += kept.intervalMs;
        const figures = kept.cells.get(cell);
        if (!figures) continue;
        sum.covered = true;
        issued += figures.issued;
        sum.failed += figures.failed;
        sum.finished += figures.failed + figures.succeeded;
      }
      sum.issued += issued;
      if (intervalMs > 0) sum.requestsPerSecond += (1000 * issued) / intervalMs;
    }
  }
}

interface Sum {
  covered: boolean;
  issued: number;
  failed: number;
  finished: number;
  requestsPerSecond: number;
  inFlight: number;
  total: number;
  errors: number;
  lastAt: number;
}

const nothing: Sum = {
  covered: false,
  issued: 0,
  failed: 0,
  finished: 0,
  requestsPerSecond: 0,
  inFlight: 0,
  total: 0,
  errors: 0,
  lastAt: Number.NEGATIVE_INFINITY,
};
