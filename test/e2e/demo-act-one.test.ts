/** The whole road under kill -9: both workers die in the middle of act 1, and the story still ends well. */
import { execFileSync } from 'node:child_process';
import { Worker } from '@temporalio/worker';
import { expect } from 'chai';
import { Act } from '../../lab/demo/act';
import { leakToDeath } from '../../lab/demo/acts';
import type { ActReport } from '../../lab/demo/report';
import { Stage } from '../../lab/demo/stage';
import { failoverWorkflowId, phases } from '../../workflows/messages';
import { untilPhase } from '../support/cells';

describe('A leak to death while both workers are killed with -9', function () {
  this.timeout(300_000);
  let stage: Stage;
  let report: ActReport;

  before(async () => {
    stage = await Stage.open({ tell: () => undefined });
    report = await leakToDeath(stage, async (act) => {
      const reached = (phase: (typeof phases)[number]) => () =>
        act.phase !== null && phases.indexOf(act.phase) >= phases.indexOf(phase);
      await act.until('the synthetic cell was being made', 90, reached('provisioning'));
      await stage.stack.process('failover-worker').restart('SIGKILL');
      await act.until('the canary had begun', 60, reached('canary'));
      await stage.stack.process('scoring-worker').restart('SIGKILL');
      await stage.stack.process('failover-worker').restart('SIGKILL');
    });
  });

  after(async () => {
    await stage?.close();
  });

  it('ends failed-over, with traffic moved before the primary died', () => {
    expect(report.outcome, report.reason).to.equal('failed-over');
    expect(report.movedBeforeDeathBp).to.be.greaterThan(0);
    expect(report.warningS).to.be.greaterThan(0);
  });

  it('fails no request', () => {
    expect(report.failed, JSON.stringify(report.series.events, null, 1)).to.equal(0);
  });

  it("counts what Envoy's own statistics count", () => {
    expect(report.requests).to.be.greaterThan(1000);
    expect(report.envoy.requests).to.equal(report.requests);
    expect(report.envoy.responses5xx).to.equal(report.failed);
  });

  it("counts failures as Envoy's own statistics do, when there are some", async () => {
    const act = await Act.begin(stage, { name: 'nobody-left', title: 'Every instance is killed', service: 'parcels' });
    const cells = await Promise.all(['parcels-a', 'parcels-b'].map((cell) => stage.provider.observe(cell)));
    await act.seconds(1);
    for (const { pid } of cells.flatMap(({ instances }) => instances)) process.kill(pid as number, 'SIGKILL');
    await act.seconds(3);
    const ended = await act.end('killed', 'all instances were killed');
    expect(ended.failed).to.be.greaterThan(100);
    expect(ended.envoy.requests).to.equal(ended.requests);
    expect(ended.envoy.responses5xx, JSON.stringify(ended.failures)).to.equal(ended.failed);
  });

  it('did every side effect once', async () => {
    const synthetic = (await stage.store.cells('orders')).filter((cell) => cell.role === 'synthetic');
    expect(synthetic.map((cell) => cell.sourceCell)).to.deep.equal(['orders-a']);
    // One look gives an instance a second to answer; a machine that stands still for longer makes it no dead one.
    await untilPhase(stage.provider, synthetic[0]!.name, 'ready');
    const processes = execFileSync('ps', ['-eo', 'args=']).toString().split('\n');
    const running = processes.filter(
      (line) => line.includes(`--cell ${synthetic[0]!.name} `) && line.startsWith('node'),
    );
    expect(running, 'processes of the synthetic cell').to.have.length(2);

    const changes = (await stage.store.splitChanges('orders')).toSorted((a, b) => a.epoch - b.epoch);
    // Epoch 1 is the safe split; the first change makes epoch 2.
    expect(changes.map((change) => change.epoch)).to.deep.equal(changes.map((_, i) => i + 2));
    expect(new Set(changes.map((change) => change.idempotencyKey)).size).to.equal(changes.length);
    const asSplit = changes.map((change) => JSON.stringify(change.split));
    expect(
      asSplit.filter((split, i) => split === asSplit[i - 1]),
      'a change that changes nothing',
    ).to.deep.equal([]);
  });

  it('left a history that replays', async () => {
    const { workflow } = stage.temporal;
    const history = await workflow.getHandle(failoverWorkflowId('orders', 'orders-a')).fetchHistory();
    expect(history.events?.length).to.be.lessThan(400);
    await Worker.runReplayHistory({ workflowsPath: require.resolve('../../workflows') }, history);
  });
});
