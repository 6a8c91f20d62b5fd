/** The scoring worker as a process: kept scoring by the supervision workflow, also after kill -9, and stopped by SIGTERM in good order. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client, Connection } from '@temporalio/client';
import { NativeConnection, Worker } from '@temporalio/worker';
import { expect } from 'chai';
import { Kafka, logLevel } from 'kafkajs';
import { documentSchema } from '../../blueprints/schema';
import { ConfigurationStore } from '../../blueprints/store';
import { startStack, type Stack } from '../../local/stack';
import { waitUntil } from '../../local/wait';
import type { RiskEvent, Score } from '../../prediction/contracts';
import { failoverWorkflowId } from '../../workflows/messages';
import { quietRuntime } from '../support/failover-bench';
import { writeTinyModel } from '../support/tiny-model';

const documents = [
  {
    kind: 'Blueprint',
    name: 'shop',
    image: { command: ['true', '{port}'] },
    resources: { instances: 1, memoryLimitMib: 64 },
    capacity: { requestsPerSecond: 100 },
  },
  {
    kind: 'Service',
    name: 'shop',
    listener: { port: 18080 },
    slo: { latencyMs: 250 },
    safeSplit: { 'shop-a': 5000, 'shop-b': 5000 },
    policy: { autonomy: 'act' },
  },
  { kind: 'Cell', name: 'shop-a', service: 'shop', role: 'primary', blueprint: 'shop' },
  { kind: 'Cell', name: 'shop-b', service: 'shop', role: 'secondary', blueprint: 'shop' },
].map((document) => documentSchema.parse(document));

describe('Scoring worker', function () {
  this.timeout(240_000);
  let dir: string;
  let stack: Stack;
  let client: Client;
  let connection: Connection;
  let native: NativeConnection;
  let workflows: Worker;
  let running: Promise<void>;
  let stopTelemetry: () => Promise<void>;
  const scores: Score[] = [];

  before(async () => {
    quietRuntime();
    dir = mkdtempSync(join(tmpdir(), 'understudy-worker-'));
    const modelManifest = writeTinyModel(dir);
    const scoring = { modelManifest } as Stack['settings']['scoring'];
    stack = await startStack({ parts: ['kafka', 'temporal', 'postgres'], settings: { scoring } });
    const store = await ConfigurationStore.connect(stack.settings.postgres.url);
    await store.migrate();
    await store.apply(documents);
    await store.close();
    const { address, namespace, failoverTaskQueue } = stack.settings.temporal;
    connection = await Connection.connect({ address });
    client = new Client({ connection, namespace });
    native = await NativeConnection.connect({ address });
    // Hosts the workflow types only: failovers start, and wait for activities that nobody runs here.
    const workflowsPath = require.resolve('../../workflows');
    workflows = await Worker.create({ connection: native, namespace, taskQueue: failoverTaskQueue, workflowsPath });
    running = workflows.run();
    const kafka = new Kafka({ brokers: stack.settings.kafka.brokers, logLevel: logLevel.NOTHING });
    const producer = kafka.producer();
    const consumer = kafka.consumer({ groupId: 'test-scores' });
    await producer.connect();
    await consumer.connect();
    await consumer.subscribe({ topics: [stack.settings.kafka.scoresTopic], fromBeginning: true });
    await consumer.run({
      eachMessage: async ({ message }) => void scores.push(JSON.parse(String(message.value)) as Score),
    });
    const send = () => {
      const metrics = { 'heap.used_bytes': 62e6, 'heap.limit_bytes': 64e6, 'http.request_rate': 100 };
      const ts = new Date().toISOString();
      const value = JSON.stringify({ schema: 'understudy.telemetry/v1', cell: 'shop-a', instance: 'a-1', ts, metrics });
      return producer.send({ topic: 'understudy.telemetry.json', messages: [{ key: 'shop-a', value }] });
    };
    const timer = setInterval(() => void send().catch(() => undefined), 500);
    stopTelemetry = async () => {
      clearInterval(timer);
      await producer.disconnect();
      await consumer.disconnect();
    };
  });

  after(async () => {
    await stopTelemetry?.();
    workflows?.shutdown();
    await running;
    await connection?.close();
    await native?.close();
    await stack?.stop();
    rmSync(dir, { recursive: true, force: true });
  });

  const newerThan = (ms: number) => scores.some((s) => s.cell === 'shop-a' && Date.parse(s.ts) > ms);

  it('scores what arrives and starts one failover for the cell at risk', async () => {
    await stack.start('scoring-worker');
    await waitUntil(() => newerThan(0), { withinMs: 60_000, what: 'scores come' });
    const handle = client.workflow.getHandle(failoverWorkflowId('shop', 'shop-a'));
    const signals = await waitUntil(
      async () => {
        const { events } = await handle.fetchHistory();
        const found = (events ?? []).filter((e) => e.workflowExecutionSignaledEventAttributes);
        return found.length > 0 && found;
      },
      { withinMs: 60_000, what: 'the failover is told' },
    );
    const payload = signals[0]?.workflowExecutionSignaledEventAttributes?.input?.payloads?.[0]?.data;
    const event = JSON.parse(Buffer.from(payload ?? []).toString()) as RiskEvent;
    expect(event).to.include({ service: 'shop', cell: 'shop-a' });
    expect(event.probability).to.be.greaterThan(0.4);
  });

  it('goes on scoring after it was killed and another one was started', async () => {
    const killed = stack.process('scoring-worker');
    process.kill(killed.pid as number, 'SIGKILL');
    const since = Date.now();
    await waitUntil(() => newerThan(since + 3_000), {
      withinMs: 120_000,
      what: 'scores come again',
      instead: () => `the last is of ${scores.at(-1)?.ts}; ${stack.process('scoring-worker').tail()}`,
    });
    const supervision = await client.workflow.getHandle('telemetry-supervision').describe();
    expect(supervision.status.name).to.equal('RUNNING');
  });

  it('stops in good order when told to, and leaves the supervision to the next worker', async () => {
    await stack.process('scoring-worker').stop();
    const log = stack.process('scoring-worker').output();
    expect(log).to.match(/scoring is being stopped/);
    const supervision = await client.workflow.getHandle('telemetry-supervision').describe();
    expect(supervision.status.name).to.equal('RUNNING');
  });
});
