import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { releasePorts, reservePorts } from '../../local/ports';
import { identify, isGroupAlive, takeLock } from '../../local/process-identity';
import { ManagedProcess, type ProcessSpec } from '../../local/process';
import { Reaper } from '../../local/reaper-client';
import { waitUntil } from '../../local/wait';
import { packageRoot } from '../../package-root';

describe('A managed process', function () {
  this.timeout(60_000);
  let dir: string;
  let reaper: Reaper;
  let managed: ManagedProcess;
  const told: string[] = [];

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'understudy-process-'));
    reaper = new Reaper();
    told.length = 0;
  });
  afterEach(async () => {
    await managed.stop();
    await reaper.close();
    rmSync(dir, { recursive: true });
  });

  function processThat(does: string, spec: Partial<ProcessSpec> = {}): ManagedProcess {
    managed = new ManagedProcess(
      {
        name: 'server',
        command: process.execPath,
        args: ['-e', does],
        logFile: join(dir, 'server.log'),
        ready: (it) => it.output().includes('ready'),
        ...spec,
      },
      reaper,
      {
        onLost: (_, reason) => told.push(`lost: ${reason}`),
        onRestart: (_, reason) => told.push(`restart: ${reason}`),
      },
    );
    return managed;
  }
  const serves = `console.log('ready'); setInterval(() => {}, 1000);`;

  it('that ends before it serves fails at once, with the end of its log', async () => {
    const start = processThat(`console.log('no such option'); process.exit(3)`).start();
    const reason = await start.then(
      () => 'it started',
      (error: Error) => error.message,
    );
    expect(reason).to.match(/server ended before it served \(exit code 3\).*no such option/s);
  });

  it('that does not exist says so', async () => {
    const start = processThat('', { command: '/no/such/program' }).start();
    const reason = await start.then(
      () => 'it started',
      (error: Error) => error.message,
    );
    expect(reason).to.include('/no/such/program could not be started');
  });

  it('that dies unasked is missed', async () => {
    await processThat(serves).start();
    process.kill(managed.pid!, 'SIGKILL');
    await waitUntil(() => told.length > 0, { withinMs: 10_000, what: 'the loss is told' });
    expect(told[0]).to.match(/^lost: server ended unasked \(killed by SIGKILL\)/);
    expect(managed.state).to.equal('lost');
  });

  it('with a restart policy comes back when it dies unasked', async () => {
    await processThat(serves, { restartBackoffMs: { first: 10, last: 100 } }).start();
    const first = managed.pid;
    process.kill(first!, 'SIGKILL');
    await waitUntil(() => managed.state === 'serving' && managed.pid !== first, {
      withinMs: 20_000,
      what: 'it serves again',
    });
    expect(told).to.have.lengthOf(1);
  });

  it('that is killed on purpose stays down and alarms nobody, whatever its policy', async () => {
    await processThat(serves, { restartBackoffMs: { first: 0, last: 0 } }).start();
    await managed.kill('SIGKILL');
    expect(managed.state).to.equal('stopped');
    expect(told).to.deep.equal([]);
    await managed.restart();
    expect(managed.state).to.equal('serving');
  });

  it('that is stopped while it comes back by itself stays down, alarms nobody, and can be started at once', async () => {
    let isToServe = true;
    await processThat(`setInterval(() => {}, 1000)`, {
      ready: () => isToServe,
      restartBackoffMs: { first: 10, last: 100 },
    }).start();
    const first = managed.pid;
    isToServe = false;
    process.kill(first!, 'SIGKILL');
    await waitUntil(() => managed.state === 'starting' && managed.pid !== undefined && managed.pid !== first, {
      withinMs: 20_000,
      what: 'it is started again',
    });
    await managed.stop();
    isToServe = true;
    await managed.start();
    const second = managed.pid!;
    // As long as a start that was left to itself would have taken to notice that it is not wanted any more.
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect([managed.state, managed.pid], told.join('; ')).to.deep.equal(['serving', second]);
    expect(told).to.have.lengthOf(1);
    expect(told[0]).to.match(/^restart: /);
  });

  it('takes down what it started when it is stopped, though that ignores SIGTERM', async () => {
    const child = `process.on('SIGTERM', () => {}); console.log('child ' + process.pid + ' ready'); setInterval(() => {}, 1000)`;
    const parent = `require('node:child_process').spawn(process.execPath, ['-e', ${JSON.stringify(child)}], { stdio: 'inherit' });
      setInterval(() => {}, 1000)`;
    await processThat(parent, { stopWithinMs: 200 }).start();
    const group = identify(managed.pid!);
    await managed.stop();
    expect(isGroupAlive(group)).to.equal(false);
  });
});

describe('Reserved ports', () => {
  it('are all different, and neither those of cells nor of outgoing connections', async () => {
    const ports = (await Promise.all([reservePorts(20), reservePorts(20)])).flat();
    try {
      expect(new Set(ports).size).to.equal(40);
      expect(Math.min(...ports)).to.be.at.least(11_000);
      expect(Math.max(...ports)).to.be.at.most(14_999);
    } finally {
      releasePorts(ports);
    }
  });
});

describe('A lock', function () {
  this.timeout(30_000);
  let dir: string;
  let holder: ChildProcess | undefined;
  beforeEach(() => (dir = mkdtempSync(join(tmpdir(), 'understudy-lock-'))));
  afterEach(() => {
    holder?.kill('SIGKILL');
    rmSync(dir, { recursive: true });
  });

  it('of a live process is respected, and that of one killed with -9 is not', async () => {
    const file = join(dir, 'lock');
    const program = JSON.stringify(join(packageRoot, 'local', 'pid-lock.cjs'));
    const script = `require(${program}).takeLock(process.argv[1]); console.log('taken'); setInterval(() => {}, 1000)`;
    holder = spawn(process.execPath, ['-e', script, file], { stdio: ['ignore', 'pipe', 'inherit'] });
    await once(holder.stdout!, 'data');
    expect(takeLock(file)).to.equal(holder.pid);

    holder.kill('SIGKILL');
    await once(holder, 'exit');
    expect(takeLock(file)).to.equal(null);
    expect(readFileSync(file, 'utf8')).to.match(new RegExp(`^${process.pid} `));
  });
});
