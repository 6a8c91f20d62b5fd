/** The real servers that rows of the matrix share: Temporal with its file, Postgres, a control plane, an Envoy, and Kafka where it is needed. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Client, Connection } from '@temporalio/client';
import { ConfigurationStore } from '../../blueprints/store';
import { TrafficClient } from '../../envoy/traffic-client';
import { releasePorts, reservePorts } from '../../local/ports';
import { startStack, type Stack, type StackPart } from '../../local/stack';
import { waitUntil } from '../../local/wait';
import { workflowBundle } from '../support/failover-bench';
import { OpenLoad } from '../support/open-load';
import { Cloud } from './cloud';
import { applyService, callEveryMs, isServed } from './services';

export class Bench {
  private rows = 0;

  private constructor(
    readonly stack: Stack,
    readonly store: ConfigurationStore,
    readonly traffic: TrafficClient,
    readonly connection: Connection,
    readonly client: Client,
    /** Path of the workflow bundle that all workers share. */
    readonly bundle: string,
    /** A service that no failover ever touches, as the measure of what a plain Envoy serves here and now. */
    private readonly plain: { cloud: Cloud; port: number; load: OpenLoad },
  ) {}

  static async open(also: StackPart[] = []): Promise<Bench> {
    const stack = await startStack({
      parts: ['temporal', 'postgres', 'control-plane', 'envoy', ...also],
      settings: { controlPlane: { loadReportIntervalMs: 250 } },
    });
    const bundle = join(stack.dir, 'workflows.bundle.js');
    writeFileSync(bundle, (await workflowBundle()).code);
    const store = await ConfigurationStore.connect(stack.settings.postgres.url);
    const connection = await Connection.connect({ address: stack.addresses.temporal });
    const client = new Client({ connection, namespace: stack.settings.temporal.namespace });
    const cloud = await Cloud.open();
    const [port] = (await reservePorts(1)) as [number];
    await applyService(store, cloud, { service: 'plain', port });
    await waitUntil(() => isServed(port), { withinMs: 60_000, what: 'Envoy serves the plain service' });
    const plain = { cloud, port, load: new OpenLoad(port, callEveryMs) };
    return new Bench(stack, store, new TrafficClient(stack.addresses.trafficApi), connection, client, bundle, plain);
  }

  /** A name for a row's service that no other row of this bench has. */
  nextService(): string {
    this.rows += 1;
    return `row${this.rows}`;
  }

  /** When requests to the plain service failed. */
  plainFailuresMs(): number[] {
    return this.plain.load.failures.map((failure) => Date.parse(failure.split(' ')[0]!));
  }

  async close(): Promise<void> {
    await this.plain.load.stop();
    await this.plain.cloud.close();
    await this.connection.close();
    this.traffic.close();
    await this.store.close();
    await this.stack.stop();
    releasePorts([this.plain.port]);
  }
}
