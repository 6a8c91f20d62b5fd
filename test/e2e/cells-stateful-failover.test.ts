/**
 * A service that keeps its data in a changelog, failed over by the real workflow: Kafka, Temporal, Postgres, control
 * plane, Envoy. Clients ask through Envoy all the time and write down what they were told; the checker judges it.
 */
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { Client, Connection } from '@temporalio/client';
import { expect } from 'chai';
import { ConfigurationStore } from '../../blueprints/store';
import { ProcessProvider } from '../../cells/process-provider';
import { startDeclaredCell } from '../../cells/source-cells';
import { TrafficClient } from '../../envoy/traffic-client';
import { createChangelog } from '../../lab/stateful/changelog-world';
import { checkHistory } from '../../lab/stateful/checker';
import { Clients } from '../../lab/stateful/clients';
import { releasePorts, reservePorts } from '../../local/ports';
import { startStack, type Stack } from '../../local/stack';
import { waitUntil } from '../../local/wait';
import { packageRoot } from '../../package-root';
import type { RiskLevel } from '../../prediction/contracts';
import { failoverWorkflowId, signalNames, workflowTypes, type Dossier } from '../../workflows/messages';
import { blueprintDocument, cellDocument, serviceDocument } from '../support/documents';
import { riskEvent } from '../support/failover-world';

const topic = 'shop.changelog';
const failoverId = failoverWorkflowId('shop', 'shop-a');

