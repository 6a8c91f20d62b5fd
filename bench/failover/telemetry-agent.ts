/** What a host's agent does: reads what instances say of themselves and what is seen of them, and sends both to Kafka. */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { CellGroups, labRunsDir } from '../../lab/chaos/limits';
import { OutsideView } from '../../lab/chaos/outside';
import type { StepLine } from '../../lab/contract';
import { instancesOf, type WatchedInstance } from '../../lab/host-agent';
import { KafkaSink } from '../../lab/kafka-sink';
import { jsonTopic } from '../../lab/topics';
import type { Deployment } from './cases';

const stepMs = 1000;
/** After the step's boundary: what instances say at it is written by then. */
const lookAfterMs = 200;
const mostBytesPerLook = 256 * 1024;

/** The lines that were added to a file since the last look. */
class Tail {
  private offset = 0;
  private rest = '';

  constructor(private readonly path: string) {}

  take(): string[] {
    let file: number;
    try {
      file = openSync(this.path, 'r');
    } catch {
      return [];
    }
    try {
      const bytes = Math.min(mostBytesPerLook, fstatSync(file).size - this.offset);
      if (bytes <= 0) return [];
      const buffer = Buffer.alloc(bytes);
      readSync(file, buffer, 0, bytes, this.offset);
      this.offset += bytes;
      const lines = (this.rest + buffer.toString('utf8')).split('\n');
      this.rest = lines.pop() ?? '';
      return lines;
    } finally {
      closeSync(file);
    }
  }
}

interface Watched {
  pid: number;
  tail: Tail;
  view: OutsideView;
}

export interface AgentOptions {
  brokers: string[];
  stateDir: string;
  run: string;
  service: string;
  deployment: Deployment;
}

export class TelemetryAgent {
  private readonly sink: KafkaSink;
  private readonly watched = new Map<string, Watched>();
  private timer: NodeJS.Timeout | undefined;

  /** Watches every instance of the service's cells, those that come later too, until it is stopped. */
  constructor(private readonly options: AgentOptions) {
    this.sink = new KafkaSink(options.brokers, 'bench-agent', jsonTopic);
    this.next();
  }

  async stop(): Promise<void> {
    clearTimeout(this.timer);
    await this.sink.stop();
  }

  private next(): void {
    const waitMs = stepMs - ((Date.now() - lookAfterMs) % stepMs);
    this.timer = setTimeout(() => {
      this.look(Math.floor((Date.now() - lookAfterMs / 2) / stepMs) * stepMs);
      this.next();
    }, waitMs);
  }

  private look(atMs: number): void {
    const { stateDir, service } = this.options;
    const instances = instancesOf(stateDir).filter(({ cell }) => cell.startsWith(`${service}-`));
    this.sink.sendAll(
      instances.flatMap((instance) => {
        const metrics = this.metricsOf(instance);
        if (Object.keys(metrics).length === 0) return [];
        const record = {
          schema: 'understudy.telemetry/v1',
          cell: instance.cell,
          instance: instance.instance,
          ts: new Date(atMs).toISOString(),
          interval_s: stepMs / 1000,
          metrics,
          attrs: { service },
        };
        return [{ key: instance.cell, value: JSON.stringify(record) }];
      }),
    );
  }

  private metricsOf(instance: WatchedInstance): StepLine['metrics'] {
    const { tail, view } = this.watchedOf(instance);
    let own: StepLine['metrics'] = {};
    for (const line of tail.take())
      if (line.startsWith('{"at":') && line.endsWith('}')) own = (JSON.parse(line) as StepLine).metrics;
    // What is seen from outside is what an operator would have; the instance's own word comes second, as in training.
    return { ...own, ...view.read() };
  }

  private watchedOf({ cell, instance, pid }: WatchedInstance): Watched {
    const known = this.watched.get(instance);
    if (known?.pid === pid) return known;
    const { run, stateDir, deployment } = this.options;
    const { cpuQuota, fdLimit, diskBytes } = deployment.variant;
    const groups =
      cpuQuota === undefined
        ? { throttling: () => undefined, memoryUsedBytes: () => undefined }
        : new CellGroups(`${run}/${instance}`, {});
    const view = new OutsideView({
      pid,
      startedMs: Date.now(),
      restarts: 0,
      groups,
      cpuQuota,
      memoryLimitBytes: undefined,
      fdLimit,
      dir: diskBytes === undefined ? undefined : join(labRunsDir, run, instance),
    });
    const watched = { pid, tail: known?.tail ?? new Tail(join(stateDir, cell, instance, 'log')), view };
    this.watched.set(instance, watched);
    return watched;
  }
}
