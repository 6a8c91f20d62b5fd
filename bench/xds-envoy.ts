/**
 * Whether a real Envoy does what the traffic API commands, under open-loop load: 200 steps of the weights, and 10 times a
 * drain, a removal and the cell's return, with the split counted at the cells after each of them and no request lost.
 *
 * Exact counting: requests carry the step in their path. The path of a step is used only from when the change is
 * acknowledged, and the next change is commanded only when every request with it has been answered. Retries would be
 * picks of their own and are counted.
 */
import { fork, type ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import type { CellShare } from '../blueprints/records';
import { blueprintSchema, cellSchema, serviceSchema } from '../blueprints/schema';
import { ConfigurationStore } from '../blueprints/store';
import { TrafficClient, type ApplyResult } from '../envoy/traffic-client';
import type { LoadReport } from '../lab/load';
import { seededRandom } from '../lab/random';
import { releasePorts, reservePorts } from '../local/ports';
import { startStack } from '../local/stack';
import { waitUntil } from '../local/wait';
import { atMost, plain, quantile, type Figure } from './figures';
import { splitDistance } from './split-distance';
import type { CellCounts, CellsReady } from './xds-envoy-cells';
import type { LoadAnswer } from './xds-envoy-load';

const cells = ['shop-a', 'shop-b', 'shop-c'];
const service = 'shop';
const steps = 200;
const removals = 10;
const ratePerSecond = 250;
/** How long requests of one step are sent: about 75, and those until all callers know that it is over. */
const windowMs = 300;

interface Window {
  what: 'step' | 'drained' | 'removed' | 'returned';
  split: CellShare[];
  counts: CellCounts;
}

interface Removal {
  drainMs: number;
  removeMs: number;
  isDrained: boolean;
  /** Requests at the cell when its drain was answered, as the cell counts them. */
  inFlight: number;
  /** Requests that reached the cell between then and its return. */
  late: number;
}

interface Ran {
  windows: Window[];
  removals: Removal[];
  applies: ApplyResult[];
  load: LoadReport;
  workers: number;
  retries: number;
}

/** The next message of a child process; an error if it ends instead. */
function next<T>(child: ChildProcess): Promise<T> {
  return new Promise((resolve, reject) => {
    const ended = (code: number | null): void => reject(new Error(`a process of the benchmark ended with ${code}`));
    child.once('exit', ended);
    child.once('message', (message) => {
      child.off('exit', ended);
      resolve(message as T);
    });
  });
}

function ask<T>(child: ChildProcess, order: { path: string } | string): Promise<T> {
  const answer = next<T>(child);
  child.send(order);
  return answer;
}

const start = (file: string, ...args: string[]): ChildProcess => fork(join(__dirname, file), args);

/** Documents of a service on three cells, of which the first two are declared to carry. */
function documents(port: number, ports: Record<string, number>) {
  // On a starved machine a cell that answers its checks late is not to be taken for dead.
  const healthCheck = { path: '/healthz', intervalMs: 10_000 };
  return [
    serviceSchema.parse({
      kind: 'Service',
      name: service,
      listener: { port },
      slo: { latencyMs: 250 },
      safeSplit: { 'shop-a': 5000, 'shop-b': 5000 },
      healthCheck,
    }),
    blueprintSchema.parse({
      kind: 'Blueprint',
      name: 'shop',
      image: { command: ['never-started', '{port}'] },
      resources: { memoryLimitMib: 64 },
      capacity: { requestsPerSecond: ratePerSecond },
    }),
    ...cells.map((name) =>
      cellSchema.parse({
        kind: 'Cell',
        name,
        service,
        role: name === 'shop-a' ? 'primary' : 'secondary',
        blueprint: 'shop',
        instances: [{ name: `${name}-1`, address: '127.0.0.1', port: ports[name] }],
      }),
    ),
  ];
}

/** Three shares, each of at least one basis point. */
function anySplit(random: () => number): CellShare[] {
  const [low, high] = [random(), random()].map((x) => 1 + Math.floor(9997 * x)).sort((a, b) => a - b) as [
    number,
    number,
  ];
  const shares = [low, high - low + 1, 9999 - high];
  return cells.map((cell, i) => ({ cell, shareBp: shares[i]!, coverInstances: 0 }));
}

/** One of Envoy's counters and gauges; 0 if it has none of that name. */
async function stat(admin: string, name: string): Promise<number> {
  const answer = await fetch(`http://${admin}/stats?filter=${encodeURIComponent(`^${name}$`)}`);
  return Number((await answer.text()).trim().split(': ')[1] ?? 0);
}

class Run {
  readonly windows: Window[] = [];
  readonly removals: Removal[] = [];
  readonly applies: ApplyResult[] = [];
  private split: CellShare[] = [];
  private keys = 0;

  constructor(
    private readonly client: TrafficClient,
    private readonly upstreams: ChildProcess,
    private readonly load: ChildProcess,
    private readonly healthyCells: () => Promise<number>,
  ) {}

  async apply(split: CellShare[]): Promise<void> {
    const { epoch } = this.applies.at(-1) ?? (await this.client.getTraffic(service));
    this.took(await this.client.applySplit({ ...this.order(), expectedEpoch: epoch, split }));
  }

  /** Sends requests for a while under the split as it is, and counts where they arrive. */
  async count(what: Window['what']): Promise<void> {
    const path = `/${what}-${this.windows.length}`;
    await ask<LoadAnswer>(this.load, { path });
    await pause(windowMs);
    await ask<LoadAnswer>(this.load, { path: '/between' });
    const counts = await ask<CellCounts>(this.upstreams, path);
    this.windows.push({ what, split: this.split, counts });
  }

  /** Drains a cell, removes it and gives it a share again, counting in between. */
  async removeAndReturn(cell: string, back: CellShare[]): Promise<void> {
    const began = performance.now();
    const { drained, applied } = await this.client.drainCell({ ...this.order(), cell });
    const drainMs = performance.now() - began;
    const atDrain = (await ask<CellCounts>(this.upstreams, ''))[cell]!;
    this.took(applied);
    await this.count('drained');
    const beganRemoval = performance.now();
    this.took(await this.client.removeCell({ ...this.order(), cell }));
    const removeMs = performance.now() - beganRemoval;
    await this.count('removed');
    const atEnd = (await ask<CellCounts>(this.upstreams, ''))[cell]!;
    const late = atEnd.requests - atDrain.requests;
    this.removals.push({ drainMs, removeMs, isDrained: drained, inFlight: atDrain.inFlight, late });
    await this.apply(back);
    // A cell that returns is new to Envoy: it takes part from its first health check on.
    await waitUntil(async () => (await this.healthyCells()) === cells.length, {
      withinMs: 10_000,
      what: `${cell} is healthy at Envoy again`,
    });
    await this.count('returned');
  }

  private order() {
    const waitMs = 10_000;
    return { service, reason: 'benchmark', by: 'bench', idempotencyKey: `bench-${(this.keys += 1)}`, waitMs };
  }

  private took(result: ApplyResult): void {
    this.applies.push(result);
    this.split = result.split;
  }
}

/** Postgres, control plane, Envoy, cells and callers, each in a process of its own. */
async function run(): Promise<Ran> {
  const random = seededRandom(7);
  const children: ChildProcess[] = [];
  const [port] = (await reservePorts(1)) as [number];
  const stack = await startStack({
    parts: ['postgres', 'control-plane'],
    settings: { controlPlane: { loadReportIntervalMs: 200 } },
  });
  let client: TrafficClient | undefined;
  try {
    const upstreams = start('xds-envoy-cells.js', ...cells);
    children.push(upstreams);
    const { ports } = await next<CellsReady>(upstreams);
    const store = await ConfigurationStore.connect(stack.addresses.postgresUrl);
    await store.apply(documents(port, ports)).finally(() => store.close());
    await stack.start('envoy');
    client = new TrafficClient(stack.addresses.trafficApi);
    const admin = stack.addresses.envoyAdmin[0]!;
    const healthy = (): Promise<number> => stat(admin, `cluster.${service}.membership_healthy`);
    const isServed = async (): Promise<boolean> =>
      (await fetch(`http://127.0.0.1:${port}/`)).ok && (await healthy()) === 2;
    await waitUntil(isServed, { withinMs: 30_000, what: 'Envoy serves the cells' });
    const load = start('xds-envoy-load.js', `http://127.0.0.1:${port}`, String(ratePerSecond));
    children.push(load);
    const running = new Run(client, upstreams, load, healthy);
    await running.apply(anySplit(random));
    await waitUntil(async () => (await healthy()) === cells.length, {
      withinMs: 10_000,
      what: 'all cells are healthy',
    });
    for (let step = 1; step <= steps; step += 1) {
      await running.apply(anySplit(random));
      await running.count('step');
      if (step % (steps / removals) === 0)
        await running.removeAndReturn(cells[running.removals.length % cells.length]!, anySplit(random));
    }
    const report = await ask<LoadReport>(load, 'stop');
    const { windows, removals: removed, applies } = running;
    return {
      windows,
      removals: removed,
      applies,
      load: report,
      workers: await stat(admin, 'server.concurrency'),
      retries: await stat(admin, `cluster.${service}.upstream_rq_retry`),
    };
  } finally {
    client?.close();
    for (const child of children) child.disconnect();
    await stack.stop();
    releasePorts([port]);
  }
}

/** Runs the part; its figures. */
export async function benchEnvoy(): Promise<Figure[]> {
  const began = performance.now();
  const ran = await run();
  const { windows, load, workers } = ran;
  const counted = windows.map(({ counts }) => Object.entries(counts).map(([cell, c]) => [cell, c.ofPath] as const));
  const far = windows.map(({ split }, i) => splitDistance(split, new Map(counted[i]), workers));
  const requests = counted.map((ofCells) => ofCells.reduce((sum, [, n]) => sum + n, 0));
  const beyond = far.filter(({ ofBound }) => ofBound >= 1).length;
  const incomplete = ran.applies.filter((a) => a.outcome !== 'COMPLETE' || a.acknowledged.length !== 1).length;
  const most = (values: number[]): number => Math.max(...values);
  const median = (values: number[]): number => quantile(values, 0.5);
  const why = Object.entries(load.failures).map(([reason, count]) => `${count} ${reason}`);
  if (why.length > 0) process.stdout.write(`failed: ${why.join(', ')}\n`);
  return [
    plain(`real Envoy, ${workers} workers, ${steps} steps: requests`, load.totals.requests, ''),
    atMost('failed requests', load.totals.failed, '', 0),
    atMost('retries by Envoy', ran.retries, '', 0),
    plain('latency of requests p99, from the intended time', load.totals.p99Ms ?? NaN, 'ms'),
    atMost('changes not acknowledged by Envoy', incomplete, '', 0),
    plain('publish to acknowledgement p50', median(ran.applies.map((a) => a.tookMs)), 'ms'),
    plain('publish to acknowledgement, slowest', most(ran.applies.map((a) => a.tookMs)), 'ms'),
    plain('splits counted at the cells', windows.length, ''),
    plain('requests counted per split, median', median(requests), ''),
    plain('requests counted per split, fewest', Math.min(...requests), ''),
    plain('counted off commanded, median split', median(far.map((f) => f.requests)), 'requests'),
    plain('counted off commanded, worst split', most(far.map((f) => f.requests)), 'requests'),
    plain('  as points of the share', most(far.map((f) => f.points)), '%'),
    plain('  as a share of the bound', most(far.map((f) => f.ofBound)), ''),
    atMost('splits off by the bound or more', beyond, '', 0),
    plain(
      'cells off by more than random picks (99.9 %)',
      far.reduce((sum, f) => sum + f.beyondRandom, 0),
      '',
    ),
    atMost('drains that did not end', ran.removals.filter(({ isDrained }) => !isDrained).length, `of ${removals}`, 0),
    atMost('requests in flight at a cell whose drain had ended', most(ran.removals.map((r) => r.inFlight)), '', 0),
    atMost(
      'requests to a cell after its drain',
      ran.removals.reduce((sum, r) => sum + r.late, 0),
      '',
      0,
    ),
    plain('drain p50', median(ran.removals.map((r) => r.drainMs)), 'ms'),
    plain('drain, slowest', most(ran.removals.map((r) => r.drainMs)), 'ms'),
    plain('removal p50', median(ran.removals.map((r) => r.removeMs)), 'ms'),
    plain('this part took', (performance.now() - began) / 1000, 's'),
  ];
}
