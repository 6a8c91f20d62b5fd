/**
 * What a cell costs while it waits idle, against what it needs at work: time of a core, and memory. Each cell first serves a
 * load; then all rest at the same time and are watched, and are then woken `--repetitions` times (10), one after another.
 * `--kind process` or `--kind docker` measures one.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { OpenLoopLoad } from '../../lab/load';
import { atMost, plain, quantile, type Figure } from '../figures';
import type { PartOptions } from '../cells';
import { costOf, swapBytes, type CellCost } from './cell-cost';
import { haveCell, targets, type Way } from './start';
import { capacityRps, items, restingWorld, type ProviderKind, type Rest, type RestingService } from './resting-world';

const loadS = 15;
const watchedS = 30;
const usuallyWoken = 10;
const mib = 1024 * 1024;

interface Variant {
  name: string;
  kind: ProviderKind;
  rest: Rest;
  enforce: boolean;
  /** Only explains the others. */
  isPlain?: boolean;
}

const variants: readonly Variant[] = [
  { name: 'process, auto', kind: 'process', rest: 'auto', enforce: true },
  { name: 'process, frozen', kind: 'process', rest: 'frozen', enforce: true },
  { name: 'process, frozen by signals', kind: 'process', rest: 'frozen', enforce: false, isPlain: true },
  { name: 'process, stopped', kind: 'process', rest: 'stopped', enforce: true },
  { name: 'docker, auto', kind: 'docker', rest: 'auto', enforce: true },
  { name: 'docker, paused', kind: 'docker', rest: 'frozen', enforce: true, isPlain: true },
  { name: 'docker, stopped', kind: 'docker', rest: 'stopped', enforce: true, isPlain: true },
];

interface Resting {
  variant: Variant;
  service: RestingService;
  instances: string[];
  working: CellCost[];
  /** As the manager says. */
  how: string;
}

export async function idleFigures({ kind: only, repetitions = usuallyWoken }: PartOptions): Promise<Figure[]> {
  const world = await restingWorld(only);
  const resting: Resting[] = [];
  try {
    for (const variant of variants.filter(({ kind }) => world.kinds.includes(kind))) {
      process.stdout.write(`  ${variant.name}: making the cell, then ${loadS} s of load\n`);
      const service = await world.service(variant.kind, variant.rest, { enforce: variant.enforce });
      resting.push({ variant, service, ...(await workThenRest(service, variant.name)) });
    }
    process.stdout.write(`  all rest; watching them for ${watchedS} s\n`);
    const beganAt = performance.now();
    const before = resting.map(({ instances }) => costOf(instances));
    await pause(watchedS * 1000);
    const after = resting.map(({ instances }) => costOf(instances));
    const elapsedS = (performance.now() - beganAt) / 1000;
    for (const { variant, service, instances } of resting) await mustRest(variant.name, service, instances);
    const figures = [plain('idle: swap of this machine', swapBytes() / mib, 'MiB')];
    for (const [n, { variant, service, working, how }] of resting.entries()) {
      process.stdout.write(`  ${variant.name}: it rests ${how}; waking it ${repetitions} times\n`);
      const share = (after[n]!.cpuS - before[n]!.cpuS) / elapsedS;
      figures.push(...figuresOf(variant, working, after[n]!, share));
      figures.push(...figuresOfWaking(variant, await wake(service, repetitions)));
    }
    return figures;
  } finally {
    for (const { service } of resting) await service.stop();
    await world.stop();
  }
}

async function workThenRest(service: RestingService, name: string) {
  const { cell } = await haveCell(service, `failover/${service.source}`);
  const instances = cell.instances.map((instance) => instance.name);
  const load = new OpenLoopLoad({
    urls: cell.instances.map(({ address, port }) => `http://${address}:${port}`),
    ratePerSecond: 0.6 * capacityRps,
    arrivals: 'poisson',
    paths: Array.from({ length: items }, (_, id) => `/items/${id}`),
    sloMs: 250,
    timeoutMs: 5_000,
    seed: 1,
  });
  const working: CellCost[] = [];
  load.start();
  for (let second = 1; second <= loadS; second += 1) {
    await pause(1_000);
    // The first seconds are those of a program that has not yet got into its stride.
    if (second > loadS / 3) working.push(costOf(instances));
  }
  const { totals } = await load.stop();
  if (totals.failed > 0) process.stdout.write(`  ${name}: ${totals.failed} of ${totals.requests} requests failed\n`);
  const { rest } = await service.manager.rest(cell);
  return { instances, working, how: rest ? `${rest.how} (${rest.why})` : 'in an unknown way' };
}

/** By one failover after another; each rests again as its cell was told to. */
async function wake(service: RestingService, times: number): Promise<Way[]> {
  const ways: Way[] = [];
  for (let n = 1; n <= times; n += 1) {
    const { cell, reused, way } = await haveCell(service, `failover/${service.source}/${n}`);
    if (!reused) throw new Error(`${cell.name}: a cell that lay idle was made anew`);
    ways.push(way);
    await service.manager.rest(cell);
  }
  return ways;
}

function figuresOfWaking({ name, kind }: Variant, ways: readonly Way[]): Figure[] {
  const ready = ways.map(({ readyS }) => readyS);
  const warm = ways.map(({ warmS }) => warmS);
  return [
    plain(`${name}: ready again, p50 of ${ways.length}`, quantile(ready, 0.5), 's'),
    atMost(`${name}: ready again, largest`, Math.max(...ready), 's', targets[kind].idle),
    plain(`${name}: ready and warm again, largest`, Math.max(...warm), 's'),
  ];
}

/** A cell that has died costs nothing either, and would have been measured for nothing. */
async function mustRest(name: string, { manager }: RestingService, instances: readonly string[]): Promise<void> {
  const cells = await manager.standing();
  const cell = cells.find((one) => one.instances.some((instance) => instances.includes(instance.name)));
  if (cell?.phase !== 'idle') throw new Error(`${name}: the cell that was to rest is ${cell?.phase ?? 'gone'}`);
}

function figuresOf(
  { name, isPlain = false }: Variant,
  working: readonly CellCost[],
  idle: CellCost,
  share: number,
): Figure[] {
  const atWork = (of: (cost: CellCost) => number) => quantile(working.map(of), 0.5);
  const [pss, own, rss] = [
    atWork(({ pssBytes }) => pssBytes),
    atWork(({ ownBytes }) => ownBytes),
    atWork(({ rssBytes }) => rssBytes),
  ];
  const judged = (what: string, value: number, unit: string, most: number) =>
    isPlain ? plain(`${name}: ${what}`, value, unit) : atMost(`${name}: ${what}`, value, unit, most);
  return [
    judged('CPU while idle', 100 * share, '% of a core', 1),
    judged('memory idle / at work, by PSS', (100 * idle.pssBytes) / pss, '%', 10),
    plain(`${name}: PSS at work`, pss / mib, 'MiB'),
    plain(`${name}: PSS idle`, idle.pssBytes / mib, 'MiB'),
    plain(`${name}: own memory idle / at work`, (100 * idle.ownBytes) / own, '%'),
    plain(`${name}: own memory at work`, own / mib, 'MiB'),
    plain(`${name}: own memory idle`, idle.ownBytes / mib, 'MiB'),
    plain(`${name}: RSS at work`, rss / mib, 'MiB'),
    plain(`${name}: RSS idle`, idle.rssBytes / mib, 'MiB'),
    plain(`${name}: processes while idle`, idle.processes, 'processes'),
  ];
}
