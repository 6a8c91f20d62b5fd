/** Envoy's access log service: takes the sampled requests of live traffic and keeps each cell's latency in a ledger. */
import { status, type Server, type ServerReadableStream, type sendUnaryData } from '@grpc/grpc-js';
import type { LatencyLedger } from './latency-ledger';
import { envoyService, milliseconds } from './protos';
import { StreamError, type StreamGate } from './xds/gate';

interface Duration {
  seconds?: string;
  nanos?: number;
}

export interface AccessLogEntry {
  common_properties?: {
    upstream_cluster?: string;
    custom_tags?: Record<string, string>;
    time_to_first_upstream_tx_byte?: Duration;
    time_to_last_upstream_rx_byte?: Duration;
    duration?: Duration;
  };
}

interface AccessLogMessage {
  /** In the first message only. */
  identifier?: { node?: { id?: string; cluster?: string } };
  http_logs?: { log_entry?: AccessLogEntry[] };
}

/** The tag by which a log entry names the cell: from the metadata of the instance that answered last. */
export const cellTag = 'cell';

export class AccessLogs {
  private readonly calls = new Set<ServerReadableStream<AccessLogMessage, object>>();

  constructor(
    private readonly ledger: LatencyLedger,
    private readonly gate: StreamGate,
  ) {}

  addTo(server: Server): void {
    server.addService(envoyService('envoy.service.accesslog.v3.AccessLogService'), {
      StreamAccessLogs: (call: ServerReadableStream<AccessLogMessage, object>, answer: sendUnaryData<object>) =>
        this.serve(call, answer),
    });
  }

  close(): void {
    for (const call of this.calls) call.destroy();
  }

  private serve(call: ServerReadableStream<AccessLogMessage, object>, answer: sendUnaryData<object>): void {
    const turnAway = (error: Error): void => {
      this.calls.delete(call);
      answer({ code: error instanceof StreamError ? error.code : status.INTERNAL, details: error.message });
    };
    let admission: ReturnType<StreamGate['admit']>;
    try {
      admission = this.gate.admit(call, 'load-reports');
    } catch (error) {
      turnAway(error as Error);
      return;
    }
    let isBound = false;
    this.calls.add(call);
    call.on('data', ({ identifier, http_logs }: AccessLogMessage) => {
      if (!this.calls.has(call)) return;
      const entries = http_logs?.log_entry ?? [];
      try {
        if (!isBound) admission.bind(identifier?.node ?? {});
        isBound = true;
        admission.hear({ names: entries.length, held: 0 });
      } catch (error) {
        admission.leave();
        turnAway(error as Error);
        return;
      }
      for (const entry of entries) this.take(entry);
    });
    const leave = (): void => {
      if (this.calls.delete(call)) admission.leave();
    };
    call.on('cancelled', leave);
    call.on('error', leave);
    call.on('end', () => {
      leave();
      answer(null, {});
    });
  }

  private take(entry: AccessLogEntry): void {
    const { upstream_cluster: cluster, custom_tags } = entry.common_properties ?? {};
    const cell = custom_tags?.[cellTag];
    const latencyMs = upstreamLatencyMs(entry);
    if (cluster && cell && latencyMs !== undefined) this.ledger.record(cluster, cell, latencyMs, performance.now());
  }
}

/**
 * From the first byte sent to the cell until its last byte came. A request that was given up before it was answered
 * took at least until then: to leave it out would make a cell look the faster, the more it hangs. Undefined for one
 * that never reached a cell.
 */
export function upstreamLatencyMs({ common_properties: times = {} }: AccessLogEntry): number | undefined {
  if (!times.time_to_first_upstream_tx_byte) return undefined;
  const end = times.time_to_last_upstream_rx_byte ?? times.duration;
  return end && Math.max(0, milliseconds(end) - milliseconds(times.time_to_first_upstream_tx_byte));
}
