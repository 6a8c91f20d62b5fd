/**
 * A failover worker of the reliability matrix: the real worker, with a witness between its activities and their ports.
 * Run as `node chaos-worker.js ORDERS_FILE`; tells `ready` once it polls.
 */
import { readFileSync } from 'node:fs';
import { Client } from '@temporalio/client';
import { DefaultLogger, NativeConnection, Runtime } from '@temporalio/worker';
import { pino } from 'pino';
import { FailureMapping } from '../../activities/errors';
import { RefusedError } from '../../blueprints/records';
import { loadSettings } from '../../blueprints/settings';
import { ConfigurationStore } from '../../blueprints/store';
import { SyntheticCellManager } from '../../cells/manager';
import { TrafficClient } from '../../envoy/traffic-client';
import { startDecisionPublisher } from '../../workers/decision-publisher';
import { createWorker } from '../../workers/failover-worker';
import { CloudProvider } from './cloud-provider';
import { Witness, type Fault } from './watched-ports';

export interface WorkerOrders {
  settingsFile: string;
  /** Folder-wide names of the row: the queue it polls, the one service it may look at. */
  taskQueue: string;
  service: string;
  cloudPort: number;
  journal: string;
  /** Path of the workflow bundle. */
  bundle: string;
  fault: Fault | null;
  maxCachedWorkflows: number;
  /** Whether it carries decisions to Kafka. */
  publishes: boolean;
}

async function main(): Promise<void> {
  const orders = JSON.parse(readFileSync(process.argv[2]!, 'utf8')) as WorkerOrders;
  Runtime.install({ logger: new DefaultLogger('WARN'), shutdownSignals: [] });
  const settings = loadSettings(orders.settingsFile);
  settings.temporal.failoverTaskQueue = orders.taskQueue;
  const { address, namespace } = settings.temporal;

  const witness = new Witness(orders.journal, orders.fault, (message) => new RefusedError(message));
  const plain = await ConfigurationStore.connect(settings.postgres.url, { maxConnections: 4 });
  // Rows share a store: each looks after its own service only.
  const services = plain.services.bind(plain);
  plain.services = async () => (await services()).filter(({ name }) => name === orders.service);
  const store = witness.watched('store', plain);
  const traffic = witness.watched('traffic', new TrafficClient(settings.controlPlane.trafficAddress));
  const provider = witness.watched('provider', new CloudProvider(orders.cloudPort));
  const cells = new SyntheticCellManager(store, provider);

  const connection = await NativeConnection.connect({ address });
  const client = new Client({ connection, namespace });
  const worker = await createWorker(
    settings,
    client,
    connection,
    { store, traffic, cells },
    {
      workflowBundle: { codePath: orders.bundle },
      maxCachedWorkflows: orders.maxCachedWorkflows,
      interceptors: {
        activity: [() => ({ inbound: new FailureMapping() }), (context) => ({ inbound: witness.interceptor(context) })],
      },
    },
  );
  const log = pino({ level: 'warn' });
  const { brokers, decisionsTopic: topic } = settings.kafka;
  if (orders.publishes) startDecisionPublisher(plain, { brokers, topic }, log);
  // Nobody is left to end it when the one who started it has gone.
  process.stdin.resume().on('close', () => process.exit(0));
  const running = worker.run();
  process.stdout.write('ready\n');
  await running;
  process.exit(0);
}

main().catch((err: unknown) => {
  process.stderr.write(`${(err as Error).stack}\n`);
  process.exit(1);
});
