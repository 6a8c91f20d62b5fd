/** The stage of the demo: the whole local stack with its services applied, and the instruments to watch it. */
import { join } from 'node:path';
import { Client, Connection } from '@temporalio/client';
import type { ServiceDocument } from '../../blueprints/schema';
import { ConfigurationStore } from '../../blueprints/store';
import { ProcessProvider } from '../../cells/process-provider';
import { reservePorts } from '../../local/ports';
import { startStack, type Stack, type StackPart } from '../../local/stack';
import { packageRoot } from '../../package-root';
import { failoverWorkflowId, signalNames, type Override } from '../../workflows/messages';
import { createChangelog } from '../stateful/changelog-world';
import { demoDocuments, ledgerTopic, type DemoService } from './documents';
import { ScoreTap } from './score-tap';

export interface EnvoyCounters {
  requests: number;
  responses5xx: number;
  retries: number;
}

export interface StageOptions {
  /** Told each sentence of the story. */
  tell: (sentence: string) => void;
  progress?: (text: string) => void;
  /** What to start; all by default. */
  parts?: readonly StackPart[];
  /** Ends a start that is under way. */
  signal?: AbortSignal;
}

/** The services of the acts. Only the third is observed without being protected; the fourth keeps data. */
const services: Omit<DemoService, 'port'>[] = [
  { service: 'orders', autonomy: 'act', blueprint: 'catalogue' },
  { service: 'carts', autonomy: 'act', blueprint: 'catalogue' },
  { service: 'parcels', autonomy: 'observe', blueprint: 'catalogue' },
  { service: 'ledger', autonomy: 'act', blueprint: 'ledger' },
];

export class Stage {
  private readonly watchers: (() => void)[] = [];

  private constructor(
    readonly stack: Stack,
    readonly store: ConfigurationStore,
    readonly provider: ProcessProvider,
    readonly temporal: Client,
    readonly scores: ScoreTap,
    private readonly ports: ReadonlyMap<string, number>,
    readonly tell: (sentence: string) => void,
  ) {}

  static async open({ tell, progress, parts, signal }: StageOptions): Promise<Stage> {
    const ports = await reservePorts(services.length);
    const withPorts = services.map((s, i) => ({ ...s, port: ports[i] as number }));
    const stack = await startStack({
      ...(parts && { parts }),
      ...(progress && { onProgress: progress }),
      ...(signal && { signal }),
    });
    try {
      await startHostAgent(stack);
      for (const { service, blueprint } of services)
        if (blueprint === 'ledger') await createChangelog(stack.addresses.kafka, ledgerTopic(service));
      const store = await ConfigurationStore.connect(stack.settings.postgres.url);
      await store.apply(demoDocuments({ services: withPorts, kafkaBrokers: stack.settings.kafka.brokers }));
      const connection = await Connection.connect({ address: stack.settings.temporal.address });
      return new Stage(
        stack,
        store,
        new ProcessProvider({ stateDir: stack.settings.processProvider.stateDir }),
        new Client({ connection, namespace: stack.settings.temporal.namespace }),
        await ScoreTap.open(stack.settings.kafka.brokers, stack.settings.kafka.scoresTopic),
        new Map(withPorts.map((s) => [s.service, s.port])),
        tell,
      );
    } catch (error) {
      await stack.stop();
      throw error;
    }
  }

  async specOf(service: string): Promise<ServiceDocument> {
    const record = await this.store.service(service);
    if (!record) throw new Error(`The demo's service ${service} is not in the Configuration Data Store.`);
    return record.spec;
  }

  /** Where callers reach the service: Envoy's listener. */
  serviceUrl(service: string): string {
    return `http://127.0.0.1:${this.ports.get(service) ?? 0}`;
  }

  /** Waits until Envoy answers callers of the service at the path. */
  async envoyServes(service: string, path: string): Promise<void> {
    const deadline = Date.now() + 20_000;
    for (;;) {
      const ok = await fetch(this.serviceUrl(service) + path).then(
        (r) => r.ok,
        () => false,
      );
      if (ok) return;
      if (Date.now() > deadline)
        throw new Error(`Envoy does not serve ${service} at ${this.serviceUrl(service)} after 20 s`);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  /** Ends every cell of a service, so that the next act has the machine to itself. */
  async clear(service: string): Promise<void> {
    for (const cell of await this.store.cells(service)) await this.provider.destroy(cell.name);
  }

  /** POSTs to every instance of a cell. */
  async post(cell: string, path: string, body: unknown): Promise<void> {
    const { instances } = await this.provider.observe(cell);
    await Promise.all(
      instances.map(async ({ address, port }) => {
        const response = await fetch(`http://${address}:${port}${path}`, {
          method: 'POST',
          body: JSON.stringify(body),
        });
        if (!response.ok) throw new Error(`${cell} at ${address}:${port} answered ${response.status} to ${path}`);
      }),
    );
  }

  /** Switches the leak in every instance of a cell; 0 stops it and lets go of what had leaked. */
  async setLeak(cell: string, bytesPerSecond: number): Promise<void> {
    await this.post(cell, '/admin/leak', { bytesPerSecond, shape: 'steady', release: bytesPerSecond === 0 });
  }

  /** What a person would send from the Temporal UI or by `understudy override`. */
  async override(service: string, cell: string, order: Override): Promise<void> {
    await this.temporal.workflow.getHandle(failoverWorkflowId(service, cell)).signal(signalNames.override, order);
  }

  /** Envoy's own counters of the service's listener and cluster. */
  async envoyCounters(service: string): Promise<EnvoyCounters> {
    const url = `http://${this.stack.addresses.envoyAdmin[0]}/stats?format=json&filter=%5E(http|cluster)%5C.${service}%5C.`;
    const { stats } = (await (await fetch(url)).json()) as { stats: { name?: string; value?: number }[] };
    const value = (name: string): number => stats.find((s) => s.name === name)?.value ?? 0;
    return {
      requests: value(`http.${service}.downstream_rq_total`),
      responses5xx: value(`http.${service}.downstream_rq_5xx`),
      retries: value(`cluster.${service}.upstream_rq_retry`),
    };
  }

  /** Whoever watches the stage stops before its instruments go. */
  beforeClose(stop: () => void): void {
    this.watchers.push(stop);
  }

  /** Stops everything; an instrument that cannot be closed keeps nobody from stopping the stack. */
  async close(): Promise<void> {
    for (const stop of this.watchers) stop();
    try {
      await Promise.allSettled([this.scores.close(), this.temporal.connection.close(), this.store.close()]);
    } finally {
      await this.stack.stop();
    }
  }
}

/** The second producer of telemetry: reads every instance from outside and says it in the project's own format. */
async function startHostAgent(stack: Stack): Promise<void> {
  await stack.startAlso({
    name: 'host-agent',
    command: process.execPath,
    args: [
      join(packageRoot, 'dist', 'lab', 'host-agent.js'),
      '--kafka',
      stack.settings.kafka.brokers.join(','),
      '--state-dir',
      stack.settings.processProvider.stateDir,
    ],
    env: { KAFKAJS_NO_PARTITIONER_WARNING: '1' },
    logFile: join(stack.dir, 'lab', 'host-agent.log'),
    ready: (managed) => /"msg":"ready"/.test(managed.output()),
    restartBackoffMs: { first: 500, last: 5000 },
  });
}
