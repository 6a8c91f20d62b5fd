/** Runs the real workflow against scripted activities on a Temporal server, for tests. */
import { writeFileSync } from 'node:fs';
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { Context } from '@temporalio/activity';
import { historyToJSON } from '@temporalio/common/lib/proto-utils';
import type { History } from '@temporalio/common/lib/proto-utils';
import { defineSearchAttributeKey } from '@temporalio/common';
import { TestWorkflowEnvironment } from '@temporalio/testing';
import { DefaultLogger, Runtime, Worker, type WorkflowBundleWithSourceMap } from '@temporalio/worker';
import { partBinary } from '../../local/parts';
import { packageRoot } from '../../package-root';
import { workflowBundle as ofTheWorkers } from '../../workers/workflow-bundle';
import type { RiskLevel } from '../../prediction/contracts';
import type { FailoverContext, SourceState } from '../../workflows/failover';
import { judgeSynthetic } from '../../workflows/judge';
import type { Decision } from '../../workflows/decisions';
import type { DrillActivities } from '../../workflows/drill';
import { searchAttributes, type Dossier } from '../../workflows/messages';
import type { FailoverActivities, Observation, ShiftRequest, WatchRequest } from '../../workflows/steps';
import { contextOf, factsOf, policyOf, riskEvent } from './failover-world';

let bundle: Promise<WorkflowBundleWithSourceMap> | undefined;

/** One bundle for all tests of a run. */
export function workflowBundle(): Promise<WorkflowBundleWithSourceMap> {
  return (bundle ??= ofTheWorkers());
}

/** Replay and workers say only what is wrong. Once per process. */
export function quietRuntime(): void {
  try {
    Runtime.install({ logger: new DefaultLogger('ERROR'), shutdownSignals: [] });
  } catch {
    // Another test file was first.
  }
}

/**
 * A dev server of our own with the search attributes of failovers. Its inner services take free ports at random, which
 * another process may take first: then it is started again.
 */
export async function localTemporal(attempts = 3): Promise<TestWorkflowEnvironment> {
  try {
    return await startTemporal();
  } catch (error) {
    if (attempts === 1) throw error;
    return localTemporal(attempts - 1);
  }
}

function startTemporal(): Promise<TestWorkflowEnvironment> {
  return TestWorkflowEnvironment.createLocal({
    server: {
      executable: { type: 'existing-path', path: partBinary('temporal') },
      searchAttributes: Object.entries(searchAttributes).map(([name, type]) => defineSearchAttributeKey(name, type)),
      extraArgs: ['--dynamic-config-value', 'system.forceSearchAttributesCacheRefreshOnRead=true'],
      log: { format: 'json', level: 'never' },
    },
  });
}

/** The folder of histories that every later version must replay. */
export const goldenHistories = join(packageRoot, 'test', 'golden', 'histories');

/** With UNDERSTUDY_GOLDEN=write the histories of the tests become the golden ones. */
export function keepAsGolden(title: string, history: History): void {
  if (process.env.UNDERSTUDY_GOLDEN !== 'write' || title === '' || history.events!.length > 150) return;
  const name = title
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .slice(0, 60);
  writeFileSync(join(goldenHistories, `${name}.json`), historyToJSON(history) + '\n');
}

/** Activities over a made-up load balancer: they remember the split and let a test decide the rest. */
export class ScriptedCells {
  sourceBp = 5000;
  syntheticBp = 0;
  source: SourceState = 'alive';
  errorRatio = 0;
  requests = 0;
  saved: Dossier[] = [];
  decisions: Decision[] = [];
  readonly calls: string[] = [];
  readonly keys: string[] = [];
  /** Replaces single activities. */
  script: Partial<FailoverActivities> = {};

  constructor(readonly context: FailoverContext = contextOf({ policy: policyOf({ cooldownS: 1 }) })) {}

  activities(): FailoverActivities {
    const counted = <K extends keyof FailoverActivities>(name: K, plain: FailoverActivities[K]) =>
      (async (request: never) => {
        this.calls.push(name);
        return (this.script[name] ?? plain)(request);
      }) as unknown as FailoverActivities[K];
    return {
      loadContext: counted('loadContext', async () => this.context),
      awaitTurn: counted('awaitTurn', async () => undefined),
      surveyFleet: counted('surveyFleet', async () => this.context.fleet ?? factsOf()),
      ensureSyntheticCell: counted('ensureSyntheticCell', async () => ({
        cell: 'shop-a-understudy-1',
        instances: 2,
        reused: false,
        tookMs: 10,
      })),
      warmSyntheticCell: counted('warmSyntheticCell', async () => ({ passed: true, summary: 'warm', evidence: {} })),
      armCell: counted('armCell', async () => this.acknowledgement()),
      shiftTraffic: counted('shiftTraffic', (request: ShiftRequest) => this.shift(request)),
      watchFailover: counted('watchFailover', (request: WatchRequest) => this.watch(request)),
      restAtIdle: counted('restAtIdle', async () => undefined),
      releaseSource: counted('releaseSource', async () => undefined),
      retireSyntheticCell: counted('retireSyntheticCell', async () => undefined),
      recordDecisions: counted('recordDecisions', async (decisions) => void this.decisions.push(...decisions)),
      saveDossier: counted('saveDossier', async (dossier) => void this.saved.push(dossier)),
    };
  }

