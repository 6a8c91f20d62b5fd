/** The process provider keeps the promises of the port, and some of its own. */
import { expect } from 'chai';
import { spawn, spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { Cgroups } from '../../cells/cgroups';
import { ProcessProvider } from '../../cells/process-provider';
import { packageRoot } from '../../package-root';
import { cellSpec, runningProcesses, serverBlueprint, untilPhase } from '../support/cells';
import { conformance } from './conformance';

async function open() {
  const stateDir = mkdtempSync(join(tmpdir(), 'understudy-conformance-'));
  return {
    provider: { kind: 'process' as const, options: { stateDir, graceMs: 2_000 } },
    remains: () => readdirSync(stateDir),
    stranger: async () => {
      const child = spawn('/bin/sh', ['-c', 'exec sleep 600', 'shop-x-1'], { detached: true, stdio: 'ignore' });
      return {
        stands: async () => child.exitCode === null && child.signalCode === null,
        remove: async () => void child.kill(),
      };
    },
    close: async () => rmSync(stateDir, { recursive: true, force: true }),
  };
}

conformance('process', open, async () => undefined);

describe('Process provider, by its own means', function () {
  this.timeout(120_000);
  let stateDir: string;
  const marker = `own-means-${process.pid}`;
  const isRoot = userInfo().uid === 0;
  const one = { instances: 1, memoryLimitMib: 96 };

  beforeEach(() => (stateDir = mkdtempSync(join(tmpdir(), 'understudy-conformance-'))));
  afterEach(async () => {
    const provider = new ProcessProvider({ stateDir, graceMs: 2_000 });
    for (const { cell } of await provider.list()) await provider.destroy(cell);
    spawnSync('umount', [stateDir], { stdio: 'ignore' });
    rmSync(stateDir, { recursive: true, force: true });
    expect([...runningProcesses(marker).values()]).to.deep.equal([]);
  });

  it('holds an instance to its limits by control groups, where it may, and reads them back', async function () {
    if (!(await canLimit(stateDir))) return this.skip();
    const provider = new ProcessProvider({ stateDir, graceMs: 2_000 });
    const blueprint = serverBlueprint(marker, [], { resources: { ...one, cpu: 0.5, enforce: true } });
    await provider.ensure(cellSpec('shop-x', blueprint));
    const { instances } = await untilPhase(provider, 'shop-x', 'ready');
    const { by, ...limits } = instances[0]!.limits!;
    expect(limits).to.deep.equal({ memoryBytes: 96 * 1024 * 1024, cpus: 0.5, processes: 512 });
    expect(by).to.match(/^cgroup v[12]$/);
    await provider.idle('shop-x', 'frozen');
    await untilPhase(provider, 'shop-x', 'idle');
    expect((await provider.idle('shop-x', 'stopped')).instances.map(({ phase, pid }) => [phase, pid])).to.deep.equal([
      ['idle', undefined],
    ]);
    await provider.destroy('shop-x');
    expect(await new Cgroups(stateDir).read(`shop-x`)).to.equal(undefined);
  });

  it('runs each instance as a user of its own, without privileges to win back', async function () {
    if (!isRoot) return this.skip();
    spawnSync('chmod', ['711', stateDir]);
    // Where such a user can read it: a checkout may lie in a folder of its owner's only.
    const program = join(stateDir, 'cell-server.js');
    copyFileSync(join(packageRoot, 'dist/test/support/cell-server.js'), program);
    const provider = new ProcessProvider({ stateDir, graceMs: 2_000, user: 'allocate' });
    await provider.ensure(cellSpec('shop-x', serverBlueprint(marker, [], {}, program)));
    const { instances } = await untilPhase(provider, 'shop-x', 'ready');
    const uids = instances.map(({ pid }) => {
      const status = readFileSync(`/proc/${pid}/status`, 'utf8');
      expect(status)
        .to.match(/^CapBnd:\s0+$/m)
        .and.match(/^NoNewPrivs:\s1$/m);
      return /^Uid:\s(\d+)\s\1\s\1\s\1$/m.exec(status)?.[1];
    });
    expect(new Set(uids).size).to.equal(2);
    expect(uids).not.to.include('0');
  });

  it('says that the disk is full, keeps nothing, and works again when there is room', async function () {
    if (!isRoot || spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', stateDir]).status !== 0)
      return this.skip();
    const provider = new ProcessProvider({ stateDir, graceMs: 2_000 });
    const spec = cellSpec('shop-x', serverBlueprint(marker, [], { resources: one }));
    try {
      writeFileSync(join(stateDir, 'filler'), Buffer.alloc(1024 * 1024));
    } catch {
      // It is full now.
    }
    const failure = await provider.ensure(spec).then(
      () => undefined,
      (error: Error) => error.message,
    );
    expect(failure).to.contain(`no space is left for ${stateDir} (ENOSPC`);
    expect(readdirSync(stateDir)).to.deep.equal(['filler']);
    rmSync(join(stateDir, 'filler'));
    await provider.ensure(spec);
    await untilPhase(provider, 'shop-x', 'ready');
    await provider.destroy('shop-x');
    expect(existsSync(join(stateDir, 'shop-x'))).to.equal(false);
  });
});

async function canLimit(stateDir: string): Promise<boolean> {
  const cgroups = new Cgroups(`${stateDir}/probe`);
  const made = await cgroups.create('probe.group', { memoryBytes: 64 * 1024 * 1024, processes: 64 });
  await cgroups.remove('probe');
  return made !== undefined;
}
