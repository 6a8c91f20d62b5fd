/** The scoring worker process: hosts the activity `scoreTelemetry` and sees that its supervision workflow runs. */
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Client, Connection } from '@temporalio/client';
import { DefaultLogger, NativeConnection, Runtime, Worker } from '@temporalio/worker';
import { Kafka, logLevel, type LogEntry } from 'kafkajs';
import { pino, type Logger } from 'pino';
import { createScoreTelemetry, type RunningEngine } from '../activities/score-telemetry';
import { loadSettings, type Settings } from '../blueprints/settings';
import { ConfigurationStore } from '../blueprints/store';
import { StoreCellDirectory } from '../prediction/cell-directory';
import { ScoringEngine } from '../prediction/engine';
import { historySteps } from '../prediction/feature-spec';
import { KafkaSource } from '../prediction/kafka-source';
import { Model } from '../prediction/model';
import { KafkaPublisher } from '../prediction/publisher';
import { TemporalNotifier } from '../prediction/temporal-notifier';
import { KafkaWindowStore } from '../prediction/window-store';
import { workflowTypes } from '../workflows/messages';

/** There is one supervision, under this id. */
const supervisionWorkflowId = 'telemetry-supervision';

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { settings: { type: 'string' } } });
  if (!values.settings) throw new Error('scoring-worker: --settings FILE is missing.');
  const settings = loadSettings(values.settings);
  const log = pino({ level: settings.logLevel, base: { process: 'scoring-worker' } });
  const stop = stopSignal();
  installRuntime(log);

  const model = await Model.load(settings.scoring.modelManifest);
  log.info({ features: model.manifest.featureNames.length, bins: model.bins }, `model ${model.id} loaded`);
  const { shadowModelManifest } = settings.scoring;
  const shadowModel = shadowModelManifest === undefined ? undefined : await Model.load(shadowModelManifest);
  if (shadowModel) log.info(`challenger ${shadowModel.id} is scored beside it; nobody decides by what it says`);
  const store = await untilThere('Postgres', log, stop, () =>
    ConfigurationStore.connect(settings.postgres.url, { timeoutMs: 5_000, maxConnections: 2 }),
  );
  if (!store) return;
  const directory = new StoreCellDirectory(store);
  const prepared = await untilThere('the configuration', log, stop, async () => {
    await store.migrate();
    await directory.refresh();
    return true;
  });
  const { address, namespace } = settings.temporal;
  const native = prepared && (await untilThere('Temporal', log, stop, () => NativeConnection.connect({ address })));
  const connection = native && (await untilThere('Temporal', log, stop, () => Connection.connect({ address })));
  if (native && connection) {
    const client = new Client({ connection, namespace });
    const newEngine = () => engineOver(settings, model, shadowModel, directory, client, log);
    store.onChange(() => void directory.refresh().catch(() => undefined));
    void ensureSupervision(client, settings, log, stop);
    await serve(native, settings, newEngine, log, stop);
    await connection.close();
    await native.close();
  }
  await model.release();
  await shadowModel?.release();
  await store.close();
}

/** Runs workers, a new one if the last one failed, until a signal ends it. */
async function serve(
  connection: NativeConnection,
  settings: Settings,
  newEngine: () => Promise<RunningEngine>,
  log: Logger,
  stop: AbortSignal,
): Promise<void> {
  for (let pauseMs = 500; !stop.aborted; pauseMs = Math.min(pauseMs * 2, 5_000)) {
    try {
      const worker = await Worker.create({
        connection,
        namespace: settings.temporal.namespace,
        taskQueue: settings.temporal.scoringTaskQueue,
        activities: createScoreTelemetry({ newEngine, log }),
        // One loop per process: it needs the thread for itself.
        maxConcurrentActivityTaskExecutions: 1,
        shutdownForceTime: '4 seconds',
      });
      const end = () => worker.shutdown();
      stop.addEventListener('abort', end, { once: true });
      log.info({ taskQueue: settings.temporal.scoringTaskQueue }, 'ready');
      await worker.run();
      stop.removeEventListener('abort', end);
    } catch (error) {
      if (stop.aborted) return;
      log.warn({ reason: messageOf(error) }, `the worker failed (${messageOf(error)}); another one is started`);
      await pause(pauseMs, stop);
    }
  }
}