  async shift(request: ShiftRequest) {
    this.keys.push(request.key);
    const total = this.sourceBp + this.syntheticBp;
    this.syntheticBp = request.targetBp;
    this.sourceBp = total - this.syntheticBp;
    return {
      applied: true,
      why: 'moved',
      acknowledgement: this.acknowledgement(),
      sourceBp: this.sourceBp,
      syntheticBp: this.syntheticBp,
      capacityBp: this.context.capacityBp,
      epoch: this.keys.length + 1,
      totals: this.totals(),
    };
  }

  /** Looks every few milliseconds of real time; what is to be waited for by the clock counts as over after a moment. */
  async watch(request: WatchRequest): Promise<Observation> {
    const dueMs = Date.now() + request.forMs;
    for (let round = 0; ; round++) {
      if (this.syntheticBp > 0) this.requests += 20;
      const { judge } = request;
      const seen = { requests: this.requests - (judge?.baseline.requests ?? 0), errors: 0 };
      seen.errors = Math.round(seen.requests * this.errorRatio);
      const settled = judge?.of === 'source' ? ('good' as const) : judge && judgeSynthetic(seen, judge);
      const verdict = settled && (judge?.wanted === 'any' || settled === judge?.wanted) ? settled : null;
      const hasTurned = this.source !== request.known;
      const isDue = Date.now() >= dueMs;
      if (hasTurned || (verdict && round > 2) || isDue) {
        return {
          ended: hasTurned ? 'source' : verdict ? 'verdict' : 'due',
          source: this.source,
          healthyInstances: this.source === 'dead' ? 0 : 2,
          instances: 2,
          verdict,
          judged: { ...seen, errorRatio: this.errorRatio },
          sourceBp: this.sourceBp,
          syntheticBp: this.syntheticBp,
          capacityBp: this.context.capacityBp,
          epoch: this.keys.length + 1,
          totals: this.totals(),
          rates: {},
        };
      }
      Context.current().heartbeat();
      await Context.current().sleep(10);
    }
  }

  private totals() {
    return {
      source: { requests: 0, errors: 0 },
      synthetic: { requests: this.requests, errors: Math.round(this.requests * this.errorRatio) },
    };
  }

  private acknowledgement() {
    const split = { 'shop-a': this.sourceBp, 'shop-a-understudy-1': this.syntheticBp };
    return { epoch: this.keys.length + 1, split, acknowledged: ['envoy'], refused: [], pending: [], tookMs: 5 };
  }
}

/** A worker over scripted cells, and a failover of them that has been told of a risk. */
export async function failoverOf(
  env: TestWorkflowEnvironment,
  cells: ScriptedCells,
  drills: Partial<DrillActivities> = {},
) {
  const taskQueue = `flow-${randomUUID()}`;
  const workflowId = `failover/shop/shop-a/${randomUUID()}`;
  const worker = await Worker.create({
    connection: env.nativeConnection,
    namespace: env.namespace ?? 'default',
    taskQueue,
    workflowBundle: await workflowBundle(),
    activities: { ...cells.activities(), ...drills },
    maxHeartbeatThrottleInterval: '50ms',
    defaultHeartbeatThrottleInterval: '50ms',
    stickyQueueScheduleToStartTimeout: '1s',
    reuseV8Context: true,
    workflowThreadPoolSize: 1,
  });
  const running = worker.run();
  let episode = 0;
  return {
    workflowId,
    taskQueue,
    worker,
    handle: env.client.workflow.getHandle(workflowId),
    async risk(level: RiskLevel, { anew = false, id = undefined as string | undefined } = {}) {
      if (anew) episode += 1;
      const event = riskEvent(level, await env.currentTimeMs(), episode);
      const args = [{ ...event, eventId: id ?? randomUUID() }];
      await env.client.workflow.signalWithStart('PredictiveFailover', {
        workflowId,
        taskQueue,
        args: [{ service: 'shop', cell: 'shop-a' }],
        signal: 'riskChanged',
        signalArgs: args,
        workflowExecutionTimeout: '1 day',
      });
    },
    async stop() {
      worker.shutdown();
      await running;
    },
  };
}
