/** Failovers that know of the rest of the fleet, on a real Temporal server: guards, consent, promotion and drills. */
import type { TestWorkflowEnvironment } from '@temporalio/testing';
import { Worker } from '@temporalio/worker';
import { expect } from 'chai';
import { waitUntil } from '../../local/wait';
import type { Policy } from '../../blueprints/schema';
import { drillSchema } from '../../blueprints/schema';
import type { FleetFacts } from '../../workflows/fleet';
import type { DrillResult } from '../../workflows/drill';
import { practiceEvent } from '../../workflows/drill';
import {
  failoverWorkflowId,
  workflowTypes,
  type Dossier,
  type FailoverResult,
  type Override,
} from '../../workflows/messages';
import {
  failoverOf,
  keepAsGolden,
  localTemporal,
  quietRuntime,
  ScriptedCells,
  workflowBundle,
} from '../support/failover-bench';
import { contextOf, factsOf, policyOf, risingCell, startMs } from '../support/failover-world';

type Running = Awaited<ReturnType<typeof failoverOf>>;

describe('PredictiveFailover in its fleet, on a real Temporal server', function () {
  this.timeout(60_000);
  let env: TestWorkflowEnvironment;
  let running: Running | undefined;

  before(async () => {
    quietRuntime();
    env = await localTemporal();
    await workflowBundle();
  });
  afterEach(async function () {
    if (!running) return;
    const ids = [running.workflowId, drillId, failoverWorkflowId('shop', 'shop-a')];
    await running.stop();
    for (const [i, id] of ids.entries()) {
      const history = await env.client.workflow
        .getHandle(id)
        .fetchHistory()
        .catch(() => null);
      if (!history) continue;
      await Worker.runReplayHistory({ workflowBundle: await workflowBundle() }, history, id);
      keepAsGolden(`${i === 1 ? 'the drill itself ' : ''}${this.currentTest?.title ?? ''}`, history);
    }
    running = undefined;
  });
  after(() => env?.teardown());

  const drillId = 'drill/shop';

  /** What guards are computed from is counted from now, as the survey does it. */
  function fleetNow(nowMs: number, overrides: Partial<FleetFacts> = {}): FleetFacts {
    const rising = (overrides.rising ?? []).map((cell) => ({ ...cell, sinceMs: nowMs + cell.sinceMs - startMs }));
    return factsOf({ ...overrides, atMs: nowMs, rising });
  }

  function cellsOf(policy: Partial<Policy>, fleet: Partial<FleetFacts> = {}): ScriptedCells {
    const quick = { cooldownS: 1, stepBp: 5000, stepIntervalS: 0.2, reductionBp: 5000, reductionIntervalS: 0.2 };
    const facts = fleetNow(Date.now(), fleet);
    const cells = new ScriptedCells(
      contextOf({ policy: policyOf({ ...quick, ...policy }), capacityBp: 10_000, fleet: facts }),
    );
    cells.script.surveyFleet = async () => ({ ...facts, atMs: Date.now() });
    return cells;
  }

  async function start(cells: ScriptedCells): Promise<Running> {
    return (running = await failoverOf(env, cells));
  }

  async function until(failover: Running, what: string, is: (d: Dossier) => boolean): Promise<Dossier> {
    return waitUntil(async () => ((d) => is(d) && d)(await failover.handle.query<Dossier>('dossier')), {
      withinMs: 20_000,
      what,
    });
  }

  const said = (d: Dossier) => d.entries.map((e) => e.what).join('\n');
  const ordered = (failover: Running, override: Partial<Override>) =>
    failover.handle.executeUpdate('override', { args: [{ by: 'ada', reason: 'test', ...override }] as [Override] });
  const endOf = async (failover: Running) => (await failover.handle.result()) as FailoverResult;

  it('begins nothing while many cells rise together, names the probable cause, and goes on once a person approves', async () => {
    const rising = ['b', 'c', 'd'].map((name) => risingCell(`other-${name}`, { blueprint: 'shop@1' }));
    const cells = cellsOf({}, { rising, population: { ...factsOf().population, 'blueprint:shop@1': 4 } });
    const failover = await start(cells);
    await failover.risk('shift');
    const dossier = await until(failover, 'a person is called', (d) => (d.pages ?? []).length > 0);
    expect(dossier.pages?.[0]?.why).to.contain('4 of 4 cells made from shop@1').and.contain('build or configuration');
    expect(cells.calls).to.not.include('ensureSyntheticCell');
    expect(await ordered(failover, { action: 'approve' })).to.deep.include({ accepted: true });
    await until(failover, 'all is moved', () => cells.sourceBp === 0);
    await failover.risk('clear');
    expect((await endOf(failover)).outcome).to.equal('drained');
  });

  it('begins nothing beyond the budget of the day, and ends in order when a person gives it up', async () => {
    const past = [1, 2].map((hours) => ({
      cell: 'shop-b',
      outcome: 'drained' as const,
      endedAtMs: Date.now() - hours * 3_600_000,
      hadCell: true,
    }));
    const budget = { ...policyOf().budget, failoversPerDay: 2 };
    const cells = cellsOf({ budget }, { past });
    const failover = await start(cells);
    await failover.risk('shift');
    const dossier = await until(failover, 'a person is called', (d) => (d.pages ?? []).length > 0);
    expect(said(dossier)).to.contain('shop has had 2 failovers within 24 h, its budget is 2');
    await ordered(failover, { action: 'abort' });
    expect((await endOf(failover)).outcome).to.equal('aborted');
    expect(cells.calls).to.not.include('ensureSyntheticCell');
  });

  it('tries only a canary where the cause would follow the traffic, and keeps it until told otherwise', async () => {
    const sibling = risingCell('shop-b', { service: 'shop', blueprint: 'shop@1' });
    const cells = cellsOf({ canaryBp: 500 }, { rising: [sibling], blueprintAgeMs: 120_000 });
    const failover = await start(cells);
    await failover.risk('shift');
    const waits = 'the share stays as it is: the cause would probably follow';
    await until(failover, 'the canary is kept', (d) => d.entries.some((e) => e.what.startsWith(waits)));
    expect(cells.syntheticBp).to.be.within(1, 1500);
    await failover.risk('clear');
    expect((await endOf(failover)).outcome).to.equal('drained');
  });

  it('takes silence for consent where the policy says so, and completes when the source dies', async () => {
    const cells = cellsOf({ autonomy: 'approve', approval: { waitS: 1, byDefault: 'act' } });
    const failover = await start(cells);
    await failover.risk('shift');
    const dossier = await until(failover, 'a share is moved', () => cells.syntheticBp > 0);
    expect(said(dossier)).to.contain('goes on by itself after 1 s unless somebody objects');
    cells.source = 'dead';
    expect((await endOf(failover)).outcome).to.equal('failed-over');
  });

  it('keeps the traffic at the synthetic cell for good when a person promotes it', async () => {
    const cells = cellsOf({});
    const failover = await start(cells);
    await failover.risk('shift');
    await until(failover, 'the source carries nothing', (d) => d.phase === 'shifting' && cells.sourceBp === 0);
    await waitUntil(
      async () =>
        ordered(failover, { action: 'promote' }).then(
          () => true,
          () => false,
        ),
      { withinMs: 20_000, what: 'the promotion is accepted' },
    );
    const { outcome, reason } = await endOf(failover);
    expect(outcome).to.equal('failed-over');
    expect(reason).to.contain('promotion ordered by ada');
    expect(cells.syntheticBp).to.equal(5000);
  });

  it('practises: the drill passes once its share was carried and given back', async () => {
    const cells = cellsOf({ autonomy: 'act' });
    const { policy } = cells.context;
    cells.context.drill = { maxShareBp: 500, realPolicy: policy };
    Object.assign(policy, { canaryBp: 500, stepBp: 500 });
    const child = env.client.workflow.getHandle(failoverWorkflowId('shop', 'shop-a'));
    running = await failoverOf(env, cells, {
      planDrill: async () => ({
        permit: { go: true, cell: 'shop-a' },
        drill: drillSchema.parse({ shareBp: 500 }),
      }),
      playPrediction: async ({ cell, drill }) => {
        await child.signal('riskChanged', practiceEvent({ service: 'shop' }, cell, drill, 'shift'));
        await waitUntil(() => cells.syntheticBp === 500, { withinMs: 20_000, what: 'the share is carried' });
        return { ended: 'proven', why: 'shop-a-understudy-1 carried 500 bp for 1 s' };
      },
    });
    const drill = await env.client.workflow.start(workflowTypes.failoverDrill, {
      workflowId: drillId,
      taskQueue: running.taskQueue,
      args: [{ service: 'shop' }],
    });
    const { result, reason } = (await drill.result()) as DrillResult;
    expect(result, reason).to.equal('passed');
    expect(cells.sourceBp).to.equal(5000);
    expect(cells.saved.at(-1)?.drill?.shareBp).to.equal(500);
  });
});
