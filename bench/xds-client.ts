/**
 * The load client: many proxies in one process of its own, which makes a server publish and tells when each change came
 * to each of them. Run as `node dist/bench/xds-client.js JSON` with a `Task`; prints a `Measured` as JSON.
 */
import { readFileSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { createSecureContext } from 'node:tls';
import { quantile } from './figures';
import { ProxyConnection, typeUrls } from './xds-connection';
import { cpuMsOf, rssKibOf } from './xds-processes';

export interface Task {
  port: number;
  controlPort: number;
  pids: number[];
  ca: string;
  cert: string;
  key: string;
  streams: number;
  steps: number;
  /** Between the arrival of a step at the last stream and the next step. */
  pauseMs: number;
  /** Goes on stepping once a second for so long, and watches the server's memory. */
  soakS: number;
}

export interface Measured {
  allServedMs: number;
  serveCpuMs: number;
  p50Ms: number;
  p99Ms: number;
  /** Median over the steps of the slowest stream. */
  allMs: number;
  cpuMsPerStep: number;
  clientCpuMsPerStep: number;
  kibPerStream: number;
  repeatBytes: number;
  resent: number;
  reconnectMs: number;
  lost: string[];
  /** RSS of the server in KiB during the soak, by the second. */
  soak: { atS: number; rssKib: number }[];
  control: Record<string, number>;
}

class Fleet {
  readonly lost: string[] = [];
  readonly proxies: ProxyConnection[];
  resources = 0;
  bytes = 0;
  /** Arrivals of endpoints since it was last emptied. */
  arrivals: number[] = [];
  private served = 0;
  private awaited: { count: number; resolve: () => void } | undefined;

  constructor(private readonly task: Task) {
    const listener = {
      response: (type: string, resources: number, at: number, bytes: number): void => {
        this.resources += resources;
        this.bytes += bytes;
        if (type === typeUrls.route) this.served += 1;
        if (type === typeUrls.endpoints) this.arrivals.push(at);
        if (this.awaited && this.arrivals.length >= this.awaited.count) this.awaited.resolve();
      },
      lost: (reason: string): void => void this.lost.push(reason),
    };
    this.proxies = Array.from({ length: task.streams }, (_, i) => new ProxyConnection(`bench-${i}`, listener));
  }

  async open(): Promise<void> {
    const { ca, cert, key, port } = this.task;
    const secureContext = createSecureContext({
      ca: readFileSync(ca),
      cert: readFileSync(cert),
      key: readFileSync(key),
    });
    await Promise.all(this.proxies.map((proxy) => proxy.open(port, secureContext)));
  }

  async close(): Promise<void> {
    await Promise.all(this.proxies.map((proxy) => proxy.close()));
  }

  /** Resolves when endpoints have come so many times. */
  async arrived(count: number, withinMs: number): Promise<void> {
    if (this.arrivals.length >= count) return;
    const timer = setTimeout(() => {
      const lost = this.lost[0] ?? 'none';
      process.stderr.write(
        `${this.arrivals.length} of ${count} arrivals within ${withinMs} ms; connections lost: ${lost}\n`,
      );
      process.exit(1);
    }, withinMs);
    await new Promise<void>((resolve) => (this.awaited = { count, resolve }));
    this.awaited = undefined;
    clearTimeout(timer);
  }

  /** Nothing has come for so long. */
  async quiet(forMs: number): Promise<void> {
    for (let seen = -1; seen !== this.bytes; await sleep(forMs)) seen = this.bytes;
  }
}

const agent = new Agent({ keepAlive: true, maxSockets: 1 });

function ask(task: Task, method: string, body?: object): Promise<Record<string, number>> {
  return new Promise((resolve, reject) => {
    const call = request({ agent, host: '127.0.0.1', port: task.controlPort, path: '/weights', method }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
      response.on('end', () => resolve(JSON.parse(text || '{}') as Record<string, number>));
    });
    call.on('error', reject);
    call.end(body && JSON.stringify(body));
  });
}

