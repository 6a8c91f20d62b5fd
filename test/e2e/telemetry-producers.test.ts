/** Telemetry as others write it to a real Kafka: collectd from Debian, and every compression by librdkafka and by the broker. */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { CompressionCodecs, Kafka, logLevel, type Consumer, type KafkaMessage } from 'kafkajs';
import { policySchema } from '../../blueprints/schema';
import { settingsSchema } from '../../blueprints/settings';
import { untilTopicsAreLed } from '../../local/kafka';
import { startStack, type Stack } from '../../local/stack';
import { waitUntil } from '../../local/wait';
import { StoreCellDirectory } from '../../prediction/cell-directory';
import { registerCompression } from '../../prediction/compression';
import type { Sample } from '../../prediction/contracts';
import { Counters } from '../../prediction/counters';
import { Intake } from '../../prediction/intake';

const collectd = '/usr/sbin/collectd';
const host = 'cell-a-node-1';

/** The configuration declares the host as an instance of the cell; the telemetry itself knows of no cells. */
const directory = new StoreCellDirectory({
  services: async () => [
    {
      name: 'checkout',
      spec: { slo: { latencyMs: 250, errorRatio: 0.05 }, policy: policySchema.parse({ autonomy: 'observe' }) },
    } as never,
  ],
  cells: async () => [
    {
      name: 'cell-a',
      service: 'checkout',
      role: 'primary',
      state: 'active',
      instances: [{ name: host, address: '10.0.0.7', port: 8080 }],
    } as never,
  ],
});

function intakeOf(topic: string, decoder: string) {
  const { kafka, scoring } = settingsSchema
    .pick({ kafka: true, scoring: true })
    .parse({ kafka: { brokers: ['unused:1'], telemetry: [{ topic, decoder }] } });
  const counters = new Counters();
  const intake = new Intake({ telemetry: kafka.telemetry, scoring, directory, counters, now: Date.now });
  return { intake, counters };
}

/** collectd with the Kafka library that it loads at run time, from Debian; undefined if it cannot be had here. */
function installCollectd(): string | undefined {
  const isThere = () => existsSync(collectd) && existsSync('/usr/lib/collectd/write_kafka.so');
  if (isThere()) return collectd;
  if (process.getuid?.() !== 0 || !existsSync('/usr/bin/apt-get')) return undefined;
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  const apt = (...args: string[]) =>
    execFileSync('apt-get', ['-qq', ...args], { env, stdio: 'ignore', timeout: 90_000 });
  try {
    apt('update');
    apt('install', '-y', '--no-install-recommends', 'collectd-core', 'librdkafka1');
  } catch {
    return undefined;
  }
  return isThere() ? collectd : undefined;
}

