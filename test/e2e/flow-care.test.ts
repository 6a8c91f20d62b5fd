/** What looks after failovers: reconciliation, drills, decision events and the ledger, by the real worker and servers. */
import { randomUUID } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { Client, Connection } from '@temporalio/client';
import { expect } from 'chai';
import { Kafka, logLevel } from 'kafkajs';
import { decisionEventSchema, type DecisionEvent } from '../../blueprints/decision-events';
import { ConfigurationStore } from '../../blueprints/store';
import { ProcessProvider } from '../../cells/process-provider';
import { startDeclaredCell } from '../../cells/source-cells';
import { drillNow } from '../../cli/drill';
import { reconcileNow } from '../../cli/reconcile';
import { TrafficClient } from '../../envoy/traffic-client';
import { releasePorts, reservePorts } from '../../local/ports';
import { startStack, type Stack } from '../../local/stack';
import { waitUntil } from '../../local/wait';
import type { RiskLevel } from '../../prediction/contracts';
import { failoverWorkflowId, signalNames, workflowTypes, type FailoverResult } from '../../workflows/messages';
import { drillScheduleId, reconciliationScheduleId } from '../../workers/schedules';
import { serverBlueprint } from '../support/cells';
import { cellDocument, serviceDocument } from '../support/documents';
import { quietRuntime } from '../support/failover-bench';
import { riskEvent } from '../support/failover-world';
import { replayHistoriesOf } from '../support/replay-histories';

const failoverId = failoverWorkflowId('shop', 'shop-a');

