/** Runs one planned episode with real processes under real load, and measures what callers and telemetry see of it. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { request } from 'node:http';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { packageRoot } from '../package-root';
import type { Sample } from '../prediction/contracts';
import { rateAt, type EpisodePlan, type PlannedLeakOrder } from './episode-plan';
import type { HostAgent } from './host-agent';
import type { KafkaSink } from './kafka-sink';
import { OpenLoopLoad } from './load';
import { failureOf, type MeasuredSecond } from './onset';

export interface EpisodeRecord {
  plan: EpisodePlan;
  /** Milliseconds since the epoch. */
  loadStartedMs: number;
  endedMs: number;
  /** By instance; null for one that lived to the end. */
  diedMs: (number | null)[];
  measured: MeasuredSecond[];
  samples: Sample[];
}

export interface EpisodeSurroundings {
  brokers: string;
  hostAgent: HostAgent;
  hostSink: KafkaSink;
  /** Hands over the samples of a cell decoded so far, and forgets them. */
  takeSamples(cell: string): Sample[];
  signal: AbortSignal;
}

interface RunningInstance {
  name: string;
  child: ChildProcess;
  port: number;
  diedMs: number | null;
}

const startWithinMs = 15_000;
const settleMs = 2000;
/** After a death the episode goes on for a little, so that the onset can be seen. */
const afterDeathMs = 6000;
/** Telemetry of the last second is still on its way when an episode ends. */
const lastTelemetryMs = 1500;

const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

async function startInstance(plan: EpisodePlan, number: number, brokers: string): Promise<RunningInstance> {
  const name = `${plan.cell}-${number + 1}`;
  const flags = {
    port: 0,
    cell: plan.cell,
    instance: name,
    kafka: brokers,
    items: plan.items,
    'service-ms': plan.serviceMs,
  };
  const child = spawn(
    process.execPath,
    [
      `--max-old-space-size=${plan.heapLimitMib}`,
      join(packageRoot, 'dist', 'lab', 'reference-service.js'),
      ...Object.entries(flags).flatMap(([flag, value]) => [`--${flag}`, String(value)]),
      ...(plan.preloaded ? ['--preloaded'] : []),
    ],
    { stdio: ['ignore', 'pipe', 'ignore'] },
  );
  const instance: RunningInstance = { name, child, port: 0, diedMs: null };
  child.once('exit', () => (instance.diedMs = Date.now()));
  const lines = createInterface({ input: child.stdout });
  const [line] = (await once(lines, 'line', { signal: AbortSignal.timeout(startWithinMs) })) as [string];
  instance.port = (JSON.parse(line) as { port: number }).port;
  return instance;
}

function post(port: number, path: string, body: unknown): Promise<void> {
  return new Promise((resolve, reject) => {
    const outgoing = request({ port, path, method: 'POST', agent: false, timeout: 3000 }, (answer) => {
      answer.resume().on('end', resolve);
    });
    outgoing.on('timeout', () => outgoing.destroy(new Error(`No answer from ${path} in 3 s.`)));
    outgoing.on('error', reject);
    outgoing.end(JSON.stringify(body));
  });
}

function give(order: PlannedLeakOrder, instances: readonly RunningInstance[]): void {
  const instance = instances[order.instance];
  if (!instance || instance.diedMs !== null) return;
  const { bytesPerSecond, shape, release } = order;
  // An instance may die or stall just now; the next measurement shows it, and nothing here depends on the answer.
  post(instance.port, '/admin/leak', { bytesPerSecond, shape, release }).catch(() => undefined);
}

async function stopInstance({ child }: RunningInstance): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  child.kill('SIGTERM');
  const lastResort = setTimeout(() => child.kill('SIGKILL'), 6000);
  await ended;
  clearTimeout(lastResort);
}

/** Runs the episode to its end. Leaves no process behind, also when it throws. */
export async function runEpisode(plan: EpisodePlan, around: EpisodeSurroundings): Promise<EpisodeRecord> {
  const started = await Promise.allSettled([0, 1].map((n) => startInstance(plan, n, around.brokers)));
  const instances = started.flatMap((s) => (s.status === 'fulfilled' ? [s.value] : []));
  try {
    const refused = started.find((s) => s.status === 'rejected');
    if (refused) throw new Error(`An instance of ${plan.cell} did not start: ${String(refused.reason)}`);
    return await underLoad(plan, instances, around);
  } finally {
    await Promise.all(instances.map(stopInstance));
  }
}

async function underLoad(
  plan: EpisodePlan,
  instances: RunningInstance[],
  around: EpisodeSurroundings,
): Promise<EpisodeRecord> {
  const load = new OpenLoopLoad({
    urls: instances.map((i) => `http://127.0.0.1:${i.port}`),
    ratePerSecond: rateAt(plan.load, 0),
    arrivals: 'poisson',
    paths: Array.from({ length: plan.items }, (_, id) => `/items/${id}`),
    sloMs: failureOf(plan).sloMs,
    timeoutMs: 2000,
    seed: plan.seed,
  });
  // Compiling its own code and loading the telemetry SDK makes an instance slow for its first seconds.
  await wait(settleMs);
  load.start();
  const loadStartedMs = Date.now();
  const due = [...plan.leakOrders].sort((a, b) => a.atS - b.atS);
  const endsMs = loadStartedMs + 1000 * plan.durationS;
  for (let beats = 0; ; beats++) {
    const now = Date.now();
    const atS = (now - loadStartedMs) / 1000;
    const firstDeath = Math.min(...instances.map((i) => i.diedMs ?? Infinity));
    if (now >= Math.min(endsMs, firstDeath + afterDeathMs) || around.signal.aborted) break;
    load.setRate(rateAt(plan.load, atS));
    while (due[0] && due[0].atS <= atS) {
      const order = due.shift();
      if (order) give(order, instances);
    }
    if (beats % 4 === 0) watchFromOutside(plan.cell, instances, around);
    await wait(250);
  }
  around.signal.throwIfAborted();
  const endedMs = Date.now();
  const diedMs = instances.map((i) => i.diedMs);
  const report = await load.stop();
  await wait(lastTelemetryMs);
  const measured = report.seconds
    .filter(({ atMs }) => atMs + 1000 <= endedMs)
    .map(({ atMs, requests, failed, p99Ms }) => ({
      atMs,
      requests,
      failed,
      p99Ms: p99Ms === null ? null : Math.round(p99Ms * 10) / 10,
      deadInstances: diedMs.filter((died) => died !== null && died <= atMs + 1000).length,
    }));
  return { plan, loadStartedMs, endedMs, diedMs, measured, samples: around.takeSamples(plan.cell) };
}

function watchFromOutside(cell: string, instances: readonly RunningInstance[], around: EpisodeSurroundings): void {
  around.hostSink.sendAll(
    instances.flatMap(({ name, child, diedMs }) => {
      if (diedMs !== null || child.pid === undefined) return [];
      const record = around.hostAgent.observe({ cell, instance: name, pid: child.pid }, 'catalogue');
      return record ? [{ key: cell, value: JSON.stringify(record) }] : [];
    }),
  );
}