describe('Telemetry of real producers', function () {
  this.timeout(180_000);
  let stack: Stack;
  let kafka: Kafka;
  let dir: string;
  const consumers: Consumer[] = [];
  const children: ChildProcess[] = [];
  /** Which codecs have been asked for: that a producer was told to compress does not mean that it did. */
  const unpacked = new Set<string>();

  before(async () => {
    registerCompression();
    for (const [name, type] of [['snappy', 2] as const, ['lz4', 3] as const, ['zstd', 4] as const]) {
      const codec = CompressionCodecs[type] as () => unknown;
      CompressionCodecs[type] = () => {
        unpacked.add(name);
        return codec();
      };
    }
    dir = mkdtempSync(join(tmpdir(), 'understudy-producers-'));
    stack = await startStack({ parts: ['kafka'] });
    kafka = new Kafka({ brokers: stack.settings.kafka.brokers, logLevel: logLevel.NOTHING });
    await directory.refresh();
  });

  after(async () => {
    for (const child of children) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      child.kill('SIGTERM');
      await once(child, 'exit');
    }
    await Promise.all(consumers.map((consumer) => consumer.disconnect()));
    await stack?.stop();
    rmSync(dir, { recursive: true, force: true });
  });

  async function createTopic(topic: string, compression = 'producer'): Promise<void> {
    const admin = kafka.admin();
    await admin.connect();
    const configEntries = [{ name: 'compression.type', value: compression }];
    await admin.createTopics({ topics: [{ topic, numPartitions: 2, configEntries }], waitForLeaders: false });
    await untilTopicsAreLed(admin, [topic]);
    await admin.disconnect();
  }

  async function consume(topic: string, take: (message: KafkaMessage, partition: number) => Promise<void>) {
    const consumer = kafka.consumer({ groupId: `read-${topic}`, maxWaitTimeInMs: 100 });
    consumers.push(consumer);
    await consumer.connect();
    await consumer.subscribe({ topics: [topic], fromBeginning: true });
    await consumer.run({ eachMessage: ({ message, partition }) => take(message, partition) });
  }

  it("reads collectd's own records, compressed by librdkafka, as CPU, memory, disk and network of the cell that declares its host", async function () {
    // Installing it may take as long as all the rest.
    this.timeout(360_000);
    const program = installCollectd();
    if (!program) {
      process.emitWarning(
        'collectd is not installed and cannot be (no root or no apt): its end-to-end test was SKIPPED.',
      );
      return this.skip();
    }
    const topic = 'collectd-snappy';
    const others = ['collectd-lz4', 'collectd-zstd'];
    for (const name of [topic, ...others]) await createTopic(name);
    const config = join(dir, 'collectd.conf');
    writeFileSync(config, collectdConfig(dir, [topic, ...others], stack.settings.kafka.brokers.join(',')));
    const child = spawn(program, ['-f', '-C', config], { stdio: 'ignore' });
    children.push(child);
    const { intake, counters } = intakeOf(topic, 'detect');
    const samples: Sample[] = [];
    await consume(topic, async ({ value, key, headers, offset, timestamp }, partition) => {
      const record = { value, key, headers: headers ?? {}, offset: Number(offset), timestampMs: Number(timestamp) };
      samples.push(...(await intake.read({ topic, partition }, record, false)).samples);
    });
    const wanted = [
      'cpu.utilization',
      'memory.used_bytes',
      'memory.limit_bytes',
      'disk.used_bytes',
      'disk.limit_bytes',
    ];
    await waitUntil(() => wanted.every((metric) => samples.some((s) => s.metric === metric)), {
      withinMs: 60_000,
      what: 'canonical metrics from collectd',
    });
    const newest = (metric: string) => samples.filter((s) => s.metric === metric).at(-1)?.value ?? NaN;
    expect(samples.every((s) => s.cell === 'cell-a' && s.instance === host)).to.equal(true);
    expect(newest('cpu.utilization')).to.be.within(0, 1);
    expect(newest('memory.used_bytes')).to.be.within(1e6, newest('memory.limit_bytes'));
    expect(newest('disk.used_bytes')).to.be.at.most(newest('disk.limit_bytes'));
    expect(Object.keys(counters.all()).filter((name) => name.startsWith('problem.'))).to.deep.equal([]);
    for (const other of others) {
      const read: unknown[] = [];
      await consume(other, async ({ value }) => void read.push(JSON.parse(value?.toString() ?? '')));
      await waitUntil(() => read.length > 20, { withinMs: 40_000, what: `records on ${other}` });
    }
    expect([...unpacked].sort()).to.deep.equal(['lz4', 'snappy', 'zstd']);
  });

  it('reads what the broker itself compressed with gzip, snappy, lz4 and zstd, byte for byte', async () => {
    // Long enough, and repetitive enough, that every codec really has something to refer back to.
    const lines = Array.from(
      { length: 4000 },
      (_, i) => `net,host=${host},interface=eth0 bytes_recv=${i * 7919}i ${i}000000000`,
    );
    const codecs = ['gzip', 'snappy', 'lz4', 'zstd'];
    const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 });
    await producer.connect();
    for (const codec of codecs) {
      const topic = `by-broker-${codec}`;
      await createTopic(topic, codec);
      await producer.send({ topic, messages: lines.map((value) => ({ value, partition: 0 })) });
      const read: string[] = [];
      await consume(topic, async ({ value }) => void read.push(value?.toString() ?? ''));
      await waitUntil(() => read.length >= lines.length, { withinMs: 40_000, what: `records with ${codec}` });
      expect(read, codec).to.deep.equal(lines);
    }
    await producer.disconnect();
  });

  it('dead-letters a batch that would become too large, with the reason, and reads on behind it', async () => {
    const topic = 'bombs';
    await createTopic(topic);
    const { intake } = intakeOf(topic, 'detect');
    const reasons: string[] = [];
    let reachedEnd = false;
    await consume(topic, async ({ value, key, headers, offset, timestamp }, partition) => {
      if (value?.toString() === 'the end') reachedEnd = true;
      const record = { value, key, headers: headers ?? {}, offset: Number(offset), timestampMs: Number(timestamp) };
      const { letter } = await intake.read({ topic, partition }, record, false);
      if (letter) reasons.push(`${letter.reason}: ${letter.detail}`);
    });
    const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 });
    await producer.connect();
    const bomb = Buffer.alloc(80 * 1024 * 1024);
    await producer.send({ topic, compression: 1, messages: [{ partition: 0, value: bomb }] });
    await producer.send({ topic, messages: [{ partition: 0, value: 'the end' }] });
    await producer.disconnect();
    await waitUntil(() => reachedEnd, { withinMs: 30_000, what: 'the record behind the bomb' });
    expect(reasons[0]).to.match(/^bad-compression: a gzip batch of \d+ bytes: /);
  });
});

function collectdConfig(dir: string, topics: readonly string[], brokers: string): string {
  return `
Hostname "${host}"
FQDNLookup false
Interval 1
BaseDir "${dir}"
PIDFile "${join(dir, 'collectd.pid')}"
PluginDir "/usr/lib/collectd"
TypesDB "/usr/share/collectd/types.db"
LoadPlugin cpu
LoadPlugin memory
LoadPlugin df
LoadPlugin interface
LoadPlugin load
LoadPlugin write_kafka
<Plugin cpu>
  ReportByCpu true
  ValuesPercentage true
</Plugin>
<Plugin write_kafka>
  Property "metadata.broker.list" "${brokers}"
${topics.map(collectdTopic).join('')}</Plugin>
`;
}

/** A topic's name ends with its compression; each topic takes the properties that stand before it. */
function collectdTopic(topic: string): string {
  return `  Property "compression.codec" "${topic.split('-').at(-1)}"
  <Topic "${topic}">
    Format JSON
    Key "${host}"
  </Topic>
`;
}
