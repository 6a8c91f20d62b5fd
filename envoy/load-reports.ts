/** Load per cell: asks every proxy for the load of all its clusters (LRS), and takes the requests it has sampled. */
import { status, type Server, type ServerDuplexStream } from '@grpc/grpc-js';
import type { Logger } from 'pino';
import { AccessLogs } from './access-logs';
import { LatencyLedger } from './latency-ledger';
import { LoadLedger, type CellLoad, type ClusterReport, type ReportingProxy } from './load-ledger';
import { duration, envoyService, milliseconds } from './protos';
import { carriesLiveTraffic, reachesOneCell } from './resources/resource';
import { retireConnection } from './xds/message-stream';
import { openGate, StreamError, type Admission, type StreamGate } from './xds/gate';

interface LoadStatsRequest {
  node?: { id?: string; cluster?: string } | null;
  cluster_stats?: {
    cluster_name: string;
    load_report_interval?: { seconds?: string; nanos?: number };
    total_dropped_requests?: string;
    upstream_locality_stats?: {
      locality?: { sub_zone?: string };
      total_issued_requests?: string;
      total_successful_requests?: string;
      total_error_requests?: string;
      total_requests_in_progress?: string;
    }[];
  }[];
}

export interface LoadReportsOptions {
  log: Logger;
  /** How often proxies report. */
  intervalMs: number;
  /** Who may report, and for which node. Default: everybody, for every node. */
  gate?: StreamGate;
}

export class LoadReports {
  private readonly ledger: LoadLedger;
  private readonly latencies = new LatencyLedger();
  private readonly accessLogs: AccessLogs;
  private readonly calls = new Set<ServerDuplexStream<LoadStatsRequest, object>>();

  constructor(private readonly options: LoadReportsOptions) {
    this.ledger = new LoadLedger(Math.max(5000, 3 * options.intervalMs), Math.max(1000, 3 * options.intervalMs));
    this.accessLogs = new AccessLogs(this.latencies, options.gate ?? openGate);
  }

  addTo(server: Server): void {
    server.addService(envoyService('envoy.service.load_stats.v3.LoadReportingService'), {
      StreamLoadStats: (call: ServerDuplexStream<LoadStatsRequest, object>) => this.serve(call),
    });
    this.accessLogs.addTo(server);
  }

  /**
   * The measured load of a service's cells in live traffic; probes and copies are left out. A cell that no report has
   * covered is missing.
   */
  ofService(service: string): Map<string, CellLoad> {
    const now = performance.now();
    const isLive = (cluster: string): boolean => carriesLiveTraffic(cluster, service);
    const latencies = this.latencies.read(isLive, now);
    const loads = this.ledger.read(isLive, now);
    for (const [cell, load] of loads) {
      const latency = latencies.get(cell);
      if (latency) load.latency = latency;
    }
    return loads;
  }

  /** What went to each cell past the split: copies of requests, and probes. Totals, whenever they were counted. */
  copiesOf(service: string): Map<string, CellLoad> {
    return this.ledger.read((cluster) => reachesOneCell(cluster, service), performance.now());
  }

  /** The proxies that hold a load reporting stream, and whether they report. */
  proxies(): ReportingProxy[] {
    return this.ledger.proxies(performance.now());
  }

  close(): void {
    for (const call of this.calls) call.end();
    this.accessLogs.close();
  }

  private serve(call: ServerDuplexStream<LoadStatsRequest, object>): void {
    // Only the first message carries the node: it stays bound to the stream.
    let node = '';
    const { log, intervalMs, gate = openGate } = this.options;
    const turnAway = (error: Error): void => {
      const code: number = error instanceof StreamError ? error.code : status.INTERNAL;
      log.warn({ node, peer: call.getPeer(), code }, `a stream of load reports is ended: ${error.message}`);
      call.emit('error', Object.assign(new Error(error.message), { code }));
      if (code === Number(status.PERMISSION_DENIED)) retireConnection(call);
    };
    let admission: Admission;
    try {
      admission = gate.admit(call, 'load-reports');
    } catch (error) {
      call.on('error', () => undefined);
      turnAway(error as Error);
      return;
    }
    this.calls.add(call);
    call.on('data', (request: LoadStatsRequest) => {
      // What was on its way when the stream was ended is not believed.
      if (!this.calls.has(call)) return;
      try {
        if (node === '') {
          const { id = '', cluster = '' } = request.node ?? {};
          if (id === '') {
            throw new StreamError('the first load report names no node id; set node.id in the bootstrap');
          }
          admission.bind({ id, cluster });
        }
        admission.hear({ names: request.cluster_stats?.length ?? 0, held: 0 });
      } catch (error) {
        turnAway(error as Error);
        return;
      }
      const isFirst = node === '';
      if (isFirst) {
        node = request.node!.id!;
        log.info({ node }, `proxy ${node} reports its load every ${intervalMs} ms`);
        this.ledger.connected(node, performance.now());
        call.write({ send_all_clusters: true, load_reporting_interval: duration(intervalMs) });
      }
      const reports = readReports(request);
      // The first message only says who reports.
      if (isFirst && reports.length === 0) return;
      this.ledger.heard(node, reports, performance.now());
    });
    const leave = (): void => {
      if (!this.calls.delete(call)) return;
      admission.leave();
      if (node) this.ledger.forget(node);
    };
    call.on('end', () => {
      leave();
      call.end();
    });
    call.on('cancelled', leave);
    call.on('error', leave);
  }
}

function readReports(request: LoadStatsRequest): ClusterReport[] {
  return (request.cluster_stats ?? []).map((stats) => ({
    cluster: stats.cluster_name,
    intervalMs: milliseconds(stats.load_report_interval),
    shed: Number(stats.total_dropped_requests ?? 0),
    cells: (stats.upstream_locality_stats ?? []).map((locality) => ({
      cell: locality.locality?.sub_zone ?? '',
      issued: Number(locality.total_issued_requests ?? 0),
      succeeded: Number(locality.total_successful_requests ?? 0),
      failed: Number(locality.total_error_requests ?? 0),
      inProgress: Number(locality.total_requests_in_progress ?? 0),
    })),
  }));
}
