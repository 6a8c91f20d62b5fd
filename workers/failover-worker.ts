/**
 * The failover worker's process: hosts the workflows and the activities of failovers. Holds no state: any number may run,
 * any may be killed. Run as `node dist/workers/failover-worker.js --settings FILE`.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Client } from '@temporalio/client';
import { DefaultLogger, NativeConnection, Runtime, Worker, type WorkerOptions } from '@temporalio/worker';
import { pino, type Logger } from 'pino';
import { FailureMapping } from '../activities/errors';
import { createActivities } from '../activities/failover-activities';
import { failoversUnderWay } from '../activities/failovers-under-way';
import { failureDetecting } from '../activities/detect-failures';
import { drills } from '../activities/drill';
import { lookingAfterCells, type LookPorts } from '../activities/look-after-cells';
import { pools, type PoolPorts } from '../activities/pool';
import { reconciliation, type CarePorts } from '../activities/reconcile';
import { loadSettings, type Settings } from '../blueprints/settings';
import { ConfigurationStore } from '../blueprints/store';
import { DataGate } from '../cells/data-sync/data-gate';
import type { RenewedIdentities } from '../cells/identity/keeper';
import { startRenewal } from '../cells/identity/renewal';
import { SyntheticCellManager } from '../cells/manager';
import { startLeaseKeeping } from '../cells/lease-keeping';
import { identitiesOf, providersOf } from '../cells/providers';
import { startRetirementLoop, type RetiredCell } from '../cells/retire-idle';
import { channelCredentials } from '../envoy/security/credentials';
import { WatchedTls } from '../envoy/security/watched-tls';
import { TrafficClient } from '../envoy/traffic-client';
import { TemporalNotifier } from '../prediction/temporal-notifier';
import { workflowTypes } from '../workflows/messages';
import { startDecisionPublisher } from './decision-publisher';
import { keepSchedules } from './schedules';
import { workflowBundle } from './workflow-bundle';

/** After a worker's death its cached runs are offered to others once this has passed; it is part of the time to recover. */
const stickyTimeoutMs = 1000;
/** There is one failure detection, under this id. */
const detectionWorkflowId = 'failure-detection';
/** What an activity that is under way may still take; all of them can be interrupted and taken up elsewhere. */
const shutdownGraceMs = 1500;
const shutdownForceMs = 4000;

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { settings: { type: 'string' } } });
  if (!values.settings) throw new Error('Which settings? Start with --settings FILE.');
  const settings = loadSettings(values.settings);
  const log = pino({ name: 'failover-worker', level: settings.logLevel });
  installRuntime(log);

  // A signal while the peers are still waited for ends the process at once: nothing has begun yet.
  let stop = (): void => process.exit(0);
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => stop());

  const startedMs = Date.now();
  const store = await untilThere('Postgres', log, () => ConfigurationStore.connect(settings.postgres.url));
  await untilThere('the tables', log, () => store.migrate());
  const { address, namespace } = settings.temporal;
  const connection = await untilThere(`Temporal at ${address}`, log, () => NativeConnection.connect({ address }));
  const client = new Client({ connection, namespace });
  const { trafficAddress, trafficClientTls: files, tlsReloadMs } = settings.controlPlane;
  const tls = files && new WatchedTls(files, { what: 'traffic API client', log, everyMs: tlsReloadMs });
  const traffic = new TrafficClient(trafficAddress, channelCredentials(tls));
  const identities = identitiesOf(settings);
  const data = new DataGate(store, undefined, identities?.tlsTo);
  const manager = new SyntheticCellManager(
    store,
    providersOf(settings, identities),
    settings.cells.leaseS,
    {},
    identities,
    (cell) => data.afterEnd(cell),
  );
  const worker = await untilThere(`namespace ${namespace}`, log, () =>
    createWorker(settings, client, connection, { store, traffic, cells: manager, data, log }),
  );
  await untilThere('the failure detection', log, () => ensureDetection(client, settings));
  const schedules = keepSchedules(client, settings, () => store.services(), log);
  const retirement = startRetirementLoop(store, manager, retirementTeller(log));

  const leases = startLeaseKeeping(manager, settings.cells.leaseS, (error) =>
    log.warn(`leases of cells were not renewed: ${error.message}`),
  );

  const renewal =
    identities &&
    startRenewal(manager.identities, identities.settings.lifetimeS, (renewed) => sayRenewed(log, renewed));

  const { brokers, decisionsTopic: topic } = settings.kafka;
  const publisher = startDecisionPublisher(store, { brokers, topic }, log);

  stop = () => worker.shutdown();
  const running = worker.run();
  log.info({ startUpMs: Date.now() - startedMs, taskQueue: settings.temporal.failoverTaskQueue }, 'ready');
  await running;
  await schedules.stop();
  await retirement.stop();
  await leases.stop();
  await renewal?.stop();
  await publisher.stop();
  traffic.close();
  await connection.close();
  await store.close();
  log.info('stopped');
}

