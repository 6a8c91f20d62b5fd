/** What the runs stand on: the servers of the stack, kept from run to run, and the clients to look at them. */
import { join } from 'node:path';
import { Client, Connection } from '@temporalio/client';
import { ConfigurationStore } from '../../blueprints/store';
import { ProcessProvider } from '../../cells/process-provider';
import { ScoreTap } from '../../lab/demo/score-tap';
import type { Peer } from '../../lab/contract';
import { startStack, type Stack } from '../../local/stack';
import type { ManagedProcess } from '../../local/process';
import { packageRoot } from '../../package-root';

/** Only where an arm is Understudy's. */
export interface Understudy {
  store: ConfigurationStore;
  temporal: Client;
  scores: ScoreTap;
}

export class Ground {
  private readonly alongside: ManagedProcess[] = [];

  private constructor(
    readonly stack: Stack,
    readonly provider: ProcessProvider,
    private readonly clients: Understudy | undefined,
  ) {}

  /** @param isWhole with Kafka, Temporal, Postgres, control plane, workers and Envoy; otherwise only what cleans up */
  static async open(isWhole: boolean, tell: (text: string) => void, signal: AbortSignal): Promise<Ground> {
    const stack = await startStack({ ...(isWhole ? {} : { parts: [] }), onProgress: tell, signal });
    try {
      const provider = new ProcessProvider({ stateDir: stack.settings.processProvider.stateDir, graceMs: 1000 });
      return new Ground(stack, provider, isWhole ? await clientsOf(stack) : undefined);
    } catch (error) {
      await stack.stop();
      throw error;
    }
  }

  get understudy(): Understudy {
    if (!this.clients) throw new Error('This ground has no Understudy: it was opened without it.');
    return this.clients;
  }

  /** A slow store of the lab, until the next clean-up. */
  async startStore(name: string, store: { slots: number; serviceMs: number }): Promise<Peer> {
    const managed = await this.stack.startAlso({
      name,
      command: process.execPath,
      args: [
        '--max-old-space-size=64',
        join(packageRoot, 'dist', 'lab', 'services', 'store.js'),
        '--config',
        JSON.stringify({ port: 0, ...store }),
      ],
      logFile: join(this.stack.dir, 'bench', `${name}.log`),
      ready: (process) => /"msg":"ready"/.test(process.output()),
    });
    this.alongside.push(managed);
    const port = Number(/"port":(\d+)/.exec(managed.output())?.[1]);
    return { host: '127.0.0.1', port };
  }

  /** Something that is to end with the run. */
  stopWithRun(managed: ManagedProcess): void {
    this.alongside.push(managed);
  }

  async endRun(): Promise<void> {
    await Promise.all(this.alongside.splice(0).map((managed) => managed.stop()));
    for (const { cell } of await this.provider.list()) await this.provider.destroy(cell);
  }

  async close(): Promise<void> {
    const { clients } = this;
    try {
      if (clients) {
        await Promise.allSettled([clients.scores.close(), clients.temporal.connection.close(), clients.store.close()]);
      }
    } finally {
      await this.stack.stop();
    }
  }
}

async function clientsOf(stack: Stack): Promise<Understudy> {
  const { temporal, kafka, postgres } = stack.settings;
  const connection = await Connection.connect({ address: temporal.address });
  return {
    store: await ConfigurationStore.connect(postgres.url),
    temporal: new Client({ connection, namespace: temporal.namespace }),
    scores: await ScoreTap.open(kafka.brokers, kafka.scoresTopic),
  };
}
