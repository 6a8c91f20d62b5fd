import { expect } from 'chai';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { Agent, get } from 'node:http';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { FaultOrder, InstanceConfig, ReadyLine, StepLine } from '../../lab/contract';
import { readProcess } from '../../lab/process-reading';
import { packageRoot } from '../../package-root';
import { isMetricName, type MetricName } from '../../prediction/metrics';

interface Instance {
  child: ChildProcess;
  port: number;
  pid: number;
  /** Resolves with the first step line from now on whose metrics satisfy the condition. */
  step(holds?: (metrics: StepLine['metrics']) => boolean): Promise<StepLine>;
  stderr: () => string;
}

interface Answer {
  status: number;
  body: string;
  ms: number;
}

const script = (name: string): string => join(packageRoot, 'dist', 'lab', 'services', `${name}.js`);

describe('Services of the chaos lab', function () {
  this.timeout(20_000);
  const children: ChildProcess[] = [];
  const agent = new Agent({ keepAlive: true });

  async function launch(argv: string[], shell?: string): Promise<Instance> {
    const command = [process.execPath, ...argv];
    const child = shell
      ? spawn('bash', ['-c', `${shell}; exec "$@"`, 'bash', ...command], { stdio: ['ignore', 'pipe', 'pipe'] })
      : spawn(process.execPath, argv, { stdio: ['ignore', 'pipe', 'pipe'] });
    children.push(child);
    let stderr = '';
    child.stderr.on('data', (text: Buffer) => (stderr += text.toString()));
    const lines = createInterface({ input: child.stdout });
    const ended = once(child, 'exit').then(() => Promise.reject(new Error(`It ended before it was ready: ${stderr}`)));
    const [first] = (await Promise.race([once(lines, 'line'), ended])) as [string];
    ended.catch(() => undefined);
    const ready = JSON.parse(first) as ReadyLine;
    expect(ready.msg).to.equal('ready');
    const step: Instance['step'] = (holds = () => true) =>
      new Promise((resolve) => {
        const look = (line: string): void => {
          const step = JSON.parse(line) as StepLine;
          if (!holds(step.metrics)) return;
          lines.off('line', look);
          resolve(step);
        };
        lines.on('line', look);
      });
    return { child, port: ready.port, pid: ready.pid, step, stderr: () => stderr };
  }

  function start(config: Partial<InstanceConfig> & Pick<InstanceConfig, 'service'>, flags: string[] = [], shell = '') {
    const whole: InstanceConfig = {
      cell: 'a',
      instance: `${config.service}-1`,
      port: 0,
      stepMs: 100,
      slots: 4,
      serviceMs: 5,
      knobs: {},
      ...config,
    };
    return launch([...flags, script(config.service), JSON.stringify(whole)], shell);
  }

  const startStore = (slots: number, serviceMs: number): Promise<Instance> =>
    launch([script('store'), '--config', JSON.stringify({ port: 0, slots, serviceMs })]);

  const ask = (port: number, path: string, through: Agent | false = agent): Promise<Answer> =>
    new Promise((resolve, reject) => {
      const beganAt = performance.now();
      get({ host: '127.0.0.1', port, path, agent: through }, (message) => {
        let body = '';
        message.on('data', (text: Buffer) => (body += text.toString()));
        message.on('end', () => resolve({ status: message.statusCode ?? 0, body, ms: performance.now() - beganAt }));
      }).on('error', reject);
    });

  const work = async (instance: Instance, count: number, firstKey = 0): Promise<Answer[]> =>
    Promise.all(Array.from({ length: count }, (_, i) => ask(instance.port, `/work?key=${firstKey + i}`)));

  async function order(instance: Instance, body: FaultOrder | object): Promise<number> {
    const answer = await fetch(`http://127.0.0.1:${instance.port}/admin/fault`, {
      method: 'POST',
      body: JSON.stringify(body),
    });
    const text = (await answer.json()) as { error?: string };
    if (answer.status !== 200) expect(text.error).to.match(/\w+ .*\.$/);
    return answer.status;
  }

  const failed = (answers: Answer[]): number => answers.filter(({ status }) => status === 500).length;

  afterEach(async () => {
    for (const child of children.splice(0)) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const ended = once(child, 'exit');
      child.kill('SIGKILL');
      await ended;
    }
  });
  after(() => agent.destroy());

  const always: MetricName[] = [
    'http.request_rate',
    'http.in_flight',
    'heap.used_bytes',
    'heap.limit_bytes',
    'gc.share',
    'change.age_s',
  ];
  const whenServing: MetricName[] = ['http.error_ratio', 'http.latency_p50_s', 'http.latency_p99_s'];

  it('each say every step, on the step, what the contract lists, in canonical names', async () => {
    const store = await startStore(8, 2);
    const dependency = { host: '127.0.0.1', port: store.port };
    const own: Record<string, MetricName[]> = {
      sessions: [],
      render: [],
      lookup: ['cache.hit_ratio', 'pool.used', 'pool.limit', 'dependency.latency_p99_s', 'dependency.error_ratio'],
    };
    await Promise.all(
      (['sessions', 'render', 'lookup'] as const).map(async (service) => {
        const instance = await start({ service, dependency, knobs: { queue: 20 } }, ['--max-old-space-size=64']);
        const served = instance.step((metrics) => metrics['http.latency_p99_s'] !== undefined);
        const answers = await work(instance, 8);
        expect(answers.map(({ status }) => status)).to.deep.equal(Array(8).fill(200));
        const { at, metrics } = await served;
        expect(at % 100).to.equal(0);
        expect(metrics).to.include.keys(...always, ...whenServing, ...own[service]!, 'http.in_flight_limit');
        expect(Object.keys(metrics).filter((name) => !isMetricName(name))).to.deep.equal([]);
        expect(metrics).to.include({ 'heap.limit_bytes': 67_110_000, 'http.in_flight_limit': 24 });
        // Without requests there is no latency to speak of, and none is made up.
        // On a busy machine a step may pass in which the delay of the event loop was not sampled once.
        const idle = await instance.step(
          (metrics) =>
            metrics['http.request_rate'] === 0 &&
            metrics['gc.share'] === 0 &&
            metrics['event_loop.delay_p99_s'] !== undefined,
        );
        expect(idle.metrics).to.include.keys(...always);
        expect(idle.metrics).not.to.have.any.keys(...whenServing);
      }),
    );
  });

  it('carry what their slots allow, refuse beyond their line, and give no slot to a caller who has left', async () => {
    // A minute per request: nothing but leaving makes room in the course of this test.
    const instance = await start({ service: 'sessions', slots: 1, serviceMs: 60_000, knobs: { queue: 2 } });
    const inFlight = (count: number): Promise<unknown> =>
      instance.step((metrics) => metrics['http.in_flight'] === count);
    const callers = [1, 2].map((key) =>
      get({ host: '127.0.0.1', port: instance.port, path: `/work?key=${key}`, agent }),
    );
    for (const caller of callers) caller.on('error', () => undefined);
    await inFlight(2);
    callers[1]!.destroy();
    await inFlight(1);
    const next = [3, 4, 5].map((key) => ask(instance.port, `/work?key=${key}`, false));
    for (const answer of next) answer.catch(() => undefined);
    expect((await Promise.race(next)).status).to.equal(503);
    await inFlight(3);
    // The slot is held for as long as the work takes, whether or not its caller still waits.
    callers[0]!.destroy();
    // Whoever is answered now came after the caller had left: the steps from now on know of that.
    expect((await ask(instance.port, '/healthz', false)).status).to.equal(200);
    await inFlight(3);
  });

  it('refuse faults that are unknown, out of range, or not theirs', async () => {
    const instance = await start({ service: 'render' });
    expect(await order(instance, { fault: 'gremlins', level: 1 })).to.equal(400);
    expect(await order(instance, { fault: 'gray-error', level: 1.5 })).to.equal(400);
    expect(await order(instance, { fault: 'heap-leak', level: -1 })).to.equal(400);
    expect(await order(instance, { fault: 'slow-code', level: 0.5 })).to.equal(400);
    expect(await order(instance, { fault: 'disk-fill', level: 1 })).to.equal(400);
    expect(await order(instance, { fault: 'heap-leak', level: 0 })).to.equal(200);
  });

  it('leak on the heap and outside of it at the rate ordered, and give it back', async () => {
    const instance = await start({ service: 'sessions' });
    const heap = (await instance.step()).metrics['heap.used_bytes']!;
    const resident = readProcess(instance.pid)!.residentBytes;
    expect(await order(instance, { fault: 'heap-leak', level: 40e6 })).to.equal(200);
    await instance.step((metrics) => metrics['heap.used_bytes']! > heap + 15e6);
    expect(await order(instance, { fault: 'heap-leak', level: 0, release: true })).to.equal(200);
    expect(await order(instance, { fault: 'buffer-leak', level: 100e6 })).to.equal(200);
    await instance.step(() => readProcess(instance.pid)!.residentBytes > resident + 60e6);
    expect(await order(instance, { fault: 'buffer-leak', level: 0, release: true })).to.equal(200);
  });

  it('die of a heap leak under a small heap', async () => {
    const instance = await start({ service: 'sessions' }, ['--max-old-space-size=24']);
    const ended = once(instance.child, 'exit');
    await order(instance, { fault: 'heap-leak', level: 30e6 });
    await ended;
    expect(instance.stderr()).to.contain('heap out of memory');
  });

  it('burn CPU when told to, and stop', async () => {
    const instance = await start({ service: 'sessions' });
    const cpu = (): number => readProcess(instance.pid)!.cpuSecondsPerCore;
    await order(instance, { fault: 'cpu-burn', level: 0.9 });
    const before = cpu();
    await instance.step(() => cpu() > before + 0.15);
    await order(instance, { fault: 'cpu-burn', level: 0 });
    expect((await work(instance, 1))[0]!.status).to.equal(200);
  });

  it('run out of descriptors when they leak: nobody can connect any more until they are given back', async () => {
    const instance = await start({ service: 'sessions' }, [], 'ulimit -n 60');
    const keeper = new Agent({ keepAlive: true, maxSockets: 1 });
    expect((await ask(instance.port, '/healthz', keeper)).status).to.equal(200);
    const held = keeper.freeSockets;
    expect(Object.keys(held)).to.have.length(1);
    const release = (): Promise<number> =>
      new Promise((resolve, reject) => {
        const body = JSON.stringify({ fault: 'fd-leak', level: 0, release: true });
        const socket = Object.values(held)[0]![0]!;
        socket.once('data', (text: Buffer) => resolve(Number(text.toString().split(' ')[1])));
        socket.once('error', reject);
        socket.write(`POST /admin/fault HTTP/1.1\r\ncontent-length: ${body.length}\r\n\r\n${body}`);
      });
    await order(instance, { fault: 'fd-leak', level: 500 });
    await instance.step(() => readProcess(instance.pid)!.openFiles >= 60);
    const refused = await ask(instance.port, '/healthz', false).then(
      () => false,
      () => true,
    );
    expect(refused).to.equal(true);
    expect(await release()).to.equal(200);
    expect((await ask(instance.port, '/healthz', false)).status).to.equal(200);
    keeper.destroy();
  });

  it('are slow or wrong for the share ordered while their health stays green', async () => {
    const instance = await start({ service: 'sessions', slots: 50, serviceMs: 10 });
    for (const fault of ['gray-error', 'bad-release'] as const) {
      await order(instance, { fault, level: 1 });
      expect(failed(await work(instance, 10))).to.equal(10);
      expect((await ask(instance.port, '/healthz')).status).to.equal(200);
      await order(instance, { fault, level: 0 });
      expect(failed(await work(instance, 10))).to.equal(0);
    }
    for (const [fault, level] of [
      ['gray-slow', 1],
      ['slow-code', 20],
    ] as const) {
      await order(instance, { fault, level });
      const slow = await work(instance, 5);
      expect(Math.max(...slow.map(({ ms }) => ms))).to.be.greaterThan(120);
      await order(instance, { fault, level: 0 });
    }
  });

  it('tell a release by the age of the last change', async () => {
    const instance = await start({ service: 'sessions', knobs: { changeAgeS: 5000 } });
    expect((await instance.step()).metrics['change.age_s']).to.be.at.least(5000);
    await order(instance, { fault: 'bad-release', level: 0.001 });
    expect((await instance.step()).metrics['change.age_s']).to.be.below(5000);
  });

  it('fill the memory of sessions with traffic and not beyond its bound, unless preloaded', async () => {
    const kept = async (instance: Instance): Promise<number> =>
      (JSON.parse((await work(instance, 1))[0]!.body) as { sessions: number }).sessions;
    const cold = await start({ service: 'sessions', serviceMs: 1, slots: 50, knobs: { items: 60 } });
    const warm = await start({ service: 'sessions', serviceMs: 1, knobs: { items: 60, preloaded: 1 } });
    expect(await kept(cold)).to.be.below(10);
    expect(await kept(warm)).to.equal(60);
    await work(cold, 100);
    expect(await kept(cold)).to.equal(60);
  });

  it('overload the store when the cache of lookup is flushed, and recover when it may fill again', async () => {
    const store = await startStore(1, 30);
    const dependency = { host: '127.0.0.1', port: store.port };
    const knobs = { keys: 10, cacheItems: 100, preloaded: 1, pool: 2, poolTimeoutMs: 50 };
    const instance = await start({ service: 'lookup', slots: 50, serviceMs: 1, dependency, knobs });
    const refused = (answers: Answer[]): number => answers.filter(({ status }) => status === 503).length;
    expect(refused(await work(instance, 10))).to.equal(0);
    await order(instance, { fault: 'cache-flush', level: 1 });
    const missed = instance.step((metrics) => (metrics['cache.hit_ratio'] ?? 1) < 1);
    expect(refused(await work(instance, 10))).to.be.greaterThan(2);
    const { metrics } = await missed;
    expect(metrics['pool.limit']).to.equal(2);
    await order(instance, { fault: 'cache-flush', level: 0 });
    for (let key = 0; key < 10; key++) await work(instance, 1, key);
    expect(refused(await work(instance, 10))).to.equal(0);
    expect(await order(store, { fault: 'gray-error', level: 1 })).to.equal(200);
    await order(instance, { fault: 'cache-flush', level: 1 });
    const errors = instance.step((metrics) => (metrics['dependency.error_ratio'] ?? 0) > 0);
    await work(instance, 1);
    await errors;
    expect(await order(store, { fault: 'cache-flush', level: 1 })).to.equal(400);
  });

  it('finish what is in flight on SIGTERM and end', async () => {
    const instance = await start({ service: 'sessions', slots: 1, serviceMs: 200 });
    const last = ask(instance.port, '/work?key=1', false);
    await instance.step((metrics) => metrics['http.in_flight'] === 1);
    const ended = once(instance.child, 'exit');
    instance.child.kill('SIGTERM');
    expect((await last).status).to.equal(200);
    expect(await ended).to.deep.equal([0, null]);
  });
});
