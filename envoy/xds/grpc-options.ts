/** How grpc-js runs the connections of proxies. */
import type { ServerOptions } from '@grpc/grpc-js';

export interface ConnectionLimits {
  /** A connection is ended gracefully after about so long, give or take a tenth, so that proxies spread over replicas. */
  maxConnectionAgeMs?: number | undefined;
  /** What is still open after that is cut. Default 10,000. */
  maxConnectionAgeGraceMs?: number | undefined;
}

export function grpcOptions(limits: ConnectionLimits = {}): ServerOptions {
  const { maxConnectionAgeMs, maxConnectionAgeGraceMs = 10_000 } = limits;
  return {
    'grpc.max_concurrent_streams': 100,
    'grpc.keepalive_time_ms': 30_000,
    // Debugging counts that nobody reads, kept per connection and message.
    'grpc.enable_channelz': 0,
    ...(maxConnectionAgeMs === undefined
      ? {}
      : {
          'grpc.max_connection_age_ms': maxConnectionAgeMs,
          'grpc.max_connection_age_grace_ms': maxConnectionAgeGraceMs,
        }),
  };
}
