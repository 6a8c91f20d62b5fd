/** The services that are attacked: two declared cells of the made-up cloud behind one listener, with a policy that acts quickly. */
import type { ConfigurationStore } from '../../blueprints/store';
import { blueprintDocument, cellDocument, serviceDocument } from '../support/documents';
import type { Cloud } from './cloud';

/** Open-loop callers: one request each so many milliseconds. */
export const callEveryMs = 60;

export interface ServiceOrder {
  service: string;
  port: number;
  policy?: Record<string, unknown>;
  /** Of a cell, requests per second. @default 100 */
  capacity?: number;
  /** Seconds a synthetic cell has to get ready. @default 20 */
  readinessS?: number;
  mirrorPercent?: number;
  /** Keeps as many idle cells as are worth their cost. */
  keepsPool?: boolean;
}

/** Makes the cells `<service>-a` and `<service>-b` and tells the store of them. */
export async function applyService(store: ConfigurationStore, cloud: Cloud, order: ServiceOrder): Promise<void> {
  const { service, port, policy = {}, capacity = 100, readinessS = 20, mirrorPercent = 0, keepsPool = false } = order;
  const names = [`${service}-a`, `${service}-b`];
  const cells = await Promise.all(
    names.map(async (cell) =>
      cellDocument(cell, { service, blueprint: service, instances: await cloud.declare(service, cell) }),
    ),
  );
  await store.apply([
    serviceDocument({
      name: service,
      listener: { port },
      slo: { latencyMs: 2000, errorRatio: 0.3 },
      safeSplit: Object.fromEntries(names.map((cell) => [cell, 5000])),
      policy,
      mirror: { percent: mirrorPercent },
    }),
    blueprintDocument({
      name: service,
      capacity: { requestsPerSecond: capacity },
      readiness: { timeoutS: readinessS },
      warmUp: [{ kind: 'connections', perInstance: 1, path: '/warm' }],
      ...(keepsPool && { scaleDown: { keep: 'expected-cost' } }),
    }),
    ...cells,
  ]);
}

/** Of the blueprint, for its declared cells. */
export async function applyNewVersion(store: ConfigurationStore, service: string): Promise<void> {
  const { spec } = (await store.blueprint(service))!;
  const declared = (await store.cells(service)).filter(({ role }) => role !== 'synthetic');
  await store.apply([
    { ...spec, readiness: { ...spec.readiness, timeoutS: spec.readiness.timeoutS + 1 } },
    ...declared.map(({ name, instances }) => cellDocument(name, { service, blueprint: service, instances })),
  ]);
}

export async function isServed(port: number): Promise<boolean> {
  const response = await fetch(`http://127.0.0.1:${port}/`, { signal: AbortSignal.timeout(2000) });
  await response.arrayBuffer();
  return response.ok;
}

/** Quick steps, no guard in the way: rows fail over side by side, which no breaker would let pass. */
export function policyOf(change: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    autonomy: 'act',
    canaryBp: 1500,
    canaryMinRequests: 10,
    canary: { maxBp: 2000, falseAlarm: 0.2, miss: 0.2 },
    maxErrorRatio: 0.3,
    stepBp: 4000,
    stepIntervalS: 0.5,
    reductionBp: 3000,
    reductionIntervalS: 0.5,
    wayBack: { calmS: 1, firstBp: 3000 },
    cooldownS: 0,
    portability: 'ignore',
    breaker: { cells: 1000 },
    budget: { failoversPerDay: 1000, concurrentInFleet: 1000 },
    flapping: { tolerated: 1000 },
    ...change,
  };
}
