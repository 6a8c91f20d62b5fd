import { TestWorkflowEnvironment } from '@temporalio/testing';
import { Worker } from '@temporalio/worker';
import { expect } from 'chai';
import { partBinary } from '../../local/parts';
import { waitUntil } from '../../local/wait';
import { searchAttributes, type FailoverResult } from '../../workflows/messages';
import { failoverOf, quietRuntime, ScriptedCells, workflowBundle } from '../support/failover-bench';
import { contextOf, policyOf } from '../support/failover-world';

/** `temporal.api.enums.v1.IndexedValueType`. */
const indexedValueTypes = { KEYWORD: 2, DOUBLE: 4 } as const;

describe('PredictiveFailover over hours, on a server that skips time', function () {
  this.timeout(60_000);
  let env: TestWorkflowEnvironment;
  let running: Awaited<ReturnType<typeof failoverOf>> | undefined;

  before(async () => {
    quietRuntime();
    const server = { executable: { type: 'existing-path' as const, path: partBinary('temporal-test-server') } };
    // The SDK allows the JVM five seconds; a busy machine may need a second try.
    env = await TestWorkflowEnvironment.createTimeSkipping({ server }).catch(() =>
      TestWorkflowEnvironment.createTimeSkipping({ server }),
    );
    await env.connection.operatorService.addSearchAttributes({
      namespace: env.namespace ?? 'default',
      searchAttributes: Object.fromEntries(
        Object.entries(searchAttributes).map(([name, type]) => [name, indexedValueTypes[type]]),
      ),
    });
  });
  afterEach(async () => {
    if (!running) return;
    const history = await running.handle.fetchHistory();
    await running.stop();
    await Worker.runReplayHistory({ workflowBundle: await workflowBundle() }, history, running.workflowId);
    running = undefined;
  });
  after(() => env?.teardown());

  async function failover(cells: ScriptedCells) {
    running = await failoverOf(env, cells);
    return running;
  }

  it('stays open for its whole cooldown, then ends with its outcome', async () => {
    const cells = new ScriptedCells(contextOf({ policy: policyOf({ cooldownS: 7200 }) }));
    const run = await failover(cells);
    await run.risk('shift');
    await waitUntil(() => cells.syntheticBp >= 2000, { withinMs: 15_000, what: 'a step is made' });
    cells.source = 'dead';
    const { outcome } = (await run.handle.result()) as FailoverResult;
    expect(outcome).to.equal('failed-over');
    const { startTime, closeTime } = await run.handle.describe();
    expect(closeTime!.getTime() - startTime.getTime()).to.be.at.least(7200_000);
  });

  it('absorbs what is told in the cooldown of a refusal, instead of refusing again and again', async () => {
    const context = contextOf({ policy: policyOf({ autonomy: 'advise', cooldownS: 3600 }) });
    const cells = new ScriptedCells(context);
    const run = await failover(cells);
    await run.risk('shift');
    await waitUntil(() => cells.saved.length > 0, { withinMs: 15_000, what: 'the refusal is kept' });
    for (let hour = 0; hour < 3; hour++) {
      await env.sleep('50 minutes');
      await run.risk('shift');
    }
    const { outcome } = (await run.handle.result()) as FailoverResult;
    expect(outcome).to.equal('refused');
    expect(cells.calls.filter((c) => c === 'loadContext').length).to.equal(1);
    expect(cells.calls).to.not.include('ensureSyntheticCell');
  });
});
