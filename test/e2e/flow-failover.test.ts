/** Failovers by the real worker process: Temporal, Postgres, control plane, Envoy, and cells that are processes. */
import { randomUUID } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { Client, Connection } from '@temporalio/client';
import { Worker } from '@temporalio/worker';
import { expect } from 'chai';
import { ConfigurationStore } from '../../blueprints/store';
import { ProcessProvider } from '../../cells/process-provider';
import { startDeclaredCell } from '../../cells/source-cells';
import { sendOverride } from '../../cli/failover';
import { TrafficClient } from '../../envoy/traffic-client';
import { releasePorts, reservePorts } from '../../local/ports';
import { startStack, type Stack } from '../../local/stack';
import { waitUntil } from '../../local/wait';
import type { RiskLevel } from '../../prediction/contracts';
import { failoverWorkflowId, signalNames, workflowTypes, type FailoverResult } from '../../workflows/messages';
import { serverBlueprint } from '../support/cells';
import { cellDocument, serviceDocument } from '../support/documents';
import { quietRuntime, workflowBundle } from '../support/failover-bench';
import { riskEvent } from '../support/failover-world';

const failoverId = failoverWorkflowId('shop', 'shop-a');

describe('Failover worker process', function () {
  this.timeout(180_000);
  let stack: Stack;
  let store: ConfigurationStore;
  let traffic: TrafficClient;
  let connection: Connection;
  let client: Client;
  let provider: ProcessProvider;
  let port: number;
  /** The scoring worker's part: repeats the risk while it lasts. */
  let level: RiskLevel | null = null;
  let episode = randomUUID();
  let isOver = false;
  let helpers: Promise<unknown>[] = [];

  before(async () => {
    quietRuntime();
    [port] = (await reservePorts(1)) as [number];
    stack = await startStack({ parts: ['temporal', 'postgres', 'control-plane', 'failover-worker', 'envoy'] });
    store = await ConfigurationStore.connect(stack.settings.postgres.url);
    traffic = new TrafficClient(stack.addresses.trafficApi);
    connection = await Connection.connect({ address: stack.addresses.temporal });
    client = new Client({ connection, namespace: stack.settings.temporal.namespace });
    provider = new ProcessProvider(stack.settings.processProvider);
    const policy = {
      autonomy: 'act',
      canaryMinRequests: 10,
      stepBp: 2500,
      stepIntervalS: 0.5,
      reductionBp: 2500,
      reductionIntervalS: 0.5,
      wayBack: { calmS: 1 },
      cooldownS: 1,
    };
    await store.apply([
      serviceDocument({ listener: { port }, policy }),
      serverBlueprint(randomUUID(), [], { warmUp: [{ kind: 'connections', path: '/healthz' }] }),
      cellDocument('shop-a'),
      cellDocument('shop-b'),
    ]);
    await Promise.all(['shop-a', 'shop-b'].map((cell) => startDeclaredCell(provider, store, cell)));
    await waitUntil(call, { withinMs: 30_000, what: 'Envoy serves the shop' });
    helpers = [callers(), scoring()];
  });

  after(async () => {
    isOver = true;
    await Promise.all(helpers);
    await connection?.close();
    traffic?.close();
    await store?.close();
    await stack?.stop();
    releasePorts([port]);
  });

  async function call(): Promise<boolean> {
    const response = await fetch(`http://127.0.0.1:${port}/healthz`, { signal: AbortSignal.timeout(5000) });
    await response.arrayBuffer();
    return response.ok;
  }

  async function callers(): Promise<void> {
    for (; !isOver; await pause(20)) await call().catch(() => undefined);
  }

  async function scoring(): Promise<void> {
    for (; !isOver; await pause(2000)) {
      if (level && level !== 'clear') await tell(level).catch(() => undefined);
    }
  }

  async function tell(now: RiskLevel): Promise<void> {
    level = now;
    const event = { ...riskEvent(now, Date.now()), eventId: `${episode}#${Date.now()}`, episodeId: episode };
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
      withinMs: 60_000,
      what: `${atLeastBp} bp are moved from shop-a`,
    });
  }

  /** Ended, each change made once, and replayable. */
  async function outcome(): Promise<FailoverResult> {
    const handle = client.workflow.getHandle(failoverId);
    const { runId } = await handle.describe();
    const result = (await handle.result()) as FailoverResult;
    const history = await client.workflow.getHandle(failoverId, runId).fetchHistory();
    expect(history.events!.length).to.be.below(400);
    expect(history.events!.some((e) => e.workflowTaskFailedEventAttributes)).to.equal(false);
    await Worker.runReplayHistory({ workflowBundle: await workflowBundle() }, history, failoverId);
    const keys = (await store.splitChanges('shop')).map((c) => c.idempotencyKey);
    expect(new Set(keys).size).to.equal(keys.length);
    expect((await store.dossier(failoverId))?.outcome).to.equal(result.outcome);
    return result;
  }

  it('moves traffic step by step to a cell it made, and gives it back when the risk clears', async () => {
    await tell('shift');
    await moved(5000);
    await tell('clear');
    const { outcome: ended, reason } = await outcome();
    expect(ended, reason).to.equal('drained');
    expect(await shares()).to.include({ 'shop-a': 5000, 'shop-b': 5000 });
    const idle = (await store.cells('shop')).filter((c) => c.state === 'idle');
    expect(idle.length, 'the synthetic cell rests').to.equal(1);
  });

  it('goes on where it was after kill -9 of the worker, hears an order that came meanwhile, and takes the idle cell again', async () => {
    episode = randomUUID();
    await tell('shift');
    await moved(1);
    await stack.process('failover-worker').kill();
    const reply = await sendOverride(client, 'shop', 'shop-a', { action: 'abort', by: 'ada', reason: 'test' });
    expect(reply.accepted).to.equal(true);
    level = null;
    await stack.start('failover-worker');
    const { outcome: ended, reason } = await outcome();
    expect(ended, reason).to.equal('aborted');
    expect(await shares()).to.include({ 'shop-a': 5000, 'shop-b': 5000 });
    const synthetic = (await store.cells('shop')).filter((c) => c.role === 'synthetic');
    expect(synthetic.map((c) => c.state)).to.deep.equal(['idle']);
  });

  it('takes up the share that a terminated run left at its synthetic cell, and gives it back when the risk clears', async () => {
    episode = randomUUID();
    await tell('shift');
    await moved(1);
    await client.workflow.getHandle(failoverId).terminate('test');
    const left = (await store.cells('shop')).filter((c) => c.role === 'synthetic');
    expect(left.map((c) => c.owner)).to.deep.equal([failoverId]);
    await tell('shift');
    await moved(5000);
    await tell('clear');
    const { outcome: ended, reason } = await outcome();
    expect(ended, reason).to.equal('drained');
    expect(await shares()).to.include({ 'shop-a': 5000, 'shop-b': 5000 });
    const dossier = await store.dossier(failoverId);
    expect(dossier?.entries.map((e) => e.what).join()).to.contain('of an earlier failover still carries');
    expect(dossier?.syntheticCell).to.equal(left[0]?.name);
  });

  it('completes at once when the source really dies', async () => {
    episode = randomUUID();
    await tell('shift');
    await moved(1);
    // A dead cell tells nothing: from here on the risk is silent.
    level = null;
    for (const { pid } of (await provider.observe('shop-a')).instances) process.kill(pid!, 'SIGKILL');
    const { outcome: ended, reason } = await outcome();
    expect(ended, reason).to.equal('failed-over');
    const after = await shares();
    expect(after['shop-a'] ?? 0).to.equal(0);
    expect(after['shop-b']).to.equal(5000);
  });

  it('makes a stand-in for a cell whose death nobody predicted, and that no worker lived to see', async () => {
    await stack.process('failover-worker').kill();
    for (const { pid } of (await provider.observe('shop-b')).instances) process.kill(pid!, 'SIGKILL');
    await stack.start('failover-worker');
    const failover = failoverWorkflowId('shop', 'shop-b');
    await waitUntil(async () => (await store.dossier(failover))?.outcome === 'failed-over', {
      withinMs: 60_000,
      what: 'shop-b has a stand-in that carries its share',
    });
    const dossier = (await store.dossier(failover))!;
    expect(dossier.firstRisk?.model).to.equal('failure-detector');
    expect(dossier.label?.kind).to.equal('missed');
    const after = await shares();
    expect(after['shop-b'] ?? 0).to.equal(0);
    expect(after[dossier.syntheticCell!]).to.equal(5000);
  });
});
