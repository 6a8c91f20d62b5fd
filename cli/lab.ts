/** `understudy lab`: records episodes of the reference service for training and evaluation. */
import { Command } from 'commander';

const wholeNumber = (text: string): number => {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0) throw new Error(`expected a whole number of 0 or more, got "${text}"`);
  return value;
};

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
    .requiredOption('--kafka <brokers>', 'host:port of a running Kafka, for example that of `understudy up`')
    .action(async (options: { out: string; episodes: number; parallel: number; seed: number; kafka: string }) => {
      const { record } = await import('../lab/record.js');
      const stop = new AbortController();
      process.once('SIGINT', () => stop.abort());
      process.once('SIGTERM', () => stop.abort());
      const { kafka: brokers, ...rest } = options;
      await record({ ...rest, brokers, log: (line) => console.log(line), signal: stop.signal });
    });
  return lab;
}