describe('Care for failovers', function () {
  this.timeout(180_000);
  let stack: Stack;
  let store: ConfigurationStore;
  let traffic: TrafficClient;
  let connection: Connection;
  let client: Client;
  let provider: ProcessProvider;
  let port: number;
  let isOver = false;
  let callers: Promise<unknown> | undefined;
  const blueprint = serverBlueprint(randomUUID(), [], { warmUp: [{ kind: 'connections', path: '/healthz' }] });

  before(async () => {
    quietRuntime();
    [port] = (await reservePorts(1)) as [number];
    stack = await startStack({
      parts: ['kafka', 'temporal', 'postgres', 'control-plane', 'failover-worker', 'envoy'],
      settings: { reconciliation: { everyS: 3600, graceS: 0 } },
    });
    store = await ConfigurationStore.connect(stack.settings.postgres.url);
    traffic = new TrafficClient(stack.addresses.trafficApi);
    connection = await Connection.connect({ address: stack.addresses.temporal });
    client = new Client({ connection, namespace: stack.settings.temporal.namespace });
    provider = new ProcessProvider(stack.settings.processProvider);
    const policy = {
      autonomy: 'act',
      canaryMinRequests: 10,
      stepBp: 1000,
      stepIntervalS: 0.5,
      reductionBp: 2500,
      reductionIntervalS: 0.5,
      wayBack: { calmS: 0 },
      cooldownS: 0,
      drill: { shareBp: 2000, forS: 1, spareBp: 1000 },
    };
    await store.apply([
      serviceDocument({ listener: { port }, policy }),
      blueprint,
      cellDocument('shop-a'),
      cellDocument('shop-b'),
    ]);
    await Promise.all(['shop-a', 'shop-b'].map((cell) => startDeclaredCell(provider, store, cell)));
    await waitUntil(call, { withinMs: 30_000, what: 'Envoy serves the shop' });
    callers = (async () => {
      for (; !isOver; await pause(20)) await call().catch(() => undefined);
    })();
  });

  after(async () => {
    isOver = true;
    await callers;
    if (client) await replayHistoriesOf(client);
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

  async function tell(level: RiskLevel): Promise<void> {
    const event = { ...riskEvent(level, Date.now()), eventId: randomUUID() };
    await client.workflow.signalWithStart(workflowTypes.predictiveFailover, {
      workflowId: failoverId,
      taskQueue: stack.settings.temporal.failoverTaskQueue,
      args: [{ service: 'shop', cell: 'shop-a' }],
      signal: signalNames.riskChanged,
      signalArgs: [event],
    });
  }

  async function shares(): Promise<Record<string, number>> {
    const split = (await store.traffic('shop'))?.split ?? [];
    return Object.fromEntries(split.filter((s) => s.shareBp > 0).map((s) => [s.cell, s.shareBp]));
  }

  async function synthetic() {
    return (await store.cells('shop')).filter((c) => c.role === 'synthetic');
  }

  async function untilSynthetic(state: string): Promise<string> {
    await waitUntil(async () => (await synthetic())[0]?.state === state, { withinMs: 60_000, what: `it is ${state}` });
    return (await synthetic())[0]!.name;
  }

  const ended = async () => (await client.workflow.getHandle(failoverId).result()) as FailoverResult;
  const reconcile = (dryRun = false) => reconcileNow(client, stack.settings, dryRun);

  it('finds nothing where all is in order, and is planned by schedules that the worker made', async () => {
    expect(await reconcile()).to.deep.equal({ findings: [], mendings: [] });
    const reconciliation = await client.schedule.getHandle(reconciliationScheduleId).describe();
    expect(reconciliation.policies.overlap).to.equal('SKIP');
    const drill = client.schedule.getHandle(drillScheduleId('shop'));
    await waitUntil(() => drill.describe().then(Boolean, () => false), {
      withinMs: 30_000,
      what: 'drills are planned',
    });
    expect((await drill.describe()).policies.pauseOnFailure).to.equal(true);
  });

  it('mends the split that a run terminated in mid-shift has left: the failover gives it back in steps', async () => {
    await tell('shift');
    const name = await untilSynthetic('serving');
    await client.workflow.getHandle(failoverId).terminate('test');
    const before = await shares();
    expect(before[name]).to.be.above(0);

    const { findings } = await reconcile(true);
    expect(findings.map((f) => [f.kind, f.mend, f.cell])).to.deep.equal([['split-of-an-ended-run', 'take-over', name]]);
    expect(await shares(), 'a dry run changes nothing').to.deep.equal(before);
    expect(await store.decisions('shop').then((all) => all.filter((d) => d.kind === 'finding'))).to.deep.equal([]);

    // As the schedule does it.
    await client.schedule.getHandle(reconciliationScheduleId).trigger();
    await waitUntil(async () => (await client.workflow.getHandle(failoverId).describe()).status.name !== 'TERMINATED', {
      withinMs: 60_000,
      what: 'the failover is taken up',
    });
    const { outcome, reason } = await ended();
    expect(outcome, reason).to.equal('drained');
    expect(await shares()).to.deep.equal({ 'shop-a': 5000, 'shop-b': 5000 });
    expect((await synthetic()).map((c) => [c.state, c.owner])).to.deep.equal([['idle', null]]);
    expect((await store.decisions('shop')).map((d) => d.kind)).to.include.members(['finding', 'mending', 'outcome']);
    expect((await reconcile()).findings).to.deep.equal([]);
  });

  it('frees the armed cell that a terminated run still claims, and ends what no store knows of', async () => {
    await tell('prepare');
    const name = await untilSynthetic('armed');
    await client.workflow.getHandle(failoverId).terminate('test');
    await provider.ensure({ cell: 'shop-a-understudy-9', service: 'shop', owner: 'failover/shop/shop-a', blueprint });

    const { mendings } = await reconcile();
    expect(
      mendings.map((m) => [m.finding.kind, m.finding.cell, m.done]),
      JSON.stringify(mendings),
    ).to.deep.equal([
      ['claim-of-an-ended-run', name, true],
      ['unknown-cell', 'shop-a-understudy-9', true],
    ]);
    expect((await synthetic()).map((c) => [c.state, c.owner])).to.deep.equal([['idle', null]]);
    expect((await store.traffic('shop'))?.split.map((s) => s.cell)).to.not.include(name);
    expect((await provider.observe('shop-a-understudy-9')).phase).to.equal('absent');
  });

  it('practises: the whole chain at the share of the drill, given back, and no prediction in any book', async () => {
    const failoversBefore = (await store.ledger('shop')).reduce((sum, l) => sum + l.failovers, 0);
    const result = await drillNow(client, stack.settings, { service: 'shop', cell: 'shop-a' });
    expect(result.result, result.reason).to.equal('passed');
    expect(await shares()).to.deep.equal({ 'shop-a': 5000, 'shop-b': 5000 });

    const dossier = await store.dossier(failoverId);
    expect(dossier?.drill?.shareBp).to.equal(2000);
    const most = Math.max(...dossier!.steps.map((s) => s.split[dossier!.syntheticCell!] ?? 0));
    expect(most).to.equal(2000);
    const lines = await store.ledger('shop');
    expect(lines.reduce((sum, l) => sum + l.drills, 0)).to.equal(1);
    expect(lines.reduce((sum, l) => sum + l.failovers, 0)).to.equal(failoversBefore);
    expect(lines[0]?.standbyCellHours).to.be.above(0);
    const { searchAttributes } = await client.workflow.getHandle(failoverId).describe();
    expect(searchAttributes.FailoverKind).to.deep.equal(['drill']);
  });

  it('begins no drill while a failover is open', async () => {
    await tell('prepare');
    await untilSynthetic('armed');
    const result = await drillNow(client, stack.settings, { service: 'shop' });
    expect(result).to.deep.include({ result: 'skipped' });
    expect(result.reason).to.contain(failoverId);
    await tell('clear');
    expect((await ended()).outcome).to.equal('drained');
  });

  it('has published every decision exactly once, keyed by service and cell, drills marked', async () => {
    const decided = await store.decisions(undefined, 1000);
    const events: DecisionEvent[] = [];
    const keys = new Set<string>();
    const kafka = new Kafka({ brokers: [stack.addresses.kafka], logLevel: logLevel.NOTHING });
    const consumer = kafka.consumer({ groupId: randomUUID() });
    await consumer.connect();
    try {
      await consumer.subscribe({ topic: stack.settings.kafka.decisionsTopic, fromBeginning: true });
      await consumer.run({
        eachMessage: async ({ message }) => {
          events.push(decisionEventSchema.parse(JSON.parse(message.value!.toString())));
          keys.add(message.key!.toString());
        },
      });
      await waitUntil(() => events.length >= decided.length, { withinMs: 30_000, what: 'all decisions are read' });
    } finally {
      await consumer.disconnect();
    }
    expect(events.map((e) => e.id).sort()).to.deep.equal(decided.map((d) => d.id).sort());
    expect([...keys]).to.include('shop/shop-a');
    const drills = events.filter((e) => e.data.drill).map((e) => e.type);
    expect(drills).to.include.members(['understudy.decision.phase', 'understudy.decision.drill']);
  });
});
