/**
 * The lab's second telemetry producer: watches processes from outside, by /proc, and sends the project's own JSON format
 * to Kafka. Run as `node dist/lab/host-agent.js --kafka 127.0.0.1:9092 --state-dir .runs/cells` or `--watch cell/instance=pid`.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { numberFlag } from './arguments';
import { KafkaSink } from './kafka-sink';
import { readProcess, type ProcessReading } from './process-reading';
import { jsonTopic } from './topics';
import type { MetricName } from '../prediction/metrics';

export interface WatchedInstance {
  cell: string;
  instance: string;
  pid: number;
}

/** Every instance the process provider runs: `<stateDir>/<cell>/<instance>/pid`. Folders without a readable pid are passed over. */
export function instancesOf(stateDir: string): WatchedInstance[] {
  const found: WatchedInstance[] = [];
  const foldersIn = (dir: string): string[] => {
    try {
      return readdirSync(dir, { withFileTypes: true }).flatMap((entry) => (entry.isDirectory() ? [entry.name] : []));
    } catch {
      return [];
    }
  };
  for (const cell of foldersIn(stateDir)) {
    for (const instance of foldersIn(join(stateDir, cell))) {
      try {
        const pid = Number.parseInt(readFileSync(join(stateDir, cell, instance, 'pid'), 'utf8'), 10);
        if (pid > 0) found.push({ cell, instance, pid });
      } catch {
        // Being created or removed at this moment; the next round sees it.
      }
    }
  }
  return found;
}

/** Turns successive readings of each instance into telemetry records. */
export class HostAgent {
  private readonly last = new Map<string, ProcessReading>();
  private readonly restarts = new Map<string, number>();

  /** The record of one instance, or undefined while its process is absent. */
  observe({ cell, instance, pid }: WatchedInstance, service: string): object | undefined {
    const now = readProcess(pid);
    if (!now) return undefined;
    const before = this.last.get(instance);
    this.last.set(instance, now);
    if (before && before.startedAtMs !== now.startedAtMs) {
      this.restarts.set(instance, (this.restarts.get(instance) ?? 0) + 1);
    }
    const metrics: Partial<Record<MetricName, number>> = {
      'memory.used_bytes': now.residentBytes,
      'fd.used': now.openFiles,
      'process.uptime_s': Math.max(0, (now.atMs - now.startedAtMs) / 1000),
      'process.restarts': this.restarts.get(instance) ?? 0,
    };
    if (now.openFilesLimit !== undefined) metrics['fd.limit'] = now.openFilesLimit;
    const sameProcess = before && before.startedAtMs === now.startedAtMs && now.atMs > before.atMs;
    if (sameProcess) {
      metrics['cpu.utilization'] =
        (1000 * (now.cpuSecondsPerCore - before.cpuSecondsPerCore)) / (now.atMs - before.atMs);
    }
    const intervalS = before ? (now.atMs - before.atMs) / 1000 : 1;
    return {
      schema: 'understudy.telemetry/v1',
      cell,
      instance,
      ts: new Date(now.atMs).toISOString(),
      interval_s: Math.round(intervalS * 1000) / 1000,
      metrics,
      attrs: { service },
    };
  }
}

function watchedByHand(flag: string): WatchedInstance {
  const [, cell, instance, pid] = /^([^/=]+)\/([^/=]+)=(\d+)$/.exec(flag) ?? [];
  if (!cell || !instance || !pid) {
    process.stderr.write(`--watch expects cell/instance=pid, got "${flag}".\n`);
    process.exit(2);
  }
  return { cell, instance, pid: Number(pid) };
}

function main(): void {
  const { values } = parseArgs({
    options: {
      kafka: { type: 'string' },
      service: { type: 'string', default: 'catalogue' },
      'state-dir': { type: 'string' },
      watch: { type: 'string', multiple: true, default: [] },
      'step-ms': { type: 'string' },
    },
  });
  if (!values.kafka) {
    process.stderr.write('--kafka host:port is needed: where the telemetry goes.\n');
    process.exit(2);
  }
  const byHand = values.watch.map(watchedByHand);
  const stepMs = numberFlag('step-ms', values['step-ms'], 1000);
  const sink = new KafkaSink(values.kafka.split(','), 'host-agent', jsonTopic);
  const agent = new HostAgent();
  const round = (): void => {
    const watched = [...byHand, ...(values['state-dir'] ? instancesOf(values['state-dir']) : [])];
    sink.sendAll(
      watched.flatMap((instance) => {
        const record = agent.observe(instance, values.service);
        return record ? [{ key: instance.cell, value: JSON.stringify(record) }] : [];
      }),
    );
  };
  const timer = setInterval(round, stepMs);
  const stop = (): void => {
    clearInterval(timer);
    setTimeout(() => process.exit(0), 2000).unref();
    void sink.stop().finally(() => process.exit(0));
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
  process.stdout.write(`${JSON.stringify({ msg: 'ready', watching: byHand.length, stateDir: values['state-dir'] })}\n`);
}

if (require.main === module) main();