describe('A stateful service under the failover workflow', function () {
  this.timeout(300_000);
  let stack: Stack;
  let store: ConfigurationStore;
  let traffic: TrafficClient;
  let connection: Connection;
  let client: Client;
  let provider: ProcessProvider;
  let port: number;
  let clients: Clients | undefined;
  /** The scoring worker's part: repeats the risk while it lasts. */
  let level: RiskLevel | null = null;
  let episode = randomUUID();
  let isOver = false;
  let telling: Promise<void> | undefined;

  before(async () => {
    [port] = (await reservePorts(1)) as [number];
    stack = await startStack({
      parts: ['kafka', 'temporal', 'postgres', 'control-plane', 'failover-worker', 'envoy'],
    });
    const { brokers } = stack.settings.kafka;
    await createChangelog(brokers[0]!, topic);
    store = await ConfigurationStore.connect(stack.settings.postgres.url);
    traffic = new TrafficClient(stack.addresses.trafficApi);
    connection = await Connection.connect({ address: stack.addresses.temporal });
    client = new Client({ connection, namespace: stack.settings.temporal.namespace });
    provider = new ProcessProvider(stack.settings.processProvider);
    const program = join(packageRoot, 'dist/lab/stateful/changelog-service.js');
    const flags = { cell: '{cell}', service: '{service}', address: '{address}', port: '{port}', kafka: brokers.join() };
    const args = Object.entries({ ...flags, topic }).flatMap(([flag, value]) => [`--${flag}`, value]);
    await store.apply([
      shopDocument(),
      blueprintDocument({
        image: {
          command: [process.execPath, program, ...args],
          environment: { KAFKAJS_NO_PARTITIONER_WARNING: '1' },
        },
        network: { egress: brokers },
        resources: { instances: 1, memoryLimitMib: 256 },
        readiness: { timeoutS: 60 },
        warmUp: [{ kind: 'connections', path: '/healthz' }],
        dataSync: { kind: 'kafka-changelog', brokers, topic },
      }),
      cellDocument('shop-a'),
      cellDocument('shop-b'),
    ]);
    await Promise.all(['shop-a', 'shop-b'].map((cell) => startDeclaredCell(provider, store, cell)));
    const asked = { name: 'envoy', address: '127.0.0.1', port };
    clients = new Clients({ seed: 1, clients: 4, pauseMs: 40, cells: () => [asked] });
    await writesGoOn();
    telling = repeatRisk();
  });

  after(async () => {
    isOver = true;
    await telling;
    await clients?.abandon();
    await connection?.close();
    traffic?.close();
    await store?.close();
    await stack?.stop();
    releasePorts([port]);
  });

  /** Quick steps, a verdict after few requests. With a `canaryMinRequests` out of reach the first share lasts. */
  function shopDocument(canaryMinRequests = 10) {
    const policy = {
      ...{ autonomy: 'act', canaryMinRequests, maxErrorRatio: 0.2, canaryBp: 2500, canary: { maxBp: 2500 } },
      ...{ canaryTimeoutS: 200, leadTime: { emergencyShift: false } },
      ...{ stepBp: 2500, stepIntervalS: 0.5, reductionBp: 2500, reductionIntervalS: 0.5 },
      ...{ wayBack: { calmS: 1 }, cooldownS: 1 },
    };
    return serviceDocument({ listener: { port }, healthCheck: { intervalMs: 500 }, policy });
  }

  async function repeatRisk(): Promise<void> {
    for (; !isOver; await pause(2000)) {
      if (level && level !== 'clear') await tell(level).catch(() => undefined);
    }
  }

  async function tell(now: RiskLevel): Promise<void> {
    level = now;
    const event = {
      ...riskEvent(now, Date.now()),
      ...{ eventId: `${episode}#${Date.now()}`, episodeId: episode },
      timeToFailureS: { p10: 120, p50: 240, p90: 480 },
    };
    await client.workflow.signalWithStart(workflowTypes.predictiveFailover, {
      workflowId: failoverId,
      taskQueue: stack.settings.temporal.failoverTaskQueue,
      args: [{ service: 'shop', cell: 'shop-a' }],
      signal: signalNames.riskChanged,
      signalArgs: [event],
    });
  }

  async function shares(): Promise<Record<string, number>> {
    const { cells } = await traffic.getTraffic('shop');
    return Object.fromEntries(cells.map((c) => [c.cell, c.shareBp]));
  }

  async function moved(atLeastBp: number): Promise<void> {
    await waitUntil(async () => (await shares())['shop-a']! <= 5000 - atLeastBp, {
      withinMs: 180_000,
      what: `${atLeastBp} bp are moved from shop-a`,
    });
  }

  /** Until appends and registers are acknowledged anew. */
  async function writesGoOn(): Promise<void> {
    const before = clients!.acknowledgedWrites();
    await waitUntil(async () => clients!.acknowledgedWrites() >= before + 20, {
      withinMs: 60_000,
      what: 'writes are acknowledged through Envoy',
    });
  }

  /** Who the cells say owns the data. */
  async function owner(): Promise<string | undefined> {
    const { instances } = (await store.cell('shop-b'))!;
    const response = await fetch(`http://${instances[0]!.address}:${instances[0]!.port}/data-sync`);
    return ((await response.json()) as { owner: { cell: string } | null }).owner?.cell;
  }

  async function ended(): Promise<Dossier> {
    await client.workflow.getHandle(failoverId).result();
    return (await store.dossier(failoverId))!;
  }

  const storyOf = (dossier: Dossier) => JSON.stringify(dossier.entries, null, 1);

  it('goes to a synthetic cell with its data, and back when the risk clears', async () => {
    expect(await owner()).to.equal('shop-a');
    await tell('shift');
    await moved(2501);
    const synthetic = (await store.cells('shop')).find(({ role }) => role === 'synthetic')!.name;
    expect(await owner()).to.equal(synthetic);
    await tell('clear');
    const dossier = await ended();
    expect(dossier.outcome, dossier.reason ?? '').to.equal('drained');
    expect(await shares()).to.include({ 'shop-a': 5000, 'shop-b': 5000 });
    expect(await owner()).to.equal('shop-a');
    await writesGoOn();
    expect(storyOf(dossier)).to.contain(`the log names ${synthetic} its owner in epoch 2`);
    expect(storyOf(dossier)).to.contain('the log names shop-a its owner in epoch 3');
  });

  it('goes to it also when the source is killed with -9 in the middle, and nothing acknowledged is lost', async () => {
    episode = randomUUID();
    await store.apply([shopDocument(1_000_000)]);
    await tell('shift');
    await moved(1);
    // The first share is a trial of reads: the source still owns the data.
    expect(await owner()).to.equal('shop-a');
    // A dead cell tells nothing of its risk either.
    level = null;
    for (const { pid } of (await provider.observe('shop-a')).instances) process.kill(pid!, 'SIGKILL');
    const dossier = await ended();
    expect(dossier.outcome, dossier.reason ?? '').to.equal('failed-over');
    const synthetic = dossier.syntheticCell!;
    expect(await owner()).to.equal(synthetic);
    expect(storyOf(dossier)).to.contain('data caught up');
    expect(storyOf(dossier)).to.contain('the gate is open');
    expect(storyOf(dossier)).to.contain('shop-a does not answer; Kafka refuses its writes');
    expect(storyOf(dossier)).to.contain(`the log names ${synthetic} its owner in epoch 4`);
    await writesGoOn();
    const history = await clients!.finish(60_000);
    expect(checkHistory(history)).to.deep.equal([]);
    expect(clients!.acknowledgedWrites()).to.be.greaterThan(100);
  });
});
