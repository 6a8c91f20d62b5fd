/** The process provider with real processes: one per instance whatever dies when, nothing left after destroy. */
import { expect } from 'chai';
import { spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ProcessProvider } from '../../cells/process-provider';
import { packageRoot } from '../../package-root';
import { cellSpec, processesThatStay, runningProcesses, serverBlueprint, until, untilPhase } from '../support/cells';

describe('Process provider', function () {
  this.timeout(180_000);
  let stateDir: string;
  let marker: string;
  let provider: ProcessProvider;

  beforeEach(() => {
    stateDir = mkdtempSync(join(tmpdir(), 'understudy-cells-'));
    marker = `cell-test-${randomBytes(6).toString('hex')}`;
    provider = new ProcessProvider({ stateDir, graceMs: 2_000 });
  });
  afterEach(async () => {
    for (const { cell } of await provider.list()) await provider.destroy(cell);
    const left = await processesThatStay(marker);
    for (const pid of left) process.kill(pid, 'SIGKILL');
    rmSync(stateDir, { recursive: true, force: true });
    expect(left, 'processes that no record led to').to.deep.equal([]);
  });

  const marks = () => [...runningProcesses(marker).values()].sort();
  const bothInstances = () => [`${marker}/shop-x-1`, `${marker}/shop-x-2`];

  it('runs every instance on a port of its own and says when they are ready', async () => {
    await provider.ensure(cellSpec('shop-x', serverBlueprint(marker)));
    const observed = await untilPhase(provider, 'shop-x', 'ready');
    expect(observed.instances.map(({ name }) => name)).to.deep.equal(['shop-x-1', 'shop-x-2']);
    expect(new Set(observed.instances.map(({ port }) => port)).size).to.equal(2);
    expect([...runningProcesses(marker).keys()].sort()).to.deep.equal(observed.instances.map(({ pid }) => pid).sort());
    expect(marks()).to.deep.equal(bothInstances());
    const { pid, name } = observed.instances[0]!;
    expect(readFileSync(join(stateDir, 'shop-x', name, 'pid'), 'utf8')).to.equal(String(pid));
  });

  it('starts each instance once when two workers ensure the cell at the same moment', async () => {
    const spec = cellSpec('shop-x', serverBlueprint(marker));
    const others = [1, 2, 3].map(() => new ProcessProvider({ stateDir }));
    await Promise.all([provider, ...others].map((each) => each.ensure(spec)));
    await untilPhase(provider, 'shop-x', 'ready');
    await until(marks, (now) => now.length <= 2);
    expect(marks()).to.deep.equal(bothInstances());
  });

  /** Ensures a cell of one instance whose launcher hangs between its claim and the command; answers the launcher's pid. */
  async function launcherThatHangs() {
    const spec = cellSpec('shop-x', serverBlueprint(marker, [], { resources: { instances: 1, memoryLimitMib: 64 } }));
    const home = join(stateDir, 'shop-x', 'shop-x-1');
    mkdirSync(home, { recursive: true });
    // Whoever opens a named pipe to write waits for a reader.
    expect(spawnSync('mkfifo', [join(home, 'pid')]).status).to.equal(0);
    await provider.ensure(spec);
    const { instances } = await until(
      () => provider.observe('shop-x'),
      (observed) => observed.instances[0]?.pid !== undefined,
    );
    return { spec, home, pid: instances[0]!.pid! };
  }

  it('starts an instance again whose launcher was killed between its claim and the command', async () => {
    const { spec, home, pid } = await launcherThatHangs();
    process.kill(pid, 'SIGKILL');
    await untilPhase(provider, 'shop-x', 'failed');
    rmSync(join(home, 'pid'));
    await provider.ensure(spec);
    const { instances } = await untilPhase(provider, 'shop-x', 'ready');
    expect([...runningProcesses(marker).keys()]).to.deep.equal([instances[0]!.pid]);
  });

  it('finds and stops a launcher that hangs between its claim and the command', async () => {
    const { pid } = await launcherThatHangs();
    expect([...runningProcesses(marker).keys()]).to.deep.equal([pid]);
    await provider.destroy('shop-x');
    expect(marks()).to.deep.equal([]);
  });

  it('brings a killed instance back at the same address and leaves the other alone', async () => {
    const spec = cellSpec('shop-x', serverBlueprint(marker));
    await provider.ensure(spec);
    const before = await untilPhase(provider, 'shop-x', 'ready');
    process.kill(before.instances[0]!.pid!, 'SIGKILL');
    const failed = await untilPhase(provider, 'shop-x', 'failed');
    expect(failed.instances[0]!.reason).to.match(/process \d+ (ended by SIGKILL|has ended)/);
    await provider.ensure(spec);
    const after = await untilPhase(provider, 'shop-x', 'ready');
    expect(after.instances[0]!.port).to.equal(before.instances[0]!.port);
    expect(after.instances[0]!.pid).not.to.equal(before.instances[0]!.pid);
    expect(after.instances[1]).to.deep.equal(before.instances[1]);
  });

  it('takes another port when a stranger has the first, and never takes the stranger for the instance', async () => {
    const spec = cellSpec('shop-x', serverBlueprint(marker, [], { resources: { instances: 1, memoryLimitMib: 64 } }));
    await provider.ensure(spec);
    const first = await untilPhase(provider, 'shop-x', 'ready');
    const { pid, port } = first.instances[0]!;
    process.kill(pid!, 'SIGKILL');
    await untilPhase(provider, 'shop-x', 'failed');
    const stranger = http.createServer((_req, res) => res.end('{}'));
    await until(
      () =>
        new Promise<boolean>((resolve) => {
          stranger.once('error', () => resolve(false));
          stranger.listen(port, '127.0.0.1', () => resolve(true));
        }),
      (listens) => listens,
    );
    try {
      await provider.ensure(spec);
      const again = await untilPhase(provider, 'shop-x', 'ready');
      expect(again.instances[0]!.port).not.to.equal(port);
    } finally {
      await new Promise((resolve) => stranger.close(resolve));
    }
  });

  it('says why an instance failed: its last words', async () => {
    await provider.ensure(cellSpec('shop-x', serverBlueprint(marker, ['--exit-at-once'])));
    const failed = await untilPhase(provider, 'shop-x', 'failed');
    expect(failed.instances[0]!.reason).to.contain('cannot read the ledger');
  });

  it('says that an instance which lives but never gets ready has failed', async () => {
    const blueprint = serverBlueprint(marker, ['--never-ready'], { readiness: { timeoutS: 0.5 } });
    await provider.ensure(cellSpec('shop-x', blueprint));
    const failed = await until(
      () => provider.observe('shop-x'),
      ({ phase, instances }) => phase === 'failed' && instances.every(({ reason }) => reason?.includes('503')),
    );
    expect(failed.instances[0]!.reason).to.contain('more than the 0.5 s allowed');
  });

  it('leaves no process, no folder and no record behind, even if the processes ignore SIGTERM or have children', async () => {
    const command = [
      '/bin/sh',
      '-c',
      'trap "" TERM; "$@" & wait; wait',
      'wrapper',
      ...serverBlueprint(marker).image.command,
    ];
    const stubborn = new ProcessProvider({ stateDir, graceMs: 200 });
    await stubborn.ensure(cellSpec('shop-x', serverBlueprint(marker, [], { image: { command } })));
    await untilPhase(stubborn, 'shop-x', 'ready');
    await stubborn.destroy('shop-x');
    expect(marks()).to.deep.equal([]);
    expect(readdirSync(stateDir)).to.deep.equal([]);
    expect((await stubborn.observe('shop-x')).phase).to.equal('absent');
    await stubborn.destroy('shop-x');
  });

  it('finishes a destruction that died half-way, whoever comes next', async () => {
    const spec = cellSpec('shop-x', serverBlueprint(marker));
    await provider.ensure(spec);
    await untilPhase(provider, 'shop-x', 'ready');
    const program = `
      const { CellDirectory } = require(${JSON.stringify(join(packageRoot, 'dist/cells/cell-directory.js'))});
      new CellDirectory(${JSON.stringify(stateDir)}, 'shop-x').moveAway().then(() => process.kill(process.pid, 'SIGKILL'));`;
    expect(spawnSync(process.execPath, ['-e', program]).signal).to.equal('SIGKILL');
    expect((await provider.observe('shop-x')).phase).to.equal('deleting');
    expect((await provider.list()).map(({ cell }) => cell)).to.deep.equal(['shop-x']);
    const old = new Set(runningProcesses(marker).keys());
    expect(old.size).to.equal(2);
    await provider.ensure(spec);
    const { instances } = await untilPhase(provider, 'shop-x', 'ready');
    for (const { pid } of instances) expect(old.has(pid!)).to.equal(false);
    expect(marks()).to.deep.equal(bothInstances());
  });

  it('never lets a launcher that was slow run after its cell was destroyed', async () => {
    const spec = cellSpec('shop-x', serverBlueprint(marker));
    await provider.ensure(spec);
    await untilPhase(provider, 'shop-x', 'ready');
    const run = readdirSync(join(stateDir, 'shop-x')).find((entry) => entry.startsWith('run-'))!;
    const lateClaim = join(stateDir, 'shop-x', run, 'shop-x-1.9.claim');
    await provider.destroy('shop-x');
    await provider.ensure(spec);
    await untilPhase(provider, 'shop-x', 'ready');
    const { launch } = await import('../../cells/launcher.js');
    const late = await launch({
      claim: lateClaim,
      directory: join(stateDir, 'shop-x', 'shop-x-1'),
      logFile: join(stateDir, 'late.log'),
      command: ['/bin/sleep', '1000', `${marker}/late`],
      workingDirectory: stateDir,
      environment: {},
    });
    const code = late.exitCode ?? (await new Promise((resolve) => late.once('exit', resolve)));
    expect(code).to.equal(0);
    expect(marks()).to.deep.equal(bothInstances());
  });

  it('outlives the process that made the cell, and is found again by its owner', async () => {
    const spec = cellSpec('shop-x', serverBlueprint(marker), 'failover/shop/shop-a');
    const program = join(packageRoot, 'dist/test/support/killed-call.js');
    const remade = { kind: 'process', options: { stateDir } };
    const call = JSON.stringify({ provider: remade, operation: 'ensure', spec, k: 0, when: 'before' });
    const run = spawn(process.execPath, [program, call], { stdio: 'ignore' });
    await new Promise((resolve) => run.once('exit', resolve));
    await untilPhase(provider, 'shop-x', 'ready');
    expect((await provider.list('failover/shop/shop-a')).map(({ cell }) => cell)).to.deep.equal(['shop-x']);
    expect(await provider.list('somebody else')).to.deep.equal([]);
    // The same cell under another failover changes hands without a restart.
    const pids = marks();
    await provider.ensure({ ...spec, owner: 'failover/shop/shop-b' });
    expect((await provider.list('failover/shop/shop-b')).map(({ cell }) => cell)).to.deep.equal(['shop-x']);
    expect(marks()).to.deep.equal(pids);
  });

  it('gives the cell the blueprint’s environment and nothing of the worker’s own', async () => {
    process.env['UNDERSTUDY_TEST_SECRET'] = 'geheim';
    try {
      const blueprint = serverBlueprint(marker);
      blueprint.image.environment = { MODE: 'test', WHERE: '{address}:{port}' };
      await provider.ensure(cellSpec('shop-x', blueprint));
    } finally {
      delete process.env['UNDERSTUDY_TEST_SECRET'];
    }
    const { instances } = await untilPhase(provider, 'shop-x', 'ready');
    const { pid, port } = instances[0]!;
    const environment = readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0').filter(Boolean);
    expect(
      environment
        .map((entry) => entry.split('=')[0])
        .filter((key) => key !== 'PWD')
        .sort(),
    ).to.deep.equal(['HOME', 'MODE', 'PATH', 'WHERE']);
    expect(environment).to.include(`WHERE=127.0.0.1:${port}`);
  });

  it('refuses to run another blueprint under the name of a cell that runs', async () => {
    await provider.ensure(cellSpec('shop-x', serverBlueprint(marker)));
    const other = cellSpec('shop-x', serverBlueprint(marker, ['--cold-ms', '5']));
    const refusal = await provider.ensure(other).then(
      () => undefined,
      (error: Error) => error.message,
    );
    expect(refusal).to.contain('cell shop-x runs from another blueprint');
    expect(existsSync(join(stateDir, 'shop-x', 'spec.json'))).to.equal(true);
  });
});
