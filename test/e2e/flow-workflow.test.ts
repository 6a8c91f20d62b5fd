import { expect } from 'chai';
import type { TestWorkflowEnvironment } from '@temporalio/testing';
import { Worker } from '@temporalio/worker';
import { WorkflowFailedError, WorkflowUpdateFailedError } from '@temporalio/client';
import { waitUntil } from '../../local/wait';
import type { Dossier, FailoverResult, Override } from '../../workflows/messages';
import {
  failoverOf,
  keepAsGolden,
  localTemporal,
  quietRuntime,
  ScriptedCells,
  workflowBundle,
} from '../support/failover-bench';
import { contextOf, policyOf } from '../support/failover-world';

type Running = Awaited<ReturnType<typeof failoverOf>>;

describe('PredictiveFailover on a real Temporal server', function () {
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
    // Whatever a test made of it, its history must replay.
    const history = await running.handle.fetchHistory();
    await running.stop();
    await Worker.runReplayHistory({ workflowBundle: await workflowBundle() }, history, running.workflowId);
    keepAsGolden(this.currentTest?.title ?? '', history);
    running = undefined;
  });
  after(() => env?.teardown());

  async function start(cells: ScriptedCells): Promise<Running> {
    running = await failoverOf(env, cells);
    return running;
  }

  function dossier(failover: Running): Promise<Dossier> {
    return failover.handle.query<Dossier>('dossier');
  }

  async function inPhase(failover: Running, phase: string): Promise<Dossier> {
    return waitUntil(async () => ((d) => d.phase === phase && d)(await dossier(failover)), {
      withinMs: 15_000,
      what: `the failover is ${phase}`,
    });
  }

  const order = (override: Partial<Override>) => ({ args: [{ by: 'ada', reason: 'test', ...override }] as [Override] });

  it('fails over step by step and completes when the source dies', async () => {
    const cells = new ScriptedCells();
    const failover = await start(cells);
    await failover.risk('shift');
    await waitUntil(() => cells.syntheticBp >= 2000, { withinMs: 15_000, what: 'a step is made' });
    cells.source = 'dead';
    const result = (await failover.handle.result()) as FailoverResult;
    expect(result.outcome).to.equal('failed-over');
    expect(cells.sourceBp).to.equal(0);
    expect(cells.saved.at(-1)?.outcome).to.equal('failed-over');
    expect(new Set(cells.keys).size, 'each change has a key of its own').to.equal(cells.keys.length);
    const history = await failover.handle.fetchHistory();
    expect(history.events!.length).to.be.below(400);
  });

  it('gives the traffic back when the risk clears, rests the cell and ends after its cooldown', async () => {
    const cells = new ScriptedCells();
    const failover = await start(cells);
    await failover.risk('shift');
    await waitUntil(() => cells.syntheticBp === 5000, { withinMs: 15_000, what: 'all is moved' });
    await failover.risk('clear');
    const result = (await failover.handle.result()) as FailoverResult;
    expect(result.outcome).to.equal('drained');
    expect(cells.sourceBp).to.equal(5000);
    expect(cells.calls).to.include('restAtIdle');
    expect(cells.calls).to.not.include('retireSyntheticCell');
  });

  it('tells each decision once and in order, also an order given in the middle of a step', async () => {
    const cells = new ScriptedCells();
    const failover = await start(cells);
    await failover.risk('shift');
    await waitUntil(() => cells.syntheticBp > 0, { withinMs: 15_000, what: 'a share is moved' });
    await failover.handle.executeUpdate('override', order({ action: 'hold' }));
    await failover.handle.signal('override', { action: 'abort', by: 'ada', reason: 'test' });
    await failover.handle.result();
    const told = cells.decisions.map((d) => `${d.kind} ${String(d.data.phase ?? d.data.outcome)}`);
    expect(told.slice(0, 5)).to.deep.equal(
      ['assessing', 'provisioning', 'warming', 'armed', 'canary'].map((phase) => `phase ${phase}`),
    );
    expect(told.filter((t) => t.startsWith('override')).length).to.equal(2);
    expect(told).to.include('outcome aborted');
    expect(new Set(cells.decisions.map((d) => d.id)).size).to.equal(cells.decisions.length);
  });

  it('answers an update with what follows, and leaves no trace of a refused one', async () => {
    const failover = await start(new ScriptedCells());
    await failover.risk('prepare');
    await inPhase(failover, 'armed');
    const refused = await failover.handle.executeUpdate('override', order({ action: 'promote' })).then(
      () => null,
      (err: unknown) => err,
    );
    expect(refused).to.be.instanceOf(WorkflowUpdateFailedError);
    expect(String((refused as WorkflowUpdateFailedError).cause)).to.contain(
      'cannot be done while the failover is armed',
    );
    const held = await failover.handle.executeUpdate('override', order({ action: 'hold' }));
    expect(held).to.deep.include({ accepted: true });
    const updates = (await failover.handle.fetchHistory()).events!.filter(
      (e) => e.workflowExecutionUpdateAcceptedEventAttributes,
    );
    expect(updates.length).to.equal(1);
    await failover.handle.executeUpdate('override', order({ action: 'abort' }));
    expect(((await failover.handle.result()) as FailoverResult).outcome).to.equal('aborted');
  });

  it('hears an override by signal as well, and goes on where it cannot be read', async () => {
    const cells = new ScriptedCells();
    const failover = await start(cells);
    await failover.risk('prepare');
    await inPhase(failover, 'armed');
    await failover.handle.signal('override', null);
    await failover.handle.signal('riskChanged', { nonsense: true });
    await failover.handle.signal('override', { action: 'complete', by: 'ada', reason: 'test' });
    const result = (await failover.handle.result()) as FailoverResult;
    expect(result.outcome).to.equal('failed-over');
    expect(cells.syntheticBp).to.equal(5000);
    expect(
      cells.saved
        .at(-1)
        ?.entries.map((e) => e.what)
        .join('\n'),
    ).to.match(/override was refused[^]*event was ignored/);
  });

  it('gives the traffic back before it obeys a cancellation', async () => {
    const cells = new ScriptedCells();
    const failover = await start(cells);
    await failover.risk('shift');
    await waitUntil(() => cells.syntheticBp >= 2000, { withinMs: 15_000, what: 'a step is made' });
    await failover.handle.cancel();
    const err = await failover.handle.result().then(
      () => null,
      (e: unknown) => e,
    );
    expect(err).to.be.instanceOf(WorkflowFailedError);
    expect((err as WorkflowFailedError).cause?.name).to.equal('CancelledFailure');
    expect(cells.sourceBp).to.equal(5000);
    expect(cells.calls).to.include('restAtIdle');
  });

  it('stops making the cell when a person aborts, and leaves nothing behind', async () => {
    const cells = new ScriptedCells();
    const { Context } = await import('@temporalio/activity');
    let wasCancelled = false;
    cells.script.ensureSyntheticCell = async () => {
      const beat = setInterval(() => Context.current().heartbeat(), 20);
      try {
        return await Context.current().cancelled;
      } catch (err) {
        wasCancelled = true;
        throw err;
      } finally {
        clearInterval(beat);
      }
    };
    const failover = await start(cells);
    await failover.risk('prepare');
    await waitUntil(() => cells.calls.includes('ensureSyntheticCell'), { withinMs: 15_000, what: 'it is being made' });
    await failover.handle.executeUpdate('override', order({ action: 'abort' }));
    expect(((await failover.handle.result()) as FailoverResult).outcome).to.equal('aborted');
    expect(wasCancelled).to.equal(true);
    expect(cells.calls).to.include('retireSyntheticCell');
  });

  it('protects again at once when a new episode comes in the cooldown', async () => {
    const cells = new ScriptedCells(contextOf({ policy: policyOf({ cooldownS: 10 }) }));
    const failover = await start(cells);
    await failover.risk('prepare', { anew: true });
    await inPhase(failover, 'armed');
    await failover.risk('clear');
    await inPhase(failover, 'cooldown');
    const first = (await failover.handle.describe()).runId;
    await failover.risk('prepare', { anew: true });
    await inPhase(failover, 'armed');
    expect((await failover.handle.describe()).runId).to.not.equal(first);
    await failover.handle.signal('override', { action: 'abort', by: 'ada', reason: 'test' });
    await failover.handle.result();
  });

  it('tells one event from its redelivery, a hundred times', async () => {
    const failover = await start(new ScriptedCells());
    await Promise.all(Array.from({ length: 100 }, () => failover.risk('prepare', { id: 'the-same' })));
    const { entries } = await inPhase(failover, 'armed');
    expect(entries.filter((e) => e.what.startsWith('risk is now')).length).to.equal(1);
    await failover.handle.signal('override', { action: 'abort', by: 'ada', reason: 'test' });
    await failover.handle.result();
  });
});
