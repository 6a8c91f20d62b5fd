/**
 * The control plane's process: xDS and load reporting for the proxies, the traffic API for everybody else.
 * Run as `node dist/envoy/control-plane.js --settings FILE`.
 */
import { Server } from '@grpc/grpc-js';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { pino, type Logger } from 'pino';
import type { z } from 'zod';
import type { AuditRecord } from '../blueprints/audit';
import { controlPlaneSchema } from '../blueprints/control-plane-settings';
import { loadSettings } from '../blueprints/settings';
import { ConfigurationStore } from '../blueprints/store';
import { LoadReports } from './load-reports';
import { Oversight } from './operations/oversight';
import { Publisher } from './publisher';
import type { Resource } from './resources/resource';
import { LeaseKeeper } from './lease-keeper';
import { FleetWait } from './replicas/fleet-wait';
import type { ReplicaLoads } from './replicas/loads';
import { Replica } from './replicas/replica';
import { StepKeeper } from './step-keeper';
import { TrafficApi } from './traffic-api';
import { TrafficChanges } from './traffic-changes';
import type { TrafficStore } from './traffic-store';
import { isSupervisor, supervise, tellReady } from './processes';
import { grpcOptions } from './xds/grpc-options';
import { TrafficViews } from './traffic-view';
import { listen, type Listening } from './xds/listen';
import { XdsServer } from './xds/server';

/** A change is heard of by notification; should one be lost, it is found within this time. */
const rereadEveryMs = 3000;

export interface ControlPlane {
  /** Ports as bound, for addresses that asked for port 0. */
  xdsPort: number;
  trafficPort: number;
  xds: XdsServer;
  /** This process among the control planes over the store; says whether the store answers. */
  replica: Replica;
  loads: LoadReports;
  /** host:port of metrics, health and dumps, as bound. */
  operationsAddress: string;
  close(): Promise<void>;
}

export interface StartOptions {
  /** Adds a row to the audit; without it the audit is in the log alone. */
  writeAudit?: (record: AuditRecord) => Promise<void>;
  /** Metrics of the process itself too; only for a control plane that has its process for itself. */
  processMetrics?: boolean;
}

