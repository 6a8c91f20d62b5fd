/** What load reports say about each cell of each cluster: rates over the last seconds, totals, and how old that is. */

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
}

export interface CellLoad {
  /** Whether a report of the last seconds covers the cell. If not, the rates say nothing. */
  measured: boolean;
  requestsPerSecond: number;
  errorRatio: number;
  requestsInFlight: number;
  /** Share of the cluster's requests in basis points. */
  measuredBp: number;
  /** Age of the newest report that covers the cell. */
  ageMs: number;
  /** Since the ledger began. */
  requestsTotal: number;
  errorsTotal: number;
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

export class LoadLedger {
  private readonly clusters = new Map<string, Cluster>();

  /** @param windowMs how far back rates look; several reports must fit in. */
  constructor(private readonly windowMs = 5000) {}

  /** Takes in one node's report, received at that time (milliseconds, monotonic). */
  record(node: string, report: ClusterReport, at: number): void {
    let cluster = this.clusters.get(report.cluster);
    if (!cluster) {
      cluster = { reports: new Map(), inFlight: new Map(), totals: new Map() };
      this.clusters.set(report.cluster, cluster);
    }
    const recent = (cluster.reports.get(node) ?? []).filter((kept) => at - kept.at < this.windowMs);
    recent.push({ at, intervalMs: report.intervalMs, cells: new Map(report.cells.map((c) => [c.cell, c])) });
    cluster.reports.set(node, recent);
    for (const { cell, issued, failed, inProgress } of report.cells) {
      const totals = cluster.totals.get(cell) ?? { issued: 0, failed: 0, lastAt: at };
      cluster.totals.set(cell, { issued: totals.issued + issued, failed: totals.failed + failed, lastAt: at });
      const byNode = cluster.inFlight.get(cell) ?? new Map<string, number>();
      cluster.inFlight.set(cell, byNode.set(node, inProgress));
    }
  }

  /** A node has gone, and its requests in flight with it. The totals stay. */
  forget(node: string): void {
    for (const cluster of this.clusters.values()) {
      cluster.reports.delete(node);
      for (const byNode of cluster.inFlight.values()) byNode.delete(node);
    }
  }

  /** The load of each cell that a report of this cluster has ever covered. */
  read(clusterName: string, at: number): Map<string, CellLoad> {
    const cluster = this.clusters.get(clusterName);
    const loads = new Map<string, CellLoad>();
    if (!cluster) return loads;
    const issued = new Map<string, number>();
    for (const [cell, totals] of cluster.totals) {
      const sums = this.sum(cluster, cell, at);
      issued.set(cell, sums.issued);
      loads.set(cell, {
        measured: sums.covered,
        requestsPerSecond: sums.requestsPerSecond,
        errorRatio: sums.finished > 0 ? sums.failed / sums.finished : 0,
        requestsInFlight: [...(cluster.inFlight.get(cell)?.values() ?? [])].reduce((a, b) => a + b, 0),
        measuredBp: 0,
        ageMs: at - totals.lastAt,
        requestsTotal: totals.issued,
        errorsTotal: totals.failed,
      });
    }
    const all = [...issued.values()].reduce((a, b) => a + b, 0);
    for (const [cell, load] of loads) load.measuredBp = all > 0 ? Math.round((10_000 * issued.get(cell)!) / all) : 0;
    return loads;
  }

  private sum(cluster: Cluster, cell: string, at: number) {
    const sums = { covered: false, issued: 0, failed: 0, finished: 0, requestsPerSecond: 0 };
    for (const reports of cluster.reports.values()) {
      let intervalMs = 0;
      let issued = 0;
      for (const kept of reports.filter((report) => at - report.at < this.windowMs)) {
        intervalMs += kept.intervalMs;
        const figures = kept.cells.get(cell);
        if (!figures) continue;
        sums.covered = true;
        issued += figures.issued;
        sums.failed += figures.failed;
        sums.finished += figures.failed + figures.succeeded;
      }
      sums.issued += issued;
      if (intervalMs > 0) sums.requestsPerSecond += (1000 * issued) / intervalMs;
    }
    return sums;
  }
}
