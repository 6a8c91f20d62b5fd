/**
 * How soon a failover has its synthetic cell: made from nothing, and woken from idle, by the real manager with a real store
 * and provider. `--kind process` or `--kind docker` measures one; `--repetitions N` says how often.
 */
import { request } from '../../cells/http';
import type { CellRecord } from '../../blueprints/records';
import type { IdleWay } from '../../cells/provider';
import { atMost, plain, quantile, type Figure } from '../figures';
import type { PartOptions } from '../cells';
import { restingWorld, type ProviderKind, type RestingService } from './resting-world';

/** Seconds, from asking for the cell. */
export interface Way {
  /** Until the manager says that it is acquired and each of its instances has answered us. */
  readyS: number;
  /** And until the manager calls it warm. */
  warmS: number;
}

interface Ways {
  nothing: Way[];
  idle: Record<IdleWay, Way[]>;
  failures: string[];
}

const usually: Record<ProviderKind, number> = { process: 50, docker: 30 };
/** Seconds until ready at p99. */
export const targets: Record<ProviderKind, { nothing: number; idle: number }> = {
  process: { nothing: 10, idle: 2 },
  docker: { nothing: 30, idle: 10 },
};
const giveUpS = 120;

export async function startFigures({ kind: only, repetitions }: PartOptions): Promise<Figure[]> {
  const world = await restingWorld(only);
  const figures: Figure[] = [];
  try {
    for (const kind of world.kinds) {
      const ways: Ways = { nothing: [], idle: { frozen: [], stopped: [] }, failures: [] };
      for (const rest of ['frozen', 'stopped'] as const) {
        const service = await world.service(kind, rest);
        try {
          await repeat(service, kind, rest, repetitions ?? usually[kind], ways);
        } finally {
          await service.stop();
        }
      }
      figures.push(...figuresOf(kind, ways));
    }
  } finally {
    await world.stop();
  }
  return figures;
}

async function repeat(service: RestingService, kind: ProviderKind, rest: IdleWay, times: number, ways: Ways) {
  for (let n = 1; n <= times; n += 1) {
    try {
      const made = await haveCell(service, `failover/${kind}/${rest}/${n}/made`);
      if (made.reused) throw new Error('a cell that was to be made from nothing was there already');
      await service.manager.rest(made.cell);
      const { phase } = await service.manager.observe(made.cell);
      if (phase !== 'idle') throw new Error(`a cell that was laid idle is ${phase}`);
      const woken = await haveCell(service, `failover/${kind}/${rest}/${n}/woken`);
      if (!woken.reused) throw new Error('a cell that lay idle was made anew');
      await service.manager.retire(woken.cell);
      ways.nothing.push(made.way);
      ways.idle[rest].push(woken.way);
      if (n === 1 || n % 5 === 0) tell(`${kind}, ${rest}: ${n} of ${times}`, made.way, woken.way);
    } catch (error) {
      ways.failures.push((error as Error).message);
      process.stdout.write(`  ${kind}, ${rest}: ${n} of ${times} failed: ${(error as Error).message}\n`);
    }
  }
}

/** What a failover does before its cell is armed. */
export async function haveCell({ manager, source }: RestingService, failover: string) {
  const beganAt = performance.now();
  const elapsedS = () => (performance.now() - beganAt) / 1000;
  const { cell, reused } = await manager.acquire({ failover, source });
  await Promise.all(cell.instances.map(answered));
  const readyS = elapsedS();
  // Compared with its peers under whatever the machine is busy with, it may need a second look.
  for (;;) {
    const { warm, reasons } = await manager.warm(cell);
    if (warm) return { cell, reused, way: { readyS, warmS: elapsedS() } };
    if (elapsedS() > giveUpS) throw new Error(`not warm after ${giveUpS} s: ${reasons.join('; ')}`);
  }
}

async function answered(instance: CellRecord['instances'][number]): Promise<void> {
  const { status } = await request(instance, '/healthz', { timeoutMs: 30_000 });
  if (status !== 200) throw new Error(`${instance.name} was called ready and answered ${status}`);
}

function tell(title: string, made: Way, woken: Way): void {
  const words = ({ readyS, warmS }: Way) => `ready after ${readyS.toFixed(2)} s, warm after ${warmS.toFixed(2)} s`;
  process.stdout.write(`  ${title}: from nothing ${words(made)}; from idle ${words(woken)}\n`);
}

function figuresOf(kind: ProviderKind, { nothing, idle, failures }: Ways): Figure[] {
  const paused = kind === 'docker' ? 'paused' : 'frozen';
  return [
    atMost(`${kind}: runs that failed`, failures.length, 'runs', 0),
    ...figuresOfWay(`${kind}, from nothing`, nothing, targets[kind].nothing),
    ...figuresOfWay(`${kind}, from idle (${paused})`, idle.frozen, targets[kind].idle),
    ...figuresOfWay(`${kind}, from idle (stopped)`, idle.stopped, targets[kind].idle),
  ];
}

function figuresOfWay(name: string, ways: readonly Way[], most: number): Figure[] {
  if (ways.length === 0) return [];
  const ready = ways.map(({ readyS }) => readyS);
  const warm = ways.map(({ warmS }) => warmS);
  return [
    plain(`${name}: runs`, ways.length, 'runs'),
    plain(`${name}: ready to serve, p50`, quantile(ready, 0.5), 's'),
    atMost(`${name}: ready to serve, p99`, quantile(ready, 0.99), 's', most),
    plain(`${name}: ready to serve, largest`, Math.max(...ready), 's'),
    plain(`${name}: ready and warmed, p50`, quantile(warm, 0.5), 's'),
    plain(`${name}: ready and warmed, p99`, quantile(warm, 0.99), 's'),
  ];
}
