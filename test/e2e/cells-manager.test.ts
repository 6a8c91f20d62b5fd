/** The Synthetic Cell Manager with a real Postgres and real processes: acquired once, warmed with evidence, reused, retired. */
import { expect } from 'chai';
import { execFileSync, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { RefusedError, type CellRecord } from '../../blueprints/records';
import type { BlueprintDocument } from '../../blueprints/schema';
import { ConfigurationStore } from '../../blueprints/store';
import { request } from '../../cells/http';
import { CellNotReadyError } from '../../cells/life/ready';
import { SyntheticCellManager } from '../../cells/manager';
import { poolQuestion } from '../../cells/pool-facts';
import { ProcessProvider } from '../../cells/process-provider';
import { retireIdleCells } from '../../cells/retire-idle';
import { startDeclaredCell, stopDeclaredCell } from '../../cells/source-cells';
import { releasePorts, reservePorts } from '../../local/ports';
import { processesThatStay, runningProcesses, serverBlueprint, until } from '../support/cells';
import { cellDocument, serviceDocument } from '../support/documents';
import { startPostgres, type TestPostgres } from '../support/postgres';

const failover = 'failover/shop/shop-a';
const plan = [
  { kind: 'preload', path: '/preload', minEntries: 50 },
  { kind: 'connections', perInstance: 3 },
  { kind: 'probe', path: '/work', requests: 8, maxLatencyRatio: 1.5, toleranceMs: 500, atMostS: 0 },
];
const frozen = { scaleDown: { idle: 'frozen' } };

describe('Synthetic Cell Manager', function () {
  this.timeout(180_000);
  let postgres: TestPostgres;
  let store: ConfigurationStore;
  let stateDir: string;
  let marker: string;
  let provider: ProcessProvider;
  let manager: SyntheticCellManager;

  before(async () => {
    postgres = await startPostgres();
  });
  after(async () => {
    await postgres.stop();
  });
  beforeEach(async () => {
    store = await ConfigurationStore.connect(await postgres.database());
    await store.migrate();
    stateDir = mkdtempSync(join(tmpdir(), 'understudy-cells-'));
    marker = `cell-test-${randomBytes(6).toString('hex')}`;
    provider = new ProcessProvider({ stateDir, graceMs: 2_000 });
    manager = new SyntheticCellManager(store, provider);
  });
  afterEach(async () => {
    for (const { cell } of await provider.list()) await provider.destroy(cell);
    const left = await processesThatStay(marker);
    for (const pid of left) process.kill(pid, 'SIGKILL');
    rmSync(stateDir, { recursive: true, force: true });
    await store.close();
    expect(left, 'processes that no record led to').to.deep.equal([]);
  });

  async function applyShop(blueprint: BlueprintDocument, policy: Record<string, unknown> = {}): Promise<void> {
    await store.apply([serviceDocument({ policy }), cellDocument('shop-a'), cellDocument('shop-b'), blueprint]);
  }

  /** Runs the declared cells and fills what they keep, so that they are warm. */
  async function startShop(): Promise<void> {
    for (const name of ['shop-a', 'shop-b']) {
      const { instances } = await startDeclaredCell(provider, store, name);
      for (const instance of instances) await request(instance, '/fill', { timeoutMs: 2_000 });
    }
  }

  const acquire = (by = failover, source = 'shop-a') => manager.acquire({ failover: by, source });
  const understudies = () =>
    [...runningProcesses(marker).values()].filter((mark) => mark.includes('understudy')).sort();

  it('runs a declared cell from its blueprint and records where it answers', async () => {
    await applyShop(serverBlueprint(marker));
    const cell = await startDeclaredCell(provider, store, 'shop-a');
    expect(cell.instances.map(({ name }) => name)).to.deep.equal(['shop-a-1', 'shop-a-2']);
    expect((await store.cell('shop-a'))?.instances).to.deep.equal(cell.instances);
    expect((await provider.observe('shop-a')).owner).to.equal('operator');
    expect(await startDeclaredCell(provider, store, 'shop-a')).to.deep.equal(cell);
  });

  it('ends a declared cell that it started, but none that carries traffic', async () => {
    await applyShop(serverBlueprint(marker));
    await startDeclaredCell(provider, store, 'shop-a');
    const refused = await stopDeclaredCell(provider, store, 'shop-a').catch((error: unknown) => error);
    expect(refused).to.be.instanceOf(RefusedError);
    expect((await provider.observe('shop-a')).phase).to.equal('ready');
    const emptied = {
      cell: (name: string) => store.cell(name),
      traffic: async () => undefined,
      updateCell: (name: string, change: { instances?: [] }) => store.updateCell(name, change),
    };
    await stopDeclaredCell(provider, emptied, 'shop-a');
    expect((await provider.observe('shop-a')).phase).to.equal('absent');
    expect((await store.cell('shop-a'))?.instances).to.deep.equal([]);
  });

  it('makes one synthetic cell per failover, ready and recorded, however often it is asked', async () => {
    await applyShop(serverBlueprint(marker));
    const both = await Promise.all([acquire(), acquire()]);
    expect(new Set(both.map(({ cell }) => cell.name))).to.deep.equal(new Set(['shop-a-understudy-1']));
    const { cell, reused } = await acquire();
    expect(reused).to.equal(true);
    expect(cell.instances).to.have.length(2);
    for (const instance of cell.instances)
      expect((await request(instance, '/healthz', { timeoutMs: 2_000 })).status).to.equal(200);
    await until(understudies, (now) => now.length <= 2);
    expect(understudies()).to.have.length(2);
  });

  it('warms the cell from its peers and shows the evidence', async () => {
    await applyShop(serverBlueprint(marker, ['--cold-ms', '1500'], { warmUp: plan }));
    await startShop();
    const { cell } = await acquire();
    const beats: string[] = [];
    const evidence = await manager.warm(cell, (text) => beats.push(text));
    expect(evidence.reasons).to.deep.equal([]);
    expect(evidence.warm).to.equal(true);
    expect(evidence.entries).to.equal(100);
    expect(evidence.connections).to.equal(6);
    expect(evidence.probe).to.include({ requests: 16, errors: 0 });
    expect(evidence.probe?.peersP95Ms).to.be.a('number');
    expect(beats.length).to.be.greaterThan(3);
    expect((await store.cell(cell.name))?.state).to.equal('warming');
    expect(evidence.protection).to.deep.equal({ weaker: [], comparedWith: 'source', notes: [] });
    expect(evidence.drift).to.deep.equal([]);
  });

  it('calls no cell warm that is less protected than its source, and names the difference', async function () {
    if (process.platform !== 'linux') this.skip();
    await applyShop(serverBlueprint(marker));
    await startShop();
    const [source] = (await provider.observe('shop-a')).instances;
    execFileSync('prlimit', ['--pid', String(source!.pid), '--nofile=64:64']);
    const { cell } = await acquire();
    const { warm, reasons } = await manager.warm(cell);
    expect(warm).to.equal(false);
    expect(reasons).to.have.length(2);
    expect(reasons[0]).to.match(
      /^weaker protection: shop-a-understudy-1-1 has .* on open files, its source a limit of 64$/,
    );
  });

  it('finds out a cell that is still cold', async () => {
    await applyShop(serverBlueprint(marker, ['--cold-ms', '1500'], { warmUp: plan.slice(1) }));
    await startShop();
    const { cell } = await acquire();
    const evidence = await manager.warm(cell);
    expect(evidence.warm).to.equal(false);
    expect(evidence.reasons.join('\n')).to.match(/probe of \/work on shop-a-understudy-1-1: p95 is .* its peers'/);
  });

  it('finds out one cold instance beside a warm one', async () => {
    await applyShop(serverBlueprint(marker, ['--cold-ms', '1500'], { warmUp: plan.slice(1) }));
    await startShop();
    const { cell } = await acquire();
    await request(cell.instances[0]!, '/fill', { timeoutMs: 2_000 });
    const { warm, reasons } = await manager.warm(cell);
    expect(warm).to.equal(false);
    expect(reasons).to.have.length(1);
    expect(reasons[0]).to.contain('shop-a-understudy-1-2');
  });

  it('is not warm without entries, with errors, or with nobody to load from, and says which', async () => {
    const steps = [
      { kind: 'preload', path: '/preload', minEntries: 51 },
      { kind: 'connections', perInstance: 1, path: '/nowhere' },
      { kind: 'probe', path: '/broken', requests: 8, atMostS: 0 },
    ];
    await applyShop(serverBlueprint(marker, [], { warmUp: steps }));
    const { cell } = await acquire();
    const alone = await manager.warm(cell);
    expect(alone.warm).to.equal(false);
    expect(alone.reasons).to.include('preload: no healthy peer to load from');
    await startShop();
    const { warm, reasons, probe } = await manager.warm(cell);
    expect(warm).to.equal(false);
    expect(reasons.some((reason) => reason.includes('at least 51 are needed'))).to.equal(true);
    expect(reasons.some((reason) => reason.includes('1 of 1 failed (answered 404)'))).to.equal(true);
    expect(reasons.some((reason) => reason.includes('requests failed (answered 500)'))).to.equal(true);
    expect(probe?.errors).to.be.greaterThan(0);
  });

  it('gives an idle cell with its processes to the next failover', async () => {
    await applyShop(serverBlueprint(marker, [], frozen));
    const first = await acquire();
    const before = [...runningProcesses(marker).keys()].sort();
    const rested = await manager.rest(first.cell);
    expect(rested).to.include({ state: 'idle', owner: null });
    expect((await provider.observe(first.cell.name)).phase, 'it costs next to nothing').to.equal('idle');
    // A repeated rest by the one who has let go changes nothing.
    await manager.rest(first.cell);
    const second = await acquire('failover/shop/shop-b', 'shop-b');
    expect(second.reused).to.equal(true);
    expect((await provider.observe(first.cell.name)).phase).to.equal('ready');
    expect(second.cell).to.deep.include({ name: first.cell.name, owner: 'failover/shop/shop-b', sourceCell: 'shop-b' });
    expect([...runningProcesses(marker).keys()].sort()).to.deep.equal(before);
    expect((await provider.list('failover/shop/shop-b')).map(({ cell }) => cell)).to.deep.equal([first.cell.name]);
    // Late, the first failover lets go once more of what is another's now.
    await manager.rest(first.cell);
    expect((await store.cell(first.cell.name))?.owner).to.equal('failover/shop/shop-b');
  });

  it('gives a failover the cell that is being made for the pool, at any moment before it lies idle', async () => {
    await applyShop(serverBlueprint(marker));
    const claim = async () => {
      const blueprint = { name: 'shop', version: 1 };
      const { cell } = await store.acquireSyntheticCell({
        ...{ failover: 'pool/shop', source: 'shop-a', blueprint, fromNothing: true },
      });
      return cell;
    };
    const refusal = (work: Promise<unknown>) =>
      work.then(
        () => undefined,
        (error: Error) => error,
      );
    const claimed = await claim();
    expect(await claim(), 'asked again').to.deep.equal(claimed);
    const pooled = await manager.makeForPool(claimed);
    expect(await manager.makeForPool(claimed), 'by another worker').to.deep.equal(pooled);
    expect((await manager.warm(pooled)).warm).to.equal(true);
    const before = [...runningProcesses(marker).keys()].sort();

    const first = await acquire();
    expect(first).to.deep.include({ reused: true, cell: { ...pooled, owner: failover, state: 'provisioning' } });
    const late = [() => manager.makeForPool(pooled), () => manager.warm(pooled), () => manager.restInPool(pooled)];
    for (const step of late) expect((await refusal(step()))?.message).to.contain(`belongs to ${failover}`);
    expect((await acquire()).cell.name, 'nothing of it is made anew').to.equal(pooled.name);
    expect([...runningProcesses(marker).keys()].sort()).to.deep.equal(before);
    expect((await manager.observe(pooled)).phase).to.equal('ready');

    // Laid idle it is every failover's; only while it falls asleep it is nobody's but the pool's.
    const second = await manager.makeForPool(await claim());
    expect(second.name).to.not.equal(pooled.name);
    await store.updateCell(second.name, { state: 'idle' }, 'pool/shop');
    const third = await acquire('failover/shop/shop-b', 'shop-b');
    expect(third.reused).to.equal(false);
    expect(await manager.restInPool(second)).to.include({ state: 'idle', owner: null });
    expect((await manager.observe(second)).phase).to.equal('idle');
    expect((await acquire('failover/shop/shop-c', 'shop-a')).cell.name).to.equal(second.name);
  });

  it('replaces an idle cell of a blueprint that has changed: the new one first, where one is worth its cost', async () => {
    const policy = { autonomy: 'act', pool: { outageCostPerMinute: 1e6 } };
    const byCost = { scaleDown: { keep: 'expected-cost' }, resources: { instances: 1, memoryLimitMib: 64 } };
    await applyShop(serverBlueprint(marker, [], byCost), policy);
    const { cell: old } = await acquire();
    await manager.rest(old);
    expect(await retireIdleCells(store, manager), 'as long as it is of the present one').to.deep.equal([]);

    await applyShop(serverBlueprint(marker, ['--cold-ms', '1'], byCost), policy);
    expect(await retireIdleCells(store, manager), 'before there is another').to.deep.equal([]);
    const { cell: fresh } = await acquire();
    expect(fresh.name).to.not.equal(old.name);
    expect(fresh.blueprint.version).to.equal(2);
    await manager.rest(fresh);
    expect((await retireIdleCells(store, manager)).map(({ cell }) => cell)).to.deep.equal([old.name]);
    expect((await store.idleCells()).map(({ cell }) => cell.name)).to.deep.equal([fresh.name]);

    // Where cells are kept by time nobody makes another: one that no failover can use goes at once.
    await applyShop(serverBlueprint(marker, [], { ...byCost, scaleDown: { keep: 'time' } }), policy);
    expect((await retireIdleCells(store, manager)).map(({ cell }) => cell)).to.deep.equal([fresh.name]);
  });

  it('gives a cell that rests stopped to the next failover, started again, and leaves nothing running until then', async () => {
    await applyShop(serverBlueprint(marker, [], { scaleDown: { idle: 'stopped' } }));
    const { cell } = await acquire();
    await manager.rest(cell);
    expect(understudies()).to.deep.equal([]);
    expect((await manager.observe(cell)).phase).to.equal('idle');
    const again = await acquire('failover/shop/shop-b', 'shop-b');
    expect(again.reused).to.equal(true);
    expect(again.cell).to.deep.include({ name: cell.name, instances: cell.instances });
    for (const instance of again.cell.instances)
      expect((await request(instance, '/healthz', { timeoutMs: 2_000 })).status).to.equal(200);
    expect(understudies()).to.have.length(2);
  });

  it('has a cell rest stopped where such cells were started and warmed fast enough, else frozen, and knows its price', async () => {
    const allow = (backWithinS: number, warmUp: object[] = []) => ({
      ...{ scaleDown: { backWithinS }, resources: { instances: 1, memoryLimitMib: 64 }, warmUp },
    });
    const lieIdle = async (cell: CellRecord) => {
      const { rest, state } = await manager.rest(cell);
      expect(state).to.equal('idle');
      expect((await manager.observe(cell)).phase).to.equal('idle');
      return rest;
    };
    const explained = async () => {
      const { prices, rest } = await poolQuestion(store, (await store.service('shop'))!);
      return [rest?.how, prices.idleCostShare];
    };
    await applyShop(serverBlueprint(marker, [], allow(60, [{ kind: 'connections', perInstance: 1 }])));
    expect(await explained(), 'before anything is known').to.deep.equal(['frozen', 0.1]);
    const fast = await acquire();
    expect(await lieIdle(fast.cell), 'nobody knows how long its warm-up takes').to.include({ how: 'frozen' });
    expect(understudies()).to.have.length(1);

    const woken = await acquire();
    expect((await manager.warm(woken.cell)).warm).to.equal(true);
    const stopped = await lieIdle(woken.cell);
    expect(stopped?.why).to.match(/^auto: the last start was ready and warm after [\d.]+ s, within the 60 s allowed$/);
    expect(stopped?.how).to.equal('stopped');
    expect(understudies()).to.deep.equal([]);
    expect(await explained()).to.deep.equal(['stopped', 0]);
    const again = await acquire('failover/shop/shop-b', 'shop-b');
    expect(again.reused).to.equal(true);
    expect(again.cell).to.deep.include({ name: woken.cell.name, instances: woken.cell.instances });
    expect(again.cell, 'once it has been woken').to.not.have.property('rest');
    expect((await request(again.cell.instances[0]!, '/healthz', { timeoutMs: 2_000 })).status).to.equal(200);
    const starts = await store.cellStarts(again.cell.blueprint);
    expect(starts.map(({ from, warmMs }) => [from, warmMs === null])).to.deep.equal([
      ['stopped', true],
      ['nothing', false],
    ]);
    await manager.retire(again.cell);

    await applyShop(serverBlueprint(marker, ['--start-ms', '1500'], allow(1)));
    const slow = await acquire();
    const rest = await lieIdle(slow.cell);
    expect(rest?.why).to.match(/^auto: the last start was ready after [\d.]+ s, more than the 1 s allowed$/);
    expect(rest?.how).to.equal('frozen');
    expect(understudies()).to.have.length(1);
    expect(await explained()).to.deep.equal(['frozen', 0.1]);
  });

  it('makes an idle cell anew that died at rest', async () => {
    await applyShop(serverBlueprint(marker, [], frozen));
    const { cell } = await acquire();
    await manager.rest(cell);
    const before = new Set(runningProcesses(marker).keys());
    process.kill([...before][0]!, 'SIGKILL');
    await until(
      () => manager.observe(cell),
      ({ phase }) => phase === 'failed',
    );
    const again = await acquire();
    expect(again.cell.name).to.equal(cell.name);
    expect(again.reused).to.equal(false);
    expect((await manager.observe(again.cell)).phase).to.equal('ready');
    for (const pid of runningProcesses(marker).keys()) expect(before.has(pid)).to.equal(false);
  });

  it('says why a cell cannot be made, and tries from the beginning when asked again', async () => {
    await applyShop(serverBlueprint(marker, ['--exit-at-once']));
    for (let attempt = 1; attempt <= 2; attempt += 1) {
      const failure = await acquire().then(
        () => undefined,
        (error: Error) => error,
      );
      expect(failure).to.be.instanceOf(CellNotReadyError);
      expect(failure?.message).to.contain('cannot read the ledger');
    }
    expect((await store.cells('shop')).filter(({ role }) => role === 'synthetic')).to.have.length(1);
  });

  describe('where something has run out', () => {
    const failureOf = () =>
      acquire().then(
        () => undefined,
        (error: Error) => error,
      );
    /** What a failover does with a cell that cannot be made; the claim ends with what little there is of it. */
    const release = async () => {
      for (const cell of (await store.cells('shop')).filter(({ role }) => role === 'synthetic'))
        await manager.retire(cell);
      expect((await store.cells('shop')).filter(({ role }) => role === 'synthetic')).to.deep.equal([]);
      expect(await provider.list()).to.deep.equal([]);
      expect(understudies()).to.deep.equal([]);
    };
    const one = { resources: { instances: 1, memoryLimitMib: 64 } };

    it('says that its ports are taken, keeps nothing, and works once one is free', async () => {
      // Not one of those that outgoing connections take: it must be free once the server has closed.
      const [port] = (await reservePorts(1)) as [number];
      const server = createServer();
      await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
      try {
        await applyShop(serverBlueprint(marker, [], { ...one, network: { ports: { from: port, to: port } } }));
        const failure = await failureOf();
        expect(failure?.name).to.equal('NoFreePortError');
        expect(failure?.message).to.contain(`no free port on 127.0.0.1 between ${port} and ${port}`);
        await release();
        await new Promise((resolve) => server.close(resolve));
        expect((await acquire()).cell.instances.map((instance) => instance.port)).to.deep.equal([port]);
      } finally {
        server.close();
        releasePorts([port]);
      }
    });

    it('says that the memory of a cell does not suffice, and keeps nothing', async () => {
      const resources = { instances: 1, memoryLimitMib: 64, enforce: true };
      await applyShop(serverBlueprint(marker, ['--hold-mib', '512'], { resources, readiness: { timeoutS: 60 } }));
      const failure = await failureOf();
      expect(failure).to.be.instanceOf(CellNotReadyError);
      expect(failure?.message).to.match(/ran out of memory: its limit is 64 MiB|allocation failed/);
      await release();
    });

    it('says that the disk is full, keeps nothing, and works once there is room', async function () {
      const isMounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', stateDir]).status === 0;
      if (!isMounted) return this.skip();
      try {
        await applyShop(serverBlueprint(marker, [], one));
        const filler = join(stateDir, 'filler');
        try {
          writeFileSync(filler, Buffer.alloc(1024 * 1024));
        } catch {
          // It is full now.
        }
        const failure = await failureOf();
        expect(failure?.name).to.equal('DiskFullError');
        expect(failure?.message).to.contain(`no space is left for ${stateDir}`);
        await release();
        expect(readdirSync(stateDir)).to.deep.equal(['filler']);
        rmSync(filler);
        expect((await acquire()).cell.instances).to.have.length(1);
        await release();
      } finally {
        spawnSync('umount', [stateDir]);
      }
    });
  });

  it('refuses to stand in for a cell that is not known', async () => {
    await applyShop(serverBlueprint(marker));
    const refusal = await acquire(failover, 'nobody').then(
      () => undefined,
      (error: Error) => error,
    );
    expect(refusal).to.be.instanceOf(RefusedError);
  });

  describe('with a synthetic cell in the split', () => {
    let cell: CellRecord;
    const change = (expectedEpoch: number, shareBp: number, coverInstances: number) =>
      store.changeTraffic({
        service: 'shop',
        expectedEpoch,
        split: [
          { cell: 'shop-b', shareBp: 10_000 - shareBp, coverInstances: 0 },
          { cell: cell.name, shareBp, coverInstances },
        ],
        reason: 'test',
        by: 'tester',
        idempotencyKey: `to-${expectedEpoch + 1}`,
      });
    const refusalOf = (work: Promise<unknown>) =>
      work.then(
        () => undefined,
        (error: Error) => error,
      );

    beforeEach(async () => {
      await applyShop(serverBlueprint(marker));
      await startDeclaredCell(provider, store, 'shop-b');
      ({ cell } = await acquire());
    });

    it('neither rests nor retires while it carries traffic', async () => {
      await change(1, 500, 1);
      expect((await refusalOf(manager.rest(cell)))?.message).to.contain('carries 500 bp');
      expect((await refusalOf(manager.retire(cell)))?.message).to.contain('is in the split of shop (500 bp');
      expect((await manager.observe(cell)).phase).to.equal('ready');
    });

    it('is not retired while it stands as cover, and is afterwards, without a trace', async () => {
      await change(1, 0, 2);
      expect(await refusalOf(manager.retire(cell))).to.be.instanceOf(RefusedError);
      await store.changeTraffic({
        service: 'shop',
        expectedEpoch: 2,
        split: [{ cell: 'shop-b', shareBp: 10_000, coverInstances: 0 }],
        reason: 'test',
        by: 'tester',
        idempotencyKey: 'away',
      });
      await manager.retire(cell);
      await manager.retire(cell);
      expect(await store.cell(cell.name)).to.equal(undefined);
      expect(understudies()).to.deep.equal([]);
      expect(readdirSync(stateDir)).to.deep.equal(['shop-b']);
    });
  });

  it('retires idle cells when their time has come, and finishes a retirement that was cut short', async () => {
    await applyShop(serverBlueprint(marker, [], frozen), { retireAfterS: 1800 });
    const { cell } = await acquire();
    await manager.rest(cell);
    expect(await retireIdleCells(store, manager)).to.deep.equal([]);
    expect(understudies()).to.have.length(2);

    // As if the worker had died between marking the cell and ending its processes.
    await store.beginRetirement(cell.name, null);
    expect((await retireIdleCells(store, manager)).map(({ cell: name, error }) => [name, error])).to.deep.equal([
      [cell.name, undefined],
    ]);
    expect(understudies()).to.deep.equal([]);

    await applyShop(serverBlueprint(marker, [], frozen), { retireAfterS: 0 });
    const next = await acquire();
    await manager.rest(next.cell);
    expect((await retireIdleCells(store, manager)).map(({ cell: name }) => name)).to.deep.equal([next.cell.name]);
    expect(await store.cell(next.cell.name)).to.equal(undefined);
  });
});
