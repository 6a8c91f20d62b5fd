/** Cells of the changelog service as processes over a real Kafka, each behind a line of its own that can be cut. */
import { join } from 'node:path';
import { KafkaChangelog } from '../../cells/data-sync/kafka-changelog';
import { createTopics } from '../../local/kafka';
import { releasePorts, reservePorts } from '../../local/ports';
import type { Stack } from '../../local/stack';
import { packageRoot } from '../../package-root';
import { TcpProxy } from '../chaos/tcp-proxy';
import { seededRandom } from '../random';
import type { FaultyCell } from './faulted-handover';
import { faultsOf } from './faulty-process';

export interface ChangelogWorld {
  sync: KafkaChangelog;
  source: FaultyCell;
  stop(): Promise<void>;
}

/** Also where it is there already. */
export async function createChangelog(broker: string, topic: string): Promise<void> {
  const spec = { topic, partitions: 1, config: { 'cleanup.policy': 'compact' } };
  await createTopics(broker, [spec]);
}

type RunningCell = FaultyCell & { stop(): Promise<void> };

/** A source and a synthetic cell that follows. `name` is the service's; it must be new to the stack. */
export async function changelogWorld(
  stack: Stack,
  name: string,
  seed: number,
): Promise<ChangelogWorld & { synthetic: FaultyCell }> {
  const world = await sourceWorld(stack, name, seed);
  return { ...world, synthetic: await world.startSynthetic() };
}

/** The same, with the synthetic cell yet to be started. */
export async function sourceWorld(
  stack: Stack,
  name: string,
  seed: number,
): Promise<ChangelogWorld & { startSynthetic(): Promise<FaultyCell> }> {
  const topic = `${name}.changelog`;
  await createChangelog(stack.addresses.kafka, topic);
  const options = {
    brokers: [stack.addresses.kafka],
    topic,
    path: '/data-sync',
    limit: { behind: 1_000, seconds: 10 },
  };
  const sync = new KafkaChangelog(options);
  const source = await startCell(stack, name, `${name}-a`, topic, seed);
  const running: RunningCell[] = [source];
  return {
    sync,
    source,
    async startSynthetic() {
      const synthetic = await startCell(stack, name, `${name}-b`, topic, seed + 1);
      running.push(synthetic);
      return synthetic;
    },
    async stop() {
      await Promise.all([...running.map((cell) => cell.stop()), sync.close()]);
    },
  };
}

async function startCell(
  stack: Stack,
  service: string,
  cell: string,
  topic: string,
  seed: number,
): Promise<RunningCell> {
  const [host = '127.0.0.1', kafkaPort] = stack.addresses.kafka.split(':');
  const line = await TcpProxy.start({ host, port: Number(kafkaPort) }, seededRandom(seed));
  const [port] = (await reservePorts(1)) as [number];
  const given = {
    cell,
    service,
    topic,
    port: String(port),
    kafka: stack.addresses.kafka,
    'kafka-via-port': String(line.port),
  };
  const managed = await stack.startAlso({
    name: cell,
    command: process.execPath,
    args: [
      '--enable-source-maps',
      join(packageRoot, 'dist/lab/stateful/changelog-service.js'),
      ...Object.entries(given).flatMap(([flag, value]) => [`--${flag}`, value]),
    ],
    env: { KAFKAJS_NO_PARTITIONER_WARNING: '1' },
    logFile: join(stack.dir, 'stateful', `${cell}.log`),
    ready: async () => (await fetch(`http://127.0.0.1:${port}/healthz`)).ok,
    stopSignal: 'SIGKILL',
  });
  return {
    name: cell,
    instances: [{ address: '127.0.0.1', port }],
    ...faultsOf(managed, line),
    async stop() {
      await managed.stop();
      await line.stop();
      releasePorts([port]);
    },
  };
}
