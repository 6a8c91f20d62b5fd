/** What looks after failovers: reconciliation, drills, decision events and the ledger, by the real worker and servers. */
import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { promisify } from 'node:util';
import { Client, Connection } from '@temporalio/client';
import { expect } from 'chai';
import { Kafka, logLevel } from 'kafkajs';
import { decisionEventSchema, type DecisionEvent } from '../../blueprints/decision-events';
import { ConfigurationStore } from '../../blueprints/store';
import { ProcessProvider } from '../../cells/process-provider';
import { startDeclaredCell } from '../../cells/source-cells';
import { drillNow } from '../../cli/drill';
import { sendOverride } from '../../cli/failover';
import { reconcileNow } from '../../cli/reconcile';
import { TrafficClient } from '../../envoy/traffic-client';
import { releasePorts, reservePorts } from '../../local/ports';
import { startStack, type Stack } from '../../local/stack';
import { waitUntil } from '../../local/wait';
import { packageRoot } from '../../package-root';
import type { RiskLevel } from '../../prediction/contracts';
import { failoverWorkflowId, signalNames, workflowTypes, type FailoverResult } from '../../workflows/messages';
import type { WarmResult } from '../../workflows/steps';
import { cellsScheduleId, drillScheduleId, poolScheduleId, reconciliationScheduleId } from '../../workers/schedules';
import { runningProcesses, serverBlueprint } from '../support/cells';
import { cellDocument, serviceDocument } from '../support/documents';
import { quietRuntime } from '../support/failover-bench';
import { riskEvent } from '../support/failover-world';
import { failoverInWords } from '../support/failover-in-words';
import { replayHistoriesOf } from '../support/replay-histories';

const failoverId = failoverWorkflowId('shop', 'shop-a');
const toldEveryMs = 2000;
/**
 * Schedules fire at whole multiples of their interval since 1970, so one of an hour would strike in the middle of a test at
 * each full hour. This one next strikes in 2069: only what a test triggers happens.
 */
const neverS = 100 * 365 * 86_400;

