/** The janitor with a real Postgres and real cells of two providers: it finds what a crash left, and nothing else. */
import { expect } from 'chai';
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { stringify } from 'yaml';
import { ConfigurationStore } from '../../blueprints/store';
import { ExecProvider } from '../../cells/exec-provider';
import { SyntheticCellManager } from '../../cells/manager';
import { ProcessProvider } from '../../cells/process-provider';
import type { CellProvider } from '../../cells/provider';
import { packageRoot } from '../../package-root';
import { cellSpec, processesThatStay, serverBlueprint, untilPhase } from '../support/cells';
import { cellDocument, serviceDocument } from '../support/documents';
import { startPostgres, type TestPostgres } from '../support/postgres';

const one = { instances: 1, memoryLimitMib: 64 };

describe('understudy cells sweep', function () {
  this.timeout(240_000);
  let postgres: TestPostgres;
  let url: string;
  let dir: string;
  let store: ConfigurationStore;
  let marker: string;
  let providers: { process: CellProvider; 'exec:example': CellProvider };
  const example = ['python3', join(packageRoot, 'examples', 'processes', 'provider.py')];

  before(async () => (postgres = await startPostgres()));
  after(() => postgres?.stop());
  beforeEach(async () => {
    dir = mkdtempSync(join(tmpdir(), 'understudy-sweep-'));
    marker = `sweep-${randomBytes(6).toString('hex')}`;
    url = await postgres.database();
    store = await ConfigurationStore.connect(url);
    await store.migrate();
    const environment = { EXAMPLE_STATE: join(dir, 'example') };
    providers = {
      process: new ProcessProvider({ stateDir: join(dir, 'cells'), graceMs: 2_000 }),
      'exec:example': new ExecProvider({ name: 'example', command: example, environment }),
    };
    writeFileSync(
      join(dir, 'settings.yaml'),
      stringify({
        postgres: { url },
        // Not asked by the janitor.
        kafka: { brokers: ['127.0.0.1:9'] },
        temporal: { address: '127.0.0.1:9' },
        controlPlane: { xdsAddress: '127.0.0.1:9', trafficAddress: '127.0.0.1:9' },
        processProvider: { stateDir: join(dir, 'cells') },
        execProviders: { example: { command: example, environment } },
      }),
    );
  });
  afterEach(async () => {
    for (const provider of Object.values(providers))
      for (const { cell } of await provider.list()) await provider.destroy(cell);
    await store.close();
    expect(await processesThatStay(marker)).to.deep.equal([]);
    rmSync(dir, { recursive: true, force: true });
  });

  const sweep = async (...options: string[]) => {
    const program = join(packageRoot, 'dist', 'cli', 'understudy.js');
    const args = [program, 'cells', 'sweep', '--settings', join(dir, 'settings.yaml'), '--json', ...options];
    const { stdout } = await promisify(execFile)(process.execPath, args);
    const { cells } = JSON.parse(stdout) as { cells: { cell: string; isOrphan: boolean; removed: boolean | null }[] };
    return Object.fromEntries(cells.map(({ cell, isOrphan, removed }) => [cell, isOrphan ? removed : 'kept']));
  };
  const standing = async () => {
    const lists = await Promise.all(Object.values(providers).map((provider) => provider.list()));
    return lists.flat().map(({ cell }) => cell);
  };
  const run = async (kind: keyof typeof providers, cell: string, leaseS?: number) => {
    const blueprint = serverBlueprint(marker, [], { provider: kind, resources: one });
    await providers[kind].ensure({ ...cellSpec(cell, blueprint), ...(leaseS !== undefined && { leaseS }) });
    await untilPhase(providers[kind], cell, 'ready');
  };

  it('finds orphans of every provider, removes them when told to, and nothing else', async () => {
    await store.apply([
      serviceDocument(),
      cellDocument('shop-a'),
      cellDocument('shop-b'),
      serverBlueprint(marker, [], { resources: one }),
    ]);
    await run('process', 'lapsed-1', 0);
    await run('exec:example', 'lapsed-2', 0);
    await run('process', 'leased', 600);
    await run('process', 'without-lease');
    // Its lease has lapsed, too: whoever carries traffic is not the janitor's, nor is what the store knows.
    await run('process', 'shop-a', 0);

    const looked = await sweep();
    expect(looked).to.deep.equal({
      'lapsed-1': null,
      'lapsed-2': null,
      leased: 'kept',
      'shop-a': 'kept',
      'without-lease': 'kept',
    });
    expect(await sweep('--dry-run')).to.deep.equal(looked);
    expect(await standing()).to.have.length(5);

    expect(await sweep('--remove')).to.deep.equal({ ...looked, 'lapsed-1': true, 'lapsed-2': true });
    expect((await standing()).sort()).to.deep.equal(['leased', 'shop-a', 'without-lease']);
    expect(await sweep('--remove')).to.deep.equal({ leased: 'kept', 'shop-a': 'kept', 'without-lease': 'kept' });
  });

  it('lets a synthetic cell be whose lease lapsed while no worker lived, and a worker renews it', async () => {
    await store.apply([
      serviceDocument(),
      cellDocument('shop-a'),
      cellDocument('shop-b'),
      serverBlueprint(marker, [], { resources: one }),
    ]);
    const manager = new SyntheticCellManager(store, providers.process, 600);
    const { cell } = await manager.acquire({ failover: 'failover/shop/shop-a', source: 'shop-a' });
    expect((await manager.observe(cell)).expiresAt).to.be.a('string');
    expect(await manager.renewLeases(), 'as long as it holds').to.equal(0);
    await providers.process.renew(cell.name, 0);
    expect(await sweep('--remove')).to.deep.equal({ [cell.name]: 'kept' });
    expect(await manager.renewLeases()).to.equal(1);
    expect(Date.parse((await manager.observe(cell)).expiresAt!)).to.be.greaterThan(Date.now() + 300_000);
  });
});