async function engineOver(
  settings: Settings,
  model: Model,
  shadowModel: Model | undefined,
  directory: StoreCellDirectory,
  client: Client,
  log: Logger,
): Promise<RunningEngine> {
  const { kafka: topics, scoring } = settings;
  const kafka = new Kafka({
    clientId: 'understudy-scoring',
    brokers: topics.brokers,
    retry: { initialRetryTime: 200, maxRetryTime: 2_000, retries: 5 },
    logLevel: logLevel.WARN,
    logCreator: () => (entry) => logKafka(log, entry),
  });
  const publisher = new KafkaPublisher({ kafka, ...topics });
  const source = new KafkaSource({
    kafka,
    groupId: topics.groupId,
    topics: topics.telemetry.map(({ topic }) => topic),
    rebuildMs: historySteps * scoring.stepMs,
    log,
  });
  const notifier = new TemporalNotifier(client, settings.temporal.failoverTaskQueue);
  const windows = new KafkaWindowStore({ kafka, topic: topics.windowsTopic, groupId: topics.groupId });
  const engine = new ScoringEngine({
    settings,
    source,
    model,
    shadowModel,
    directory,
    publisher,
    notifier,
    windows,
    log,
  });
  return {
    start: () => engine.start(),
    progress: () => engine.progress(),
    stop: async (how) => {
      await engine.stop(how);
      await Promise.all([publisher.disconnect(), windows.close()]);
    },
  };
}

/** Starts the supervision workflow unless it runs; Temporal may be away for as long as it likes. */
async function ensureSupervision(client: Client, settings: Settings, log: Logger, stop: AbortSignal): Promise<void> {
  const { failoverTaskQueue, scoringTaskQueue } = settings.temporal;
  await untilThere('the supervision workflow', log, stop, async () => {
    await client.workflow.start(workflowTypes.telemetrySupervision, {
      workflowId: supervisionWorkflowId,
      taskQueue: failoverTaskQueue,
      args: [{ scoringTaskQueue }],
      workflowIdConflictPolicy: 'USE_EXISTING',
      workflowIdReusePolicy: 'ALLOW_DUPLICATE',
      staticSummary: 'Keeps the telemetry of all cells being scored',
    });
    return true;
  });
}

/** Tries until it succeeds; undefined if the process is to stop first. */
async function untilThere<T>(
  what: string,
  log: Logger,
  stop: AbortSignal,
  attempt: () => Promise<T>,
): Promise<T | undefined> {
  for (let pauseMs = 250; !stop.aborted; pauseMs = Math.min(pauseMs * 2, 5_000)) {
    try {
      return await attempt();
    } catch (error) {
      log.warn({ reason: messageOf(error) }, `${what} is not there yet (${messageOf(error)}); waits`);
      await pause(pauseMs, stop);
    }
  }
  return undefined;
}

function pause(ms: number, stop: AbortSignal): Promise<void> {
  return sleep(ms, undefined, { signal: stop }).catch(() => undefined);
}

/** Aborted by the first SIGTERM or SIGINT. */
function stopSignal(): AbortSignal {
  const controller = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => controller.abort());
  return controller.signal;
}

function installRuntime(log: Logger): void {
  Runtime.install({
    // The process handles signals itself: waiting for a server must end by them too.
    shutdownSignals: [],
    logger: new DefaultLogger('WARN', ({ level, message, meta }) => {
      if (level === 'ERROR') log.error(meta ?? {}, message);
      else log.warn(meta ?? {}, message);
    }),
  });
}

function logKafka(log: Logger, { level, namespace, log: { message, ...fields } }: LogEntry): void {
  const text = `${namespace}: ${message}`;
  if (level === logLevel.ERROR) log.warn(fields, text);
  else log.debug(fields, text);
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

main().catch((error: unknown) => {
  pino().fatal({ reason: messageOf(error) }, `scoring-worker cannot run: ${messageOf(error)}`);
  process.exitCode = 1;
});
