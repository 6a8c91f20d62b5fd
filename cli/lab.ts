/** `understudy lab`: records episodes of the reference service for training and evaluation. */
import { Command } from 'commander';
import type { Stack } from '../local/stack';

const wholeNumber = (text: string): number => {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0) throw new Error(`expected a whole number of 0 or more, got "${text}"`);
  return value;
};

interface RecordFlags {
  out: string;
  episodes: number;
  parallel: number;
  seed: number;
  kafka?: string;
}

async function ownKafka(signal: AbortSignal, log: (line: string) => void): Promise<Stack> {
  const { startStack } = await import('../local/stack.js');
  return startStack({ parts: ['kafka'], signal, onProgress: log });
}

/** The command group, to be added to the `understudy` program. */
export function labCommand(): Command {
  const lab = new Command('lab').description('Reference services, faults and recordings.');
  lab
    .command('record')
    .description('Run episodes of the reference service and record their telemetry. Goes on where it stopped.')
    .requiredOption('--out <dir>', 'folder of the recording')
    .option('--episodes <n>', 'how many', wholeNumber, 100)
    .option('--parallel <n>', 'episodes at a time; each is two instances', wholeNumber, 4)
    .option('--seed <n>', 'the same seed plans the same episodes', wholeNumber, 1)
    .option('--kafka <brokers>', 'host:port of a running Kafka; without it one is started for the recording')
    .action(async ({ kafka, ...options }: RecordFlags) => {
      const { record } = await import('../lab/record.js');
      const stop = new AbortController();
      process.once('SIGINT', () => stop.abort());
      process.once('SIGTERM', () => stop.abort());
      const log = (line: string): void => console.log(line);
      const stack = kafka === undefined ? await ownKafka(stop.signal, log) : undefined;
      try {
        const brokers = kafka ?? stack?.addresses.kafka ?? '';
        await record({ ...options, brokers, log, signal: stop.signal });
      } finally {
        await stack?.stop();
      }
    });
  return lab;
}
