/** What is seen of an instance from outside at each step: /proc, its control group, its file system. */
import { readdirSync, readFileSync, statfsSync } from 'node:fs';
import type { MetricName } from '../../prediction/metrics';
import type { CellGroups, Throttling } from './limits';

export type Metrics = Partial<Record<MetricName, number>>;

const ticksPerSecond = 100;
const pageBytes = 4096;

interface Reading {
  atMs: number;
  cpuS: number;
  waitS: number;
  throttling: Throttling | undefined;
}

export interface WatchedProcess {
  pid: number;
  startedMs: number;
  restarts: number;
  groups: Pick<CellGroups, 'throttling' | 'memoryUsedBytes'>;
  /** In cores; undefined without one. */
  cpuQuota: number | undefined;
  memoryLimitBytes: number | undefined;
  fdLimit: number;
  dir: string | undefined;
}

/** CPU seconds of all threads by the scheduler's own clock, and how long they waited for a CPU. */
function schedulerTimes(pid: number): { cpuS: number; waitS: number } {
  let cpuS = 0;
  let waitS = 0;
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    const [ran, waited] = readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ');
    cpuS += Number(ran) / 1e9;
    waitS += Number(waited) / 1e9;
  }
  return { cpuS, waitS };
}

export class OutsideView {
  private last: Reading | undefined;

  constructor(private readonly watched: WatchedProcess) {}

  /** The metrics since the last call; undefined once the process is gone. */
  read(): Metrics | undefined {
    const { pid, groups, cpuQuota, memoryLimitBytes, fdLimit, dir, startedMs, restarts } = this.watched;
    let now: Reading;
    const metrics: Metrics = {};
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
      // The command's name may hold spaces and parentheses: fields are counted from behind its last one.
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      if (fields[0] === 'Z' || fields[0] === 'X') return undefined;
      const ticks = (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
      const { cpuS, waitS } = schedulerTimes(pid);
      now = { atMs: Date.now(), cpuS: cpuS > 0 ? cpuS : ticks, waitS, throttling: groups.throttling() };
      metrics['memory.used_bytes'] = groups.memoryUsedBytes() ?? Number(fields[21]) * pageBytes;
      metrics['fd.used'] = readdirSync(`/proc/${pid}/fd`).length;
    } catch {
      return undefined;
    }
    metrics['fd.limit'] = fdLimit;
    if (memoryLimitBytes !== undefined) metrics['memory.limit_bytes'] = memoryLimitBytes;
    metrics['process.uptime_s'] = (now.atMs - startedMs) / 1000;
    metrics['process.restarts'] = restarts;
    if (dir !== undefined) {
      const { blocks, bfree, bsize } = statfsSync(dir);
      metrics['disk.used_bytes'] = (blocks - bfree) * bsize;
      metrics['disk.limit_bytes'] = blocks * bsize;
    }
    const before = this.last;
    this.last = now;
    if (before && now.atMs > before.atMs) {
      const elapsedS = (now.atMs - before.atMs) / 1000;
      metrics['cpu.utilization'] = Math.max(0, now.cpuS - before.cpuS) / elapsedS / (cpuQuota ?? 1);
      metrics['cpu.wait_share'] = Math.max(0, now.waitS - before.waitS) / elapsedS;
      if (cpuQuota !== undefined && now.throttling && before.throttling) {
        const periods = now.throttling.periods - before.throttling.periods;
        metrics['cpu.throttled_share'] =
          periods > 0 ? (now.throttling.throttled - before.throttling.throttled) / periods : 0;
      }
    }
    return metrics;
  }
}
