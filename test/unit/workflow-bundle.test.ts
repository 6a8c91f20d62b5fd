/** The bundle of the workflows that workers start with. */
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { packageRoot } from '../../package-root';
import { workflowBundle } from '../../workers/workflow-bundle';
import { quietRuntime } from '../support/failover-bench';

describe('The bundle of the workflows', function () {
  this.timeout(60_000);
  let dir: string;
  let folders: { compiled: string; kept: string };

  before(() => {
    quietRuntime();
    // Where the SDK is found from.
    dir = mkdtempSync(join(packageRoot, 'dist', 'bundle-test-'));
    folders = { compiled: join(dir, 'workflows'), kept: join(dir, 'kept') };
    mkdirSync(folders.compiled);
  });

  after(() => rmSync(dir, { recursive: true, force: true }));

  const write = (answer: string) =>
    writeFileSync(join(folders.compiled, 'index.js'), `exports.ask = async () => '${answer}';\n`);

  it('is kept from one start to the next, and made anew once a workflow is another', async () => {
    write('the first answer');
    const first = await workflowBundle(folders);
    expect(first.code).to.contain('the first answer');
    const [name] = readdirSync(folders.kept);
    writeFileSync(join(folders.kept, name!), 'what was kept');
    expect((await workflowBundle(folders)).code).to.equal('what was kept');

    write('the second answer');
    expect((await workflowBundle(folders)).code).to.contain('the second answer');
    expect(readdirSync(folders.kept)).to.have.length(1).and.not.include(name);
  });

  it('is made all the same where it cannot be kept', async () => {
    const noFolder = join(dir, 'a file');
    writeFileSync(noFolder, '');
    expect((await workflowBundle({ ...folders, kept: noFolder })).code).to.contain('the second answer');
  });
});