/** One percent moves from the first cell to the second, to and fro. */
const weightsAt = (step: number): number[] => {
  const moved = 100 * ((step % 80) + 1);
  return [9000 - moved, 500 + moved, 500];
};

async function measure(task: Task): Promise<Measured> {
  const fleet = new Fleet(task);
  const { streams } = task;
  const cpu = () => cpuMsOf(task.pids);
  const rssBefore = rssKibOf(task.pids);
  const cpuBefore = cpu();
  const began = performance.now();
  const opening = fleet.open();
  await fleet.arrived(streams, 120_000);
  const allServedMs = Math.max(...fleet.arrivals) - began;
  await opening;
  await fleet.quiet(500);
  const serveCpuMs = cpu() - cpuBefore;

  const samples: number[] = [];
  const slowest: number[] = [];
  const control = await ask(task, 'GET');
  const stepsCpu = cpu();
  const own = cpuMsOf([process.pid]);
  for (let step = 1; step <= task.steps; step++) {
    fleet.arrivals = [];
    const mark = performance.now();
    await Promise.all([ask(task, 'POST', { weights: weightsAt(step) }), fleet.arrived(streams, 30_000)]);
    const took = fleet.arrivals.map((at) => at - mark);
    samples.push(...took);
    slowest.push(Math.max(...took));
    await sleep(task.pauseMs);
  }
  const cpuMsPerStep = (cpu() - stepsCpu) / task.steps;
  const clientCpuMsPerStep = (cpuMsOf([process.pid]) - own) / task.steps;
  const kibPerStream = (rssKibOf(task.pids) - rssBefore) / streams;
  const controlAfter = await ask(task, 'GET');

  fleet.bytes = 0;
  await ask(task, 'POST', { weights: weightsAt(task.steps) });
  await fleet.quiet(500);
  const repeatBytes = fleet.bytes;

  await fleet.close();
  fleet.resources = 0;
  const again = performance.now();
  await fleet.open();
  const reconnectMs = performance.now() - again;
  await fleet.quiet(1000);
  const resent = fleet.resources;

  const soak: Measured['soak'] = [];
  const soakBegan = performance.now();
  for (let step = 1; performance.now() - soakBegan < task.soakS * 1000; step++) {
    fleet.arrivals = [];
    await Promise.all([ask(task, 'POST', { weights: weightsAt(task.steps + step) }), fleet.arrived(streams, 60_000)]);
    soak.push({ atS: (performance.now() - soakBegan) / 1000, rssKib: rssKibOf(task.pids) });
    const { atS, rssKib } = soak.at(-1)!;
    if (step % 60 === 1)
      process.stderr.write(`${Math.round(atS)} of ${task.soakS} s: ${Math.round(rssKib / 1024)} MiB\n`);
    await sleep(Math.max(0, 1000 - (performance.now() - soakBegan - (step - 1) * 1000)));
  }
  await fleet.close();
  const changed = Object.entries(controlAfter).map(([name, value]) => [name, value - (control[name] ?? 0)] as const);
  return {
    allServedMs,
    serveCpuMs,
    p50Ms: quantile(samples, 0.5),
    p99Ms: quantile(samples, 0.99),
    allMs: quantile(slowest, 0.5),
    cpuMsPerStep,
    clientCpuMsPerStep,
    kibPerStream,
    repeatBytes,
    resent,
    reconnectMs,
    lost: fleet.lost,
    soak,
    control: Object.fromEntries(changed),
  };
}

measure(JSON.parse(process.argv[2] ?? '') as Task)
  .then((measured) => {
    process.stdout.write(JSON.stringify(measured));
    agent.destroy();
  })
  .catch((error: unknown) => {
    process.stderr.write(`xds-client: ${String(error)}\n`);
    process.exitCode = 1;
  });
