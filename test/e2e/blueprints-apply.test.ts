/** `understudy apply` as people run it: whole or not at all, in plain sentences. */
import { expect } from 'chai';
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { ConfigurationStore } from '../../blueprints/store';
import { packageRoot } from '../../package-root';
import { shopDocuments } from '../support/documents';
import { startPostgres, type TestPostgres } from '../support/postgres';

describe('understudy apply', function () {
  this.timeout(120_000);
  let postgres: TestPostgres;
  let dir: string;
  let url: string;
  let file: string;

  before(async () => {
    postgres = await startPostgres();
  });
  after(async () => {
    await postgres.stop();
  });
  beforeEach(async () => {
    dir = mkdtempSync(join(tmpdir(), 'understudy-apply-'));
    file = join(dir, 'shop.yaml');
    url = await postgres.database();
    const settings = {
      kafka: { brokers: ['127.0.0.1:1'] },
      temporal: { address: '127.0.0.1:1' },
      postgres: { url },
      controlPlane: { xdsAddress: '127.0.0.1:1', trafficAddress: '127.0.0.1:1' },
    };
    writeFileSync(join(dir, 'settings.yaml'), stringify(settings));
  });
  afterEach(() => {
    rmSync(dir, { recursive: true, force: true });
  });

  function apply(): Promise<{ code: number | null; stdout: string; stderr: string }> {
    const args = [join(packageRoot, 'dist/cli/understudy.js'), 'apply', '-f', file];
    return new Promise((resolve) => {
      const child = execFile(
        process.execPath,
        [...args, '--settings', join(dir, 'settings.yaml')],
        (_error, stdout, stderr) => resolve({ code: child.exitCode, stdout, stderr }),
      );
    });
  }

  /** The shop at ports where surely nobody listens: its usual ones are among those that cells of other tests take. */
  const shopNowhere = () =>
    shopDocuments().map((document) =>
      document.kind === 'Cell'
        ? { ...document, instances: document.instances?.map((each) => ({ ...each, port: each.port - 20_000 })) }
        : document,
    );
  const write = (documents: unknown[]) => writeFileSync(file, documents.map((each) => stringify(each)).join('---\n'));

  it('says what it created, and the second time that nothing changed', async () => {
    write(shopNowhere());
    expect(await apply()).to.deep.equal({
      code: 0,
      stdout: 'Service shop: created.\nCell shop-a: created.\nCell shop-b: created.\nBlueprint shop: created.\n',
      stderr:
        'Service shop: not reached from here: shop-a-1 (127.0.0.1:101), shop-a-2 (127.0.0.1:102), shop-b-1 (127.0.0.1:201), shop-b-2 (127.0.0.1:202).\n',
    });
    const again = await apply();
    expect(again.stdout.match(/: unchanged\.$/gm)).to.have.length(4);
    const [service, ...others] = shopNowhere();
    write([{ ...service, slo: { latencyMs: 100 } }, ...others]);
    expect((await apply()).stdout).to.match(/^Service shop: changed slo\.latencyMs\.$/m);
  });

  it('refuses a broken file as a whole, with file, line, path and reason, and applies nothing of it', async () => {
    const [service, cell, ...others] = shopDocuments();
    for (const broken of [
      [service, { ...cell, colour: 'red' }, ...others],
      [service, { ...cell, blueprint: 'missing' }, ...others],
    ]) {
      write(broken);
      const { code, stdout, stderr } = await apply();
      expect(code).to.equal(1);
      expect(stdout).to.equal('');
      expect(stderr).to.match(
        /nothing was applied:\n.*shop\.yaml:\d+: document 2 \(Cell shop-a\): (colour|blueprint): /,
      );
      const store = await ConfigurationStore.connect(url);
      try {
        await store.migrate();
        expect([await store.services(), await store.cells(), await store.blueprint('shop')]).to.deep.equal([
          [],
          [],
          undefined,
        ]);
      } finally {
        await store.close();
      }
    }
  });
});
