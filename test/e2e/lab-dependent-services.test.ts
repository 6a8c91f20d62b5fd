/** The lab's services that stand on something: a database, a disk, another service, a queue; and the one in Python. */
import { expect } from 'chai';
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Client } from 'pg';
import type { FaultOrder, InstanceConfig, Peer, ReadyLine, StepLine } from '../../lab/contract';
import { startStack, type Stack } from '../../local/stack';
import { GiveUp, waitUntil } from '../../local/wait';
import { packageRoot } from '../../package-root';
import { isMetricName, type MetricName } from '../../prediction/metrics';

type Config = Partial<InstanceConfig> & Pick<InstanceConfig, 'service'>;

interface Instance {
  child: ChildProcess;
  port: number;
  steps: StepLine['metrics'][];
  stderr: string;
}

describe('Services of the chaos lab that depend on others', function () {
  this.timeout(120_000);
  let stack: Stack;
  let postgres: Peer;
  let kafka: Peer;
  let dir: string;
  const children: ChildProcess[] = [];
  const servers: Server[] = [];
  const mounts: string[] = [];

  before(async () => {
    stack = await startStack({ parts: ['kafka', 'postgres'] });
    const database = new URL(stack.settings.postgres.url);
    postgres = { host: database.hostname, port: Number(database.port) };
    const [host = '', port] = stack.addresses.kafka.split(':');
    kafka = { host, port: Number(port) };
  });
  after(() => stack.stop());

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'understudy-lab-'));
  });
  afterEach(async () => {
    for (const child of children.splice(0)) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const ended = once(child, 'exit');
      child.kill('SIGKILL');
      await ended;
    }
    for (const server of servers.splice(0)) {
      server.closeAllConnections();
      server.close();
    }
    for (const mount of mounts.splice(0)) execFileSync('umount', ['-l', mount]);
    rmSync(dir, { recursive: true, force: true });
  });

  async function start(config: Config): Promise<Instance> {
    const whole = {
      cell: 'a',
      instance: `${config.service}-1`,
      port: 0,
      stepMs: 200,
      slots: 4,
      serviceMs: 10,
      knobs: {},
    };
    const [program, script] =
      config.service === 'reports'
        ? ['python3', join(packageRoot, 'lab', 'services', 'reports.py')]
        : [process.execPath, join(packageRoot, 'dist', 'lab', 'services', `${config.service}.js`)];
    // The port is one at which nothing listens: the instance has to take that of its dependency.
    const database = new URL(stack.settings.postgres.url);
    database.port = '1';
    const child = spawn(program, [script, JSON.stringify({ ...whole, dir, ...config })], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, LAB_POSTGRES_URL: database.href },
    });
    children.push(child);
    const instance: Instance = { child, port: 0, steps: [], stderr: '' };
    child.stderr.on('data', (text: Buffer) => (instance.stderr += text.toString()));
    createInterface({ input: child.stdout }).on('line', (line) => {
      const said = JSON.parse(line) as ReadyLine | StepLine;
      if ('msg' in said) instance.port = said.port;
      else instance.steps.push(said.metrics);
    });
    await waitUntil(
      () => {
        if (child.exitCode !== null) throw new GiveUp(`${config.service} ended: ${instance.stderr}`);
        return instance.port > 0;
      },
      { withinMs: 30_000, what: `${config.service} is ready` },
    );
    return instance;
  }

  /** Status of the answer; 0 without one. */
  const ask = (instance: Instance, path = '/work?key=7'): Promise<number> =>
    fetch(`http://127.0.0.1:${instance.port}${path}`).then(
      async (answer) => (await answer.text(), answer.status),
      () => 0,
    );
  const askMany = (instance: Instance, count: number): Promise<number[]> =>
    Promise.all(Array.from({ length: count }, (_, i) => ask(instance, `/work?key=${i}`)));
  const all = (status: number, count: number): number[] => Array.from({ length: count }, () => status);

  async function order(instance: Instance, wanted: FaultOrder): Promise<number> {
    const body = JSON.stringify(wanted);
    return (await fetch(`http://127.0.0.1:${instance.port}/admin/fault`, { method: 'POST', body })).status;
  }

  /** Asks until a step from now on says so. */
  async function saidUnderLoad(instance: Instance, what: string, holds: (metrics: StepLine['metrics']) => boolean) {
    const from = instance.steps.length;
    return waitUntil(
      async () => {
        await Promise.all([ask(instance), ask(instance)]);
        return instance.steps.slice(from).find(holds);
      },
      { withinMs: 30_000, everyMs: 20, what },
    );
  }

  async function saysItsMetrics(instance: Instance, names: MetricName[]): Promise<void> {
    const step = await saidUnderLoad(instance, `a step with ${names.join(', ')}`, (metrics) =>
      names.every((name) => Number.isFinite(metrics[name])),
    );
    expect(Object.keys(step).filter((name) => !isMetricName(name))).to.deep.equal([]);
    expect(await order(instance, { fault: 'no-such-fault' as FaultOrder['fault'], level: 1 })).to.equal(400);
  }

  function downstream(handle: RequestListener): Promise<Peer> {
    const server = createServer(handle);
    servers.push(server);
    return new Promise((resolve) =>
      server.listen(0, '127.0.0.1', () => resolve({ host: '127.0.0.1', port: (server.address() as AddressInfo).port })),
    );
  }

  /** A small file system in memory at `dir`; skips the test where it may not be made. */
  function capDisk(context: Mocha.Context, size: string): void {
    try {
      execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'understudy-lab-test', dir], { stdio: 'pipe' });
      mounts.push(dir);
    } catch {
      context.skip();
    }
  }

  describe('orders, on Postgres', () => {
    it('commits one update per request answered well', async () => {
      const instance = await start({ service: 'orders', cell: 'Shop-1', dependency: postgres, slots: 32 });
      expect(await askMany(instance, 20)).to.deep.equal(all(200, 20));
      const client = new Client({ connectionString: stack.settings.postgres.url });
      await client.connect();
      const { rows } = await client.query<{ sum: string }>('select sum(ordered) from lab_orders_shop_1');
      await client.end();
      expect(Number(rows[0]?.sum)).to.equal(20);
      await saysItsMetrics(instance, [
        ...(['pool.used', 'pool.limit', 'pool.wait_p99_s'] as const),
        ...(['dependency.request_rate', 'dependency.latency_p99_s', 'dependency.error_ratio'] as const),
      ]);
    });

    it('answers 503 when its connections have leaked, and serves again when they are given back', async () => {
      const instance = await start({ service: 'orders', cell: 'leaky', dependency: postgres, knobs: { pool: 2 } });
      expect(await order(instance, { fault: 'pool-leak', level: 50 })).to.equal(200);
      await waitUntil(() => instance.steps.at(-1)?.['pool.used'] === 2, {
        withinMs: 10_000,
        what: 'the pool is used up',
      });
      expect(await ask(instance)).to.equal(503);
      await order(instance, { fault: 'pool-leak', level: 0, release: true });
      expect(await askMany(instance, 5)).to.deep.equal(all(200, 5));
      await waitUntil(() => instance.steps.at(-1)?.['pool.used'] === 0, { withinMs: 10_000, what: 'the pool is free' });
    });
  });

  describe('journal, on a disk', () => {
    it('keeps no more than it may of what it has written', async () => {
      const keepBytes = 100_000;
      const instance = await start({ service: 'journal', dir, knobs: { bytes: 10_000, keepBytes } });
      expect(await askMany(instance, 60)).to.deep.equal(all(200, 60));
      const sizes = readdirSync(dir).map((name) => statSync(join(dir, name)).size);
      expect(sizes.reduce((sum, size) => sum + size, 0)).to.be.within(10_000, keepBytes + 4 * 10_000);
      await saysItsMetrics(instance, ['disk.write_rate', 'disk.write_latency_s']);
    });

    it('answers 507 while the disk is full, and 200 when there is space again', async function () {
      capDisk(this, '2m');
      const instance = await start({ service: 'journal', dir, knobs: { bytes: 8192, keepBytes: 500_000 } });
      expect(await ask(instance)).to.equal(200);
      await order(instance, { fault: 'disk-fill', level: 20_000_000 });
      await waitUntil(async () => (await ask(instance)) === 507, { withinMs: 10_000, what: 'the disk is full' });
      await order(instance, { fault: 'disk-fill', level: 0, release: true });
      await waitUntil(async () => (await ask(instance)) === 200, { withinMs: 10_000, what: 'there is space again' });
    });

    it('writes slowly in bursts while its disk is slow', async () => {
      const instance = await start({ service: 'journal', dir });
      await order(instance, { fault: 'disk-slow', level: 0.2 });
      const isSlow = (metrics: StepLine['metrics']): boolean => metrics['disk.write_latency_s']! > 0.2;
      await saidUnderLoad(instance, 'a slow write', isSlow);
      await order(instance, { fault: 'disk-slow', level: 0 });
      await saidUnderLoad(instance, 'a write at full speed', (metrics) => metrics['disk.write_latency_s']! < 0.2);
    });
  });

  describe('gateway, in front of another service', () => {
    it('answers well if a repeated call does, and says how often it repeats', async () => {
      let calls = 0;
      const dependency = await downstream((message, response) => {
        response.statusCode = message.url?.startsWith('/item') && calls++ % 2 === 0 ? 500 : 200;
        response.end('{}');
      });
      // The downstream lives in this process: a pause of it must not count as a call that failed.
      const knobs = { retries: 1, timeoutMs: 20_000 };
      const instance = await start({ service: 'gateway', dependency, slots: 1, knobs });
      expect(await askMany(instance, 6)).to.deep.equal(all(200, 6));
      expect(calls).to.equal(12);
      const step = await saidUnderLoad(instance, 'repeated calls', (metrics) => metrics['retry.ratio']! > 0);
      expect(step['dependency.error_ratio']).to.be.greaterThan(0);
      await saysItsMetrics(instance, ['network.rtt_s', 'pool.used', 'pool.limit', 'dependency.latency_p99_s']);
    });

    it('gives up a call that is not answered in time', async () => {
      const dependency = await downstream(() => undefined);
      const instance = await start({ service: 'gateway', dependency, knobs: { timeoutMs: 100, retries: 0 } });
      expect(await ask(instance)).to.equal(502);
    });

    it('answers 503 when its connections have leaked, and serves again when they are given back', async () => {
      const dependency = await downstream((_, response) => response.end('{}'));
      const instance = await start({ service: 'gateway', dependency, knobs: { pool: 2, poolWaitMs: 100 } });
      await order(instance, { fault: 'pool-leak', level: 50 });
      await waitUntil(() => instance.steps.at(-1)?.['pool.used'] === 2, {
        withinMs: 10_000,
        what: 'the pool is used up',
      });
      expect(await ask(instance)).to.equal(503);
      await order(instance, { fault: 'pool-leak', level: 0, release: true });
      expect(await ask(instance)).to.equal(200);
    });
  });

  describe('worker, on Kafka', () => {
    it('answers each caller when its own job is done, also beside another instance on the topic', async () => {
      const [one, two] = await Promise.all([
        start({ service: 'worker', cell: 'jobs', instance: 'jobs-1', dependency: kafka }),
        start({ service: 'worker', cell: 'jobs', instance: 'jobs-2', dependency: kafka }),
      ]);
      const answers = await Promise.all([askMany(one, 20), askMany(two, 20)]);
      expect(answers.flat()).to.deep.equal(all(200, 40));
      await saysItsMetrics(one, ['queue.depth', 'queue.oldest_age_s']);
    });

    it('fails callers in time when the consumer is too slow, and works the backlog off afterwards', async () => {
      const knobs = { timeoutMs: 500 };
      const instance = await start({ service: 'worker', cell: 'slow', slots: 1, dependency: kafka, knobs });
      // The first job meets a broker that is cold, and may take longer than a caller here waits.
      await waitUntil(async () => (await ask(instance)) === 200, { withinMs: 10_000, what: 'an answer in time' });
      await order(instance, { fault: 'consumer-slow', level: 100 });
      const answers = await askMany(instance, 10);
      expect(answers).to.include(504);
      await waitUntil(() => (instance.steps.at(-1)?.['queue.oldest_age_s'] ?? 0) > 0.5, {
        withinMs: 10_000,
        what: 'a backlog',
      });
      await order(instance, { fault: 'consumer-slow', level: 0 });
      await waitUntil(() => instance.steps.at(-1)?.['queue.depth'] === 0, { withinMs: 30_000, what: 'an empty queue' });
      await waitUntil(async () => (await ask(instance)) === 200, { withinMs: 10_000, what: 'an answer in time' });
    });
  });

  describe('reports, in Python', () => {
    it('writes a report per request and says what it does', async () => {
      const instance = await start({ service: 'reports', knobs: { queue: 20 } });
      expect(await askMany(instance, 10)).to.deep.equal(all(200, 10));
      expect(readdirSync(dir)).to.have.lengthOf(10);
      await saysItsMetrics(instance, [
        ...(['http.request_rate', 'http.error_ratio', 'http.latency_p50_s', 'http.latency_p99_s'] as const),
        ...(['http.in_flight', 'http.in_flight_limit', 'pool.used', 'pool.limit', 'change.age_s'] as const),
        ...(['disk.write_latency_s', 'disk.write_rate'] as const),
      ]);
    });

    it('keeps its health green in a gray failure', async () => {
      const instance = await start({ service: 'reports' });
      await order(instance, { fault: 'gray-error', level: 1 });
      expect(await askMany(instance, 5)).to.deep.equal(all(500, 5));
      expect(await ask(instance, '/healthz')).to.equal(200);
      await order(instance, { fault: 'gray-error', level: 0 });
      expect(await ask(instance)).to.equal(200);
    });

    it('dies for want of memory when it leaks up to its limit', async () => {
      const instance = await start({ service: 'reports', memoryLimitBytes: 40_000_000 });
      const ended = once(instance.child, 'exit');
      await order(instance, { fault: 'heap-leak', level: 50_000_000 });
      expect((await ended)[0]).to.equal(134);
      expect(instance.stderr).to.contain('MemoryError');
    });

    it('cannot write when its descriptors have leaked, and can when they are closed', async () => {
      const instance = await start({ service: 'reports', knobs: { fdLimit: 40 } });
      expect(await ask(instance)).to.equal(200);
      await order(instance, { fault: 'fd-leak', level: 500 });
      await waitUntil(async () => (await ask(instance)) === 500, { withinMs: 10_000, what: 'no descriptor is left' });
      await order(instance, { fault: 'fd-leak', level: 0, release: true });
      await waitUntil(async () => (await ask(instance)) === 200, { withinMs: 10_000, what: 'it writes again' });
    });

    it('answers 507 while the disk is full, and 200 when there is space again', async function () {
      capDisk(this, '2m');
      const instance = await start({ service: 'reports', dir, knobs: { keepBytes: 500_000 } });
      await order(instance, { fault: 'disk-fill', level: 20_000_000 });
      await waitUntil(async () => (await ask(instance)) === 507, { withinMs: 10_000, what: 'the disk is full' });
      await order(instance, { fault: 'disk-fill', level: 0, release: true });
      await waitUntil(async () => (await ask(instance)) === 200, { withinMs: 10_000, what: 'there is space again' });
    });
  });
});