/** Starts the control plane over a store. Resolves once everything in the store is published and both ports are open. */
export async function startControlPlane(
  store: TrafficStore,
  given: z.input<typeof controlPlaneSchema>,
  log: Logger,
  options: StartOptions = {},
): Promise<ControlPlane> {
  const settings = controlPlaneSchema.parse(given);
  const { limits, transport } = settings;
  const oversight = new Oversight({ settings, log, ...options });
  const { gate, observer } = oversight;
  const xds = new XdsServer({
    log,
    stalledAfterMs: transport.stalledAfterMs,
    arrivals: { atOnce: transport.newStreamsAtOnce, perSecond: transport.newStreamsPerSecond },
    gate,
    observer,
    firstRequestWithinMs: limits.firstRequestWithinMs,
    requestBytes: limits.requestBytes,
  });
  const loads = new LoadReports({ log, intervalMs: settings.loadReportIntervalMs, gate });
  let latest: { resources: Resource[]; withheld: ReadonlySet<string> } | undefined;
  const publish = (): void => {
    if (latest) xds.publish([...latest.resources, ...oversight.secretResources()], latest.withheld);
  };
  const publisher = new Publisher(
    store,
    (resources, withheld) => {
      latest = { resources, withheld };
      publish();
    },
    log,
    (services) => replica.touch(services),
  );
  const read = async (service: string | null): Promise<void> => {
    try {
      await publisher.refresh(service);
      oversight.storeWasRead();
    } catch (error) {
      oversight.storeCouldNotBeRead((error as Error).message);
      throw error;
    }
  };
  const loadsOf = (service: string): ReplicaLoads => ({
    cells: [...loads.ofService(service)].map(([cell, load]) => ({ cell, load })),
    copies: [...loads.copiesOf(service)].map(([cell, load]) => ({ cell, load })),
    reports: loads.proxies().flatMap(({ node, ageMs, state }) => (state === 'starting' ? [] : [{ node, ageMs }])),
  });
  const proxies = (): string[] => xds.proxies();
  const epochOf = (service: string): number | undefined => publisher.epochOf(service);
  const replica: Replica = new Replica({
    table: store.replicas,
    proxies,
    acknowledgements: (keys, waitMs) => xds.acknowledgements(keys, waitMs),
    epochOf,
    services: () => publisher.services(),
    splitKeys: (service) => publisher.splitKeys(service),
    loads: loadsOf,
    log,
    onBeat: async () => {
      await leases.review();
      await steps.review();
    },
  });
  const wait = new FleetWait(replica, store.onHoldings && ((listener) => store.onHoldings!(listener)));
  const { acknowledgeTimeoutMs } = settings;
  const changes = new TrafficChanges({
    store,
    publisher,
    wait,
    replica,
    acknowledgeTimeoutMs,
    log,
  });
  const leases: LeaseKeeper = new LeaseKeeper(store, () => replica.canJudge, log);
  const steps: StepKeeper = new StepKeeper(store.steps, replica, changes, log);
  const refresh = (service: string | null): void => {
    read(service).catch((error: Error) => {
      log.warn({ err: error }, `the store cannot be read; proxies keep what they have: ${error.message}`);
    });
  };
  await oversight.start({ xds, publisher }, publish);
  // No proxy is served before the first full reading: an empty answer would make it drop all it has.
  await untilRead(() => read(null), log);
  // Known to the others before the first proxy is: whoever changes a split waits for this replica's too.
  await untilRead(() => replica.start(), log);
  const stopListening = store.onChange(refresh);
  const rereading = setInterval(() => refresh(null), rereadEveryMs);

  const xdsServer = new Server({
    ...grpcOptions(transport),
    'grpc.max_receive_message_length': limits.requestBytes,
    'grpc.max_connection_idle_ms': limits.connectionIdleMs,
  });
  xds.addTo(xdsServer);
  loads.addTo(xdsServer);
  const trafficServer = new Server({
    'grpc.max_receive_message_length': limits.requestBytes,
    'grpc.max_connection_idle_ms': limits.connectionIdleMs,
    interceptors: [oversight.authority],
  });
  const views = new TrafficViews({ store, replica, proxies, epochOf, loads: loadsOf });
  const api = new TrafficApi({ store, changes, views, replica, acknowledgeTimeoutMs, limits, log });
  api.addTo(trafficServer);
  const listening: Listening[] = [];
  const close = async (): Promise<void> => {
    oversight.willStop();
    for (const { stop } of listening) stop();
    clearInterval(rereading);
    stopListening();
    wait.stop();
    api.close();
    await replica.close();
    await stopGently(trafficServer, 2000);
    xds.close();
    loads.close();
    await stopGently(xdsServer, 1000);
    await oversight.close();
  };
  try {
    const forProxies = await listen(xdsServer, settings.xdsAddress, oversight.xdsCredentials());
    listening.push(forProxies);
    const forCallers = await listen(trafficServer, settings.trafficAddress, oversight.trafficCredentials());
    listening.push(forCallers);
    oversight.isServing();
    return {
      xdsPort: forProxies.port,
      trafficPort: forCallers.port,
      xds,
      replica,
      loads,
      operationsAddress: oversight.address,
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

async function untilRead(read: () => Promise<void>, log: Logger): Promise<void> {
  for (;;) {
    try {
      return await read();
    } catch (error) {
      log.warn(`still waiting to read the Configuration Data Store: ${(error as Error).message}`);
      await sleep(1000);
    }
  }
}

/** Lets calls end, but not for ever. */
function stopGently(server: Server, withinMs: number): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => {
      server.forceShutdown();
      resolve();
    }, withinMs);
    server.tryShutdown(() => {
      clearTimeout(timer);
      resolve();
    });
  });
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { settings: { type: 'string' } } });
  if (!values.settings) throw new Error('usage: control-plane --settings FILE');
  const settings = loadSettings(values.settings);
  const log = pino({ level: settings.logLevel, base: { process: 'control-plane' } });

  let isStopping = false;
  let stop = (): Promise<void> => Promise.resolve();
  const onSignal = (signal: string): void => {
    if (isStopping) return;
    isStopping = true;
    log.info(`${signal}: stopping`);
    void stop().then(() => process.exit(0));
  };
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);

  const { processes } = settings.controlPlane;
  if (isSupervisor(processes)) {
    const supervisor = await supervise(processes, log);
    stop = supervisor.stop;
    log.info({ processes, pids: supervisor.pids() }, 'ready');
    return;
  }
  const store = await openStore(settings.postgres.url, log, () => isStopping);
  stop = () => store.close();
  const controlPlane = await startControlPlane(store, settings.controlPlane, log, {
    writeAudit: (record) => store.audit.add(record),
    processMetrics: true,
  });
  stop = async () => {
    await controlPlane.close();
    await store.close();
  };
  const { xdsAddress, trafficAddress } = settings.controlPlane;
  const { operationsAddress } = controlPlane;
  // Of several processes, the supervisor says when all are ready.
  if (processes === 1) log.info({ xdsAddress, trafficAddress, operationsAddress }, 'ready');
  else log.info({ xdsAddress, trafficAddress, operationsAddress }, 'serving');
  tellReady();
}

/** Postgres may come later than we do. */
async function openStore(url: string, log: Logger, isStopping: () => boolean): Promise<ConfigurationStore> {
  for (;;) {
    try {
      const store = await ConfigurationStore.connect(url, { timeoutMs: 10_000 });
      await store.migrate();
      return store;
    } catch (error) {
      if (isStopping()) throw error;
      log.warn(`still waiting for the Configuration Data Store: ${(error as Error).message}`);
      await sleep(1000);
    }
  }
}

if (require.main === module) {
  main().catch((error: Error) => {
    process.stderr.write(`control-plane: ${error.message}\n`);
    process.exit(1);
  });
}
