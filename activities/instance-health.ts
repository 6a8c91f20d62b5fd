/** What makes a cell alive, failing or dead: its instances' health checks, and whether its callers are still answered. */
import { connect } from 'node:net';
import type { ServiceDocument } from '../blueprints/schema';
import { request } from '../cells/http';
import { grpcHealth, requestHttp2 } from '../cells/http2';
import type { Reached } from '../cells/http';
import type { SourceState, Totals } from '../workflows/failover';

const probeTimeoutMs = 1000;
/** Consecutive answers of an instance that make a fact of them: one lost packet is not a death. */
export const failuresThatCount = 3;
const successesThatCount = 2;
/** Load reports come every second and tell of the second before. */
const answersCountForMs = 1500;

/**
 * Whether callers are still being answered by the source, by load reports. Probes that fail while answers go on say
 * something about the prober (a starved machine), not about the source.
 */
export class Answered {
  private successes: number | null = null;
  private lastMs = Number.NEGATIVE_INFINITY;

  note({ requests, errors }: Totals, nowMs: number): void {
    const successes = requests - errors;
    if (this.successes !== null && successes > this.successes) this.lastMs = nowMs;
    this.successes = successes;
  }

  contradicts(state: SourceState, nowMs: number): boolean {
    return state === 'dead' && nowMs - this.lastMs < answersCountForMs;
  }
}

/** The answer, or null if it fails or is not there in time. */
export async function within<T>(ms: number, work: Promise<T>): Promise<T | null> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<null>((resolve) => (timer = setTimeout(() => resolve(null), ms)));
  try {
    return await Promise.race([work.catch(() => null), late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Remembers, instance by instance, how many answers in a row were good or bad. */
export class SourceHealth {
  private readonly streaks = new Map<string, { healthy: boolean; rounds: number }>();
  private roundsWithoutInstances = 0;

  constructor(private readonly known: SourceState) {}

  round(instances: readonly { name: string }[], healthy: readonly boolean[]): void {
    this.roundsWithoutInstances = instances.length === 0 ? this.roundsWithoutInstances + 1 : 0;
    const names = new Set(instances.map((i) => i.name));
    for (const name of this.streaks.keys()) if (!names.has(name)) this.streaks.delete(name);
    instances.forEach(({ name }, i) => {
      const isHealthy = healthy[i] ?? false;
      const streak = this.streaks.get(name);
      this.streaks.set(name, { healthy: isHealthy, rounds: streak?.healthy === isHealthy ? streak.rounds + 1 : 1 });
    });
  }

  /** What was known stays true until every instance has shown otherwise often enough. */
  state(): SourceState {
    if (this.roundsWithoutInstances >= failuresThatCount) return 'dead';
    const streaks = [...this.streaks.values()];
    if (streaks.length === 0) return this.known;
    const isSettled = streaks.every((s) => s.rounds >= (s.healthy ? successesThatCount : failuresThatCount));
    if (!isSettled) return this.known;
    if (streaks.every((s) => s.healthy)) return 'alive';
    return streaks.some((s) => s.healthy) ? 'failing' : 'dead';
  }
}

/**
 * A new connection each time: an instance that accepts nobody new is not healthy. What can be asked only with an identity
 * that we have not been given is asked whether it accepts a connection: a process that is gone does not. Of a gRPC server
 * without a health service it is enough that it answers that it has none.
 */
export async function answersHealthCheck(
  instance: Reached,
  { protocol, grpc, tls, healthCheck }: Pick<ServiceDocument, 'protocol' | 'grpc' | 'tls' | 'healthCheck'>,
): Promise<boolean> {
  if (tls && !instance.tls) return accepts(instance);
  const timeoutMs = probeTimeoutMs;
  if (protocol === 'grpc') {
    const health = await grpcHealth(instance, grpc.healthService, timeoutMs).catch(() => null);
    return health === 'SERVING' || health === 'UNIMPLEMENTED';
  }
  const asked =
    protocol === 'http/2'
      ? requestHttp2(instance, { ':path': healthCheck.path }, { timeoutMs })
      : request(instance, healthCheck.path, { timeoutMs });
  const answer = await asked.catch(() => null);
  return answer !== null && answer.status < 400;
}

function accepts({ address, port }: Reached): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: address, port, timeout: probeTimeoutMs });
    const end = (isAccepted: boolean) => () => {
      socket.destroy();
      resolve(isAccepted);
    };
    socket.once('connect', end(true)).once('timeout', end(false)).once('error', end(false));
  });
}