/** The worker over the ports it is given; `options` replace its own. */
export async function createWorker(
  settings: Settings,
  client: Client,
  connection: NativeConnection,
  has: Pick<CarePorts & PoolPorts & LookPorts, 'store' | 'traffic' | 'cells' | 'data'> & { log?: Logger },
  options: Partial<WorkerOptions> = {},
): Promise<Worker> {
  const { namespace, failoverTaskQueue } = settings.temporal;
  const care: CarePorts & PoolPorts & LookPorts = { ...has, client, failoverTaskQueue };
  return Worker.create({
    connection,
    namespace,
    taskQueue: failoverTaskQueue,
    ...(!options.workflowBundle && { workflowBundle: await workflowBundle() }),
    activities: {
      ...createActivities({ ...has, failovers: failoversUnderWay(client) }),
      ...reconciliation(care),
      ...drills(care),
      ...pools(care),
      ...lookingAfterCells(care),
      ...failureDetecting({
        ...has,
        notifier: new TemporalNotifier(client, failoverTaskQueue),
        log: has.log ?? pino({ enabled: false }),
      }),
    },
    interceptors: { activity: [() => ({ inbound: new FailureMapping() })] },
    stickyQueueScheduleToStartTimeout: stickyTimeoutMs,
    shutdownGraceTime: shutdownGraceMs,
    shutdownForceTime: shutdownForceMs,
    // Cancellation reaches an activity with the answer to a heartbeat: throttled ones would make orders wait.
    maxHeartbeatThrottleInterval: '1s',
    defaultHeartbeatThrottleInterval: '1s',
    maxCachedWorkflows: 200,
    workflowThreadPoolSize: 1,
    ...options,
  });
}

/** Starts the workflow that keeps the failure detector running, unless it runs. */
async function ensureDetection(client: Client, settings: Settings): Promise<void> {
  await client.workflow.start(workflowTypes.failureDetection, {
    workflowId: detectionWorkflowId,
    taskQueue: settings.temporal.failoverTaskQueue,
    args: [],
    workflowIdConflictPolicy: 'USE_EXISTING',
    workflowIdReusePolicy: 'ALLOW_DUPLICATE',
    staticSummary: 'Looks at all protected cells for failures that nobody predicted',
  });
}

/** A cell that goes on resisting for the same reason is told of again after so long, not at each round. */
const resistingEveryMs = 600_000;

/** Tells what the scale-down policy took away, and what resisted it. */
function retirementTeller(log: Logger): (retired: RetiredCell[] | Error) => void {
  const told = new Map<string, { reason: string; atMs: number }>();
  return (retired) => {
    if (retired instanceof Error) return log.warn(`idle cells were not looked at: ${retired.message}`);
    for (const { cell, idleForS, error } of retired) {
      const last = told.get(cell);
      if (!error) {
        told.delete(cell);
        log.info({ cell, idleForS }, `idle cell ${cell} was retired after ${Math.round(idleForS)} s`);
      } else if (last?.reason !== error.message || Date.now() - last.atMs >= resistingEveryMs) {
        told.set(cell, { reason: error.message, atMs: Date.now() });
        log.warn({ cell }, `idle cell ${cell} could not be retired, and is tried again: ${error.message}`);
      }
    }
  };
}

function sayRenewed(log: Logger, renewed: RenewedIdentities[] | Error): void {
  if (renewed instanceof Error) return log.warn(`certificates of cells were not looked at: ${renewed.message}`);
  for (const { cell, instances, error } of renewed) {
    if (error) log.warn({ cell }, `the certificate of ${cell} could not be renewed: ${error.message}`);
    else log.info({ cell, instances }, `the certificate of ${cell} was renewed`);
  }
}

/** The SDK's log lines through ours, so that stdout stays one JSON object a line. */
function installRuntime(log: Logger): void {
  const levels = { TRACE: 'trace', DEBUG: 'debug', INFO: 'info', WARN: 'warn', ERROR: 'error' } as const;
  const logger = new DefaultLogger('INFO', ({ level, message, meta }) => {
    log[levels[level]]({ ...meta }, message);
  });
  Runtime.install({ logger, shutdownSignals: [] });
}

/** Peers may come later: waited for with growing pauses, and said once per try. */
async function untilThere<T>(what: string, log: Logger, attempt: () => Promise<T>): Promise<T> {
  for (let pauseMs = 200; ; pauseMs = Math.min(5000, pauseMs * 2)) {
    try {
      return await attempt();
    } catch (err) {
      if (err instanceof TypeError || err instanceof ReferenceError) throw err;
      log.warn({ retryInMs: pauseMs }, `waiting for ${what}: ${(err as Error).message}`);
      await sleep(pauseMs);
    }
  }
}

if (require.main === module) {
  main().catch((err: unknown) => {
    process.stderr.write(`failover-worker: ${(err as Error).message}\n`);
    process.exit(1);
  });
}
