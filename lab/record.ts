/** Records episodes of the reference service for training: real processes, load, faults and telemetry by way of Kafka. */
import { Kafka, logLevel, type Consumer } from 'kafkajs';
import { createDecoders } from '../prediction/decode/detect';
import type { Sample } from '../prediction/contracts';
import { runEpisode, type EpisodeSurroundings } from './episode';
import { planEpisode, type EpisodePlan } from './episode-plan';
import { HostAgent } from './host-agent';
import { KafkaSink } from './kafka-sink';
import { RecordingFolder } from './recording';
import { jsonTopic, otlpTopic } from './topics';

export interface RecordOptions {
  out: string;
  episodes: number;
  parallel: number;
  seed: number;
  /** host:port of a running Kafka. */
  brokers: string;
  log: (line: string) => void;
  signal: AbortSignal;
}

/** Decodes the telemetry topics exactly as the scoring worker does, and keeps the samples per cell. */
async function collectSamples(
  kafka: Kafka,
  log: RecordOptions['log'],
): Promise<{ consumer: Consumer; byCell: Map<string, Sample[]> }> {
  const admin = kafka.admin();
  await admin.connect();
  await admin.createTopics({ topics: [otlpTopic, jsonTopic].map((topic) => ({ topic, numPartitions: 4 })) });
  await admin.disconnect();
  const decoders = createDecoders();
  const byCell = new Map<string, Sample[]>();
  const consumer = kafka.consumer({ groupId: `understudy-lab-record-${process.pid}` });
  await consumer.connect();
  await consumer.subscribe({ topics: [otlpTopic, jsonTopic], fromBeginning: false });
  const joined = new Promise<void>((resolve) => void consumer.on(consumer.events.GROUP_JOIN, () => resolve()));
  await consumer.run({
    eachMessage: async ({ topic, message }) => {
      if (!message.value) return;
      const { samples, problems } = decoders[topic === otlpTopic ? 'otlp' : 'understudy-json'](message.value);
      for (const { reason, detail } of problems) log(`A record on ${topic} was not understood (${reason}): ${detail}`);
      for (const sample of samples) {
        const known = byCell.get(sample.cell);
        if (known) known.push(sample);
        else byCell.set(sample.cell, [sample]);
      }
    },
  });
  await joined;
  return { consumer, byCell };
}

function sentenceOf(plan: EpisodePlan): string {
  const first = plan.leakOrders.find((o) => o.bytesPerSecond > 0);
  const leak = first ? `, ${first.shape} leak of ${Math.round(first.bytesPerSecond / 1024)} KiB/s` : '';
  return `${plan.kind}, heap ${plan.heapLimitMib} MiB, ${plan.load.shape} load of ${Math.round(plan.load.from)}/s${leak}`;
}

/** Records what is still missing of the episodes 0 to `episodes` - 1 into the folder, then writes its files. */
export async function record(options: RecordOptions): Promise<void> {
  const { log, signal } = options;
  const folder = new RecordingFolder(options.out);
  const missing = Array.from({ length: options.episodes }, (_, n) => n).filter((n) => !folder.has(n));
  log(
    `Recording ${missing.length} of ${options.episodes} episodes, seed ${options.seed}, ${options.parallel} at a time.`,
  );
  const kafka = new Kafka({
    clientId: 'understudy-lab',
    brokers: options.brokers.split(','),
    logLevel: logLevel.ERROR,
  });
  const { consumer, byCell } = await collectSamples(kafka, log);
  const around: EpisodeSurroundings = {
    brokers: options.brokers,
    hostAgent: new HostAgent(),
    hostSink: new KafkaSink(options.brokers.split(','), 'lab-host-agent', jsonTopic),
    takeSamples(cell) {
      const samples = byCell.get(cell) ?? [];
      byCell.delete(cell);
      return samples;
    },
    signal,
  };
  let done = 0;
  const worker = async (): Promise<void> => {
    for (let number = missing.shift(); number !== undefined && !signal.aborted; number = missing.shift()) {
      const plan = planEpisode(options.seed, number);
      try {
        const episode = await runEpisode(plan, around);
        folder.save(episode);
        const died = episode.diedMs.filter((ms) => ms !== null).length;
        log(
          `Episode ${number} (${sentenceOf(plan)}): ${episode.samples.length} samples, ${died} dead; ${++done} done.`,
        );
      } catch (error) {
        if (!signal.aborted) log(`Episode ${number} was left out: ${(error as Error).message}`);
      }
    }
  };
  try {
    await Promise.all(Array.from({ length: options.parallel }, worker));
  } finally {
    await around.hostSink.stop();
    await consumer.disconnect();
  }
  const { kept, leftOut } = folder.assemble();
  for (const [number, reason] of Object.entries(leftOut)) log(`Episode ${number} is left out: ${reason}.`);
  log(`${options.out} holds ${kept.length} episodes.`);
}
