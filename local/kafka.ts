/** A real Kafka of one node (KRaft), with the topics that Understudy needs. */
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Kafka, logLevel } from 'kafkajs';
import type { Settings } from '../blueprints/settings';
import { partDir } from './parts';
import type { ProcessSpec } from './process';
import { GiveUp, waitUntil } from './wait';

export interface TopicSpec {
  topic: string;
  partitions: number;
  config: Record<string, string>;
}

/** Each snapshot makes the one before the last void: what is void should go soon, and nothing of it is worth a day. */
const windowsTopicConfig = {
  'cleanup.policy': 'compact,delete',
  'retention.ms': '21600000',
  'segment.bytes': '16777216',
};

/** Every topic, with its partitions: telemetry and scores grow by cell, the dead letters are few. */
export function topics(kafka: Settings['kafka']): TopicSpec[] {
  return [
    ...kafka.telemetry.map(({ topic }) => ({ topic, partitions: 4, config: {} })),
    { topic: kafka.scoresTopic, partitions: 4, config: { 'cleanup.policy': 'compact' } },
    { topic: kafka.shadowScoresTopic, partitions: 4, config: { 'cleanup.policy': 'compact' } },
    { topic: kafka.modelHealthTopic, partitions: 1, config: { 'cleanup.policy': 'compact' } },
    { topic: kafka.windowsTopic, partitions: 4, config: windowsTopicConfig },
    { topic: kafka.decisionsTopic, partitions: 4, config: {} },
    { topic: kafka.deadLetterTopic, partitions: 1, config: {} },
  ];
}

export interface KafkaPorts {
  broker: number;
  controller: number;
}

/** Formats the data folder unless it has been, and says how to start the broker. */
export async function prepareKafka(dir: string, ports: KafkaPorts): Promise<ProcessSpec> {
  const classPath = join(partDir('kafka'), 'libs', '*');
  const config = join(dir, 'server.properties');
  const logFile = join(dir, 'kafka.log');
  mkdirSync(dir, { recursive: true });
  writeFileSync(config, serverProperties(join(dir, 'data'), ports));
  if (!existsSync(join(dir, 'data', 'meta.properties'))) {
    // Any 16 bytes in base64url are a cluster id; each stack has its own folder, so a fixed one does.
    const format = ['kafka.tools.StorageTool', 'format', '-t', 'dW5kZXJzdHVkeS1sb2NhbA', '-c', config];
    await promisify(execFile)('java', [...lightJvm, '-cp', classPath, ...format]);
  }
  const broker = `127.0.0.1:${ports.broker}`;
  return {
    name: 'kafka',
    command: 'java',
    // The broker logs by log4j to the console through its defaults: errors only.
    args: ['-Xmx512m', ...lightJvm, '-cp', classPath, 'kafka.Kafka', config],
    cwd: dir,
    logFile,
    ready: () => answersMetadata(broker),
    // Written data is safe in the page cache; a broker that takes longer is not worth the wait.
    stopWithinMs: 10_000,
    startAttempts: 2,
  };
}

const lightJvm = ['-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1'];

function serverProperties(dataDir: string, { broker, controller }: KafkaPorts): string {
  return `process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:${controller}
listeners=PLAINTEXT://127.0.0.1:${broker},CONTROLLER://127.0.0.1:${controller}
advertised.listeners=PLAINTEXT://127.0.0.1:${broker}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs=${dataDir}
auto.create.topics.enable=false
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
group.initial.rebalance.delay.ms=0
log.retention.hours=24
log.segment.bytes=67108864
`;
}

async function answersMetadata(broker: string): Promise<boolean> {
  await withAdmin(broker, (admin) => admin.describeCluster());
  return true;
}

/**
 * Creates the topics that are not there yet, and waits until each of their partitions is led. Tries again while the broker
 * `serves`: on a busy machine one that has just started may leave a connection or a request unanswered for too long.
 */
export async function createTopics(
  broker: string,
  wanted: readonly TopicSpec[],
  serves: () => boolean = () => true,
): Promise<void> {
  const make = (): Promise<boolean> =>
    createOnce(broker, wanted).then(
      () => true,
      (error: Error) => {
        throw serves() ? error : new GiveUp(error.message);
      },
    );
  await waitUntil(make, { withinMs: 60_000, everyMs: 500, what: 'the topics are there' });
}

async function createOnce(broker: string, wanted: readonly TopicSpec[]): Promise<void> {
  await withAdmin(broker, async (admin) => {
    await admin.createTopics({
      waitForLeaders: false,
      topics: wanted.map(({ topic, partitions, config }) => ({
        topic,
        numPartitions: partitions,
        replicationFactor: 1,
        configEntries: Object.entries(config).map(([name, value]) => ({ name, value })),
      })),
    });
    await untilTopicsAreLed(
      admin,
      wanted.map(({ topic }) => topic),
    );
  });
}

/**
 * Waits until the leader of every partition answers for it. kafkajs' own wait, `waitForLeaders`, gives up at the first
 * answer that does not know the topic yet, and metadata name a leader before it knows of its office: it refuses the
 * partition then, and a producer that is not idempotent writes again what the request's other partitions have taken.
 */
export async function untilTopicsAreLed(
  admin: Pick<Admin, 'fetchTopicMetadata' | 'fetchTopicOffsets'>,
  names: string[],
): Promise<void> {
  const areLed = async () => {
    const { topics } = await admin.fetchTopicMetadata({ topics: names });
    if (!topics.every(({ partitions }) => partitions.length > 0 && partitions.every(({ leader }) => leader >= 0))) {
      return false;
    }
    // Offsets are told by leaders alone.
    await Promise.all(names.map((name) => admin.fetchTopicOffsets(name)));
    return true;
  };
  await waitUntil(areLed, { withinMs: 30_000, what: `${names.join(', ')}: every partition is led` });
}

type Admin = ReturnType<Kafka['admin']>;

async function withAdmin<T>(broker: string, use: (admin: Admin) => Promise<T>): Promise<T> {
  const kafka = new Kafka({
    clientId: 'understudy-local',
    brokers: [broker],
    logLevel: logLevel.NOTHING,
    connectionTimeout: 1_000,
    retry: { retries: 0 },
  });
  const admin = kafka.admin();
  try {
    await admin.connect();
    return await use(admin);
  } finally {
    await admin.disconnect();
  }
}
