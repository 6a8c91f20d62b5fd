import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { historyFromJSON } from '@temporalio/common/lib/proto-utils';
import { Worker, bundleWorkflowCode } from '@temporalio/worker';
import { expect } from 'chai';
import { packageRoot } from '../../package-root';
import { goldenHistories, quietRuntime, workflowBundle } from '../support/failover-bench';

describe('Histories of failovers', function () {
  this.timeout(60_000);
  const files = readdirSync(goldenHistories).filter((file) => file.endsWith('.json'));
  const read = (file: string) => historyFromJSON(JSON.parse(readFileSync(join(goldenHistories, file), 'utf8')));

  before(quietRuntime);

  it('exist for the ways a failover can go', () => {
    expect(files.length).to.be.at.least(5);
  });

  for (const file of files) {
    it(`replay with the workflow as it is now: ${file.replace('.json', '')}`, async () => {
      await Worker.runReplayHistory({ workflowBundle: await workflowBundle() }, read(file), 'failover/shop/shop-a');
    });
  }

  it('do not replay with a workflow that does something else', async () => {
    const workflowsPath = join(packageRoot, 'dist', 'test', 'support', 'mutated-workflows.js');
    const mutated = await bundleWorkflowCode({ workflowsPath });
    for (const file of files) {
      const err = await Worker.runReplayHistory({ workflowBundle: mutated }, read(file)).then(
        () => null,
        (e: unknown) => e as Error,
      );
      expect(err?.name, file).to.equal('DeterminismViolationError');
    }
  });
});