describe('Care for failovers', function () {
  this.timeout(300_000);
  let stack: Stack;
  let store: ConfigurationStore;
  let traffic: TrafficClient;
  let connection: Connection;
  let client: Client;
  let provider: ProcessProvider;
  let port: number;
  let tillPort: number;
  const marker = randomUUID();
  let isOver = false;
  let callers: Promise<unknown> | undefined;
  const blueprint = serverBlueprint(randomUUID(), [], { warmUp: [{ kind: 'connections', path: '/healthz' }] });

  before(async () => {
    quietRuntime();
    [port, tillPort] = (await reservePorts(2)) as [number, number];
    stack = await startStack({
      parts: ['kafka', 'temporal', 'postgres', 'control-plane', 'failover-worker', 'envoy'],
      settings: { reconciliation: { everyS: neverS, graceS: 0 }, cells: { poolEveryS: neverS, lookEveryS: neverS } },
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
    releasePorts([port, tillPort]);
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

  /** As the scoring worker tells it: again and again while the risk lasts, or the failover holds for want of news. */
  async function whileToldUntilSynthetic(level: RiskLevel, state: string): Promise<string> {
    let toldAtMs = 0;
    const look = async () => {
      if (Date.now() - toldAtMs >= toldEveryMs) {
        await tell(level);
        toldAtMs = Date.now();
      }
      return (await synthetic())[0]?.state === state;
    };
    const instead = () => failoverInWords(client, store, failoverId);
    await waitUntil(look, { withinMs: 60_000, what: `the synthetic cell is ${state}`, instead });
    return (await synthetic())[0]!.name;
  }

  /** Terminated while no change of its own is under way: one that is would still be made afterwards. */
  async function terminateAtRest(): Promise<void> {
    const reply = await sendOverride(client, 'shop', 'shop-a', { action: 'hold', by: 'ada', reason: 'test' });
    expect(reply.accepted, reply.message).to.equal(true);
    const run = client.workflow.getHandle(failoverId);
    const isAtRest = async () => {
      const { pendingActivities } = (await run.describe()).raw;
      return !pendingActivities?.some(({ activityType }) => activityType?.name === 'shiftTraffic');
    };
    const instead = () => failoverInWords(client, store, failoverId);
    await waitUntil(isAtRest, { withinMs: 60_000, what: 'no change of the split is under way', instead });
    await run.terminate('test');
  }

  /** What the command prints, whatever it ends with. */
  async function understudy(...words: string[]): Promise<string> {
    const args = [join(packageRoot, 'dist', 'cli', 'understudy.js'), ...words, '--settings', stack.settingsFile];
    const run = promisify(execFile)(process.execPath, args);
    return (await run.catch((error: { stdout: string }) => error)).stdout;
  }

  async function ended(): Promise<FailoverResult> {
    const run = client.workflow.getHandle(failoverId);
    await waitUntil(async () => (await run.describe()).status.name !== 'RUNNING', {
      withinMs: 120_000,
      what: 'the failover has ended',
      instead: () => failoverInWords(client, store, failoverId),
    });
    return (await run.result()) as FailoverResult;
  }
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
    const name = await whileToldUntilSynthetic('shift', 'serving');
    await terminateAtRest();
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
      instead: async () => JSON.stringify((await reconcile(true)).findings),
    });
    const { outcome, reason } = await ended();
    expect(outcome, reason).to.equal('drained');
    expect(await shares()).to.deep.equal({ 'shop-a': 5000, 'shop-b': 5000 });
    expect((await synthetic()).map((c) => [c.state, c.owner])).to.deep.equal([['idle', null]]);
    expect((await store.decisions('shop')).map((d) => d.kind)).to.include.members(['finding', 'mending', 'outcome']);
    expect((await reconcile()).findings).to.deep.equal([]);
  });

  it('frees the armed cell that a terminated run still claims, and ends what no store knows of', async () => {
    const name = await whileToldUntilSynthetic('prepare', 'armed');
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
    await whileToldUntilSynthetic('prepare', 'armed');
    const result = await drillNow(client, stack.settings, { service: 'shop' });
    expect(result).to.deep.include({ result: 'skipped' });
    expect(result.reason).to.contain(failoverId);
    await tell('clear');
    expect((await ended()).outcome).to.equal('drained');
  });

  it('looks by schedule for what was left behind and for drift, removes nothing, and shows what it found', async () => {
    const orphan = { cell: 'shop-z-understudy-1', service: 'shop', owner: 'nobody', blueprint, leaseS: 0 };
    await provider.ensure(orphan);
    const looks = async () => [(await store.lastLook('drift'))?.at, (await store.lastLook('sweep'))?.at];
    const before = await looks();
    await client.schedule.getHandle(cellsScheduleId).trigger();
    await waitUntil(async () => (await looks()).every((at, kind) => at !== undefined && at !== before[kind]), {
      withinMs: 60_000,
      what: 'both looks are taken',
    });
    const status = await understudy('cells', 'status');
    expect(status).to.match(
      /1 left behind\n {2}process shop-z-understudy-1: .* lease lapsed at .*; to be removed by cells sweep/,
    );
    expect((await store.lastLook('drift'))?.cells.map(({ cell, drift }) => [cell, drift])).to.deep.equal([
      ['shop-a', []],
      ['shop-b', []],
    ]);
    expect(status).to.contain('2 declared cells seen, 0 drifted');
    expect(await understudy('failover', 'list')).to.contain('Cells: 1 left behind; see understudy cells status.');
    const told = (await store.decisions('shop')).filter(({ data }) => data['finding'] === 'orphan');
    expect(told.map(({ kind, cell }) => [kind, cell])).to.deep.equal([['finding', orphan.cell]]);
    expect((await provider.observe(orphan.cell)).phase).to.not.equal('absent');
    await provider.destroy(orphan.cell);
  });

  describe('for the idle pool', () => {
    const till = async (args: string[]) => {
      const policy = { autonomy: 'act', pool: { outageCostPerMinute: 1e6 } };
      const change = {
        name: 'till',
        scaleDown: { keep: 'expected-cost', idle: 'frozen' },
        resources: { instances: 1, memoryLimitMib: 64 },
      };
      const safeSplit = { 'till-a': 5000, 'till-b': 5000 };
      await store.apply([
        serviceDocument({ name: 'till', listener: { port: tillPort }, safeSplit, policy }),
        { ...serverBlueprint(marker, args, change) },
        ...['till-a', 'till-b'].map((name) => cellDocument(name, { service: 'till', blueprint: 'till' })),
      ]);
    };
    const pooled = async () => (await store.cells('till')).filter(({ role }) => role === 'synthetic');
    const look = () => client.schedule.getHandle(poolScheduleId).trigger();
    const newest = async () => (await store.decisions('till')).find(({ kind }) => kind === 'pool');
    const explained = () => understudy('pool', 'explain', 'till');

    it('says why no cell can be made, keeps nothing of it, and waits before it tries again', async () => {
      await till(['--exit-at-once']);
      await look();
      await waitUntil(newest, { withinMs: 90_000, what: 'it is told that none could be made' });
      const told = (await newest())!;
      expect(told.data).to.include({ result: 'not-made', source: 'till-a' });
      expect(told.what).to.contain('cannot read the ledger');
      expect(Date.parse(told.data['retryAt'] as string)).to.be.greaterThan(Date.now());
      expect(await pooled()).to.deep.equal([]);
      expect(await explained())
        .to.contain('0 idle, 0 to come: one is made after till-a')
        .and.contain(`${told.what}; tried again at `);
      expect((await client.workflow.getHandle('pool/till').describe()).status.name).to.equal('RUNNING');
      await client.workflow.getHandle('pool/till').cancel();
      await client.workflow
        .getHandle('pool/till')
        .result()
        .catch(() => undefined);
    });

    it('makes one by itself, proven and laid idle: one, though the worker is killed with -9 in the middle', async () => {
      await till([]);
      await look();
      await waitUntil(async () => (await pooled()).length > 0, { withinMs: 60_000, what: 'it has begun' });
      await stack.process('failover-worker').restart('SIGKILL');
      await waitUntil(async () => (await pooled())[0]?.state === 'idle' && (await pooled())[0]?.owner === null, {
        withinMs: 90_000,
        what: 'a cell waits idle',
      });
      const [cell, ...others] = await pooled();
      expect(others).to.deep.equal([]);
      expect((await provider.observe(cell!.name)).phase).to.equal('idle');
      expect([...runningProcesses(marker).values()]).to.deep.equal([`${marker}/${cell!.name}-1`]);
      expect(
        (await provider.list()).map(({ cell: name }) => name).filter((name) => name.startsWith('till')),
      ).to.deep.equal([cell!.name]);
      await waitUntil(async () => (await newest())?.data['result'] === 'idle', {
        withinMs: 60_000,
        what: 'it is told',
      });
      const { evidence } = (await newest())!.data as { evidence: WarmResult };
      expect(evidence.passed).to.equal(true);
      expect(evidence.evidence).to.have.property('protection');
      expect(await explained()).to.contain(`1 idle (${cell!.name}), 0 to come`);
      expect((await reconcile()).findings).to.deep.equal([]);
    });
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
