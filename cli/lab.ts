/** `understudy lab`: records episodes of the reference services for training and evaluation. */
import { Command, Option } from 'commander';
import { paces, type Pace } from '../lab/chaos/plan';
import type { LabServers } from '../lab/chaos/recorder';

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
  pace: Pace;
}

async function startServers(
  parts: ('kafka' | 'postgres')[],
  signal: AbortSignal,
  log: (line: string) => void,
): Promise<LabServers> {
  if (parts.length === 0) return { stop: async () => undefined };
  const { startStack } = await import('../local/stack.js');
  const stack = await startStack({ parts, signal, onProgress: log });
  const [host = '127.0.0.1', port] = stack.addresses.kafka.split(':');
  return {
    ...(parts.includes('postgres') ? { postgresUrl: stack.addresses.postgresUrl } : {}),
    ...(parts.includes('kafka') ? { kafka: { host, port: Number(port) } } : {}),
    stop: () => stack.stop(),
  };
}

/** The command group, to be added to the `understudy` program. */
export function labCommand(): Command {
  const lab = new Command('lab').description('Reference services, faults and recordings.');
  lab
    .command('record')
    .description('Run episodes of the reference services and record them. Goes on where it stopped.')
    .requiredOption('--out <dir>', 'folder of the recording')
    .option('--episodes <n>', 'how many', wholeNumber, 100)
    .option('--parallel <n>', 'episodes at a time; each is one to four instances', wholeNumber, 4)
    .option('--seed <n>', 'the same seed plans the same episodes', wholeNumber, 1)
    .addOption(
      new Option('--pace <pace>', 'quick: faults soon after the start; slow: cells with a past, slower faults')
        .choices(paces)
        .default('quick'),
    )
    .action(async (options: RecordFlags) => {
      const { recordChaos } = await import('../lab/chaos/recorder.js');
      const stop = new AbortController();
      process.once('SIGINT', () => stop.abort());
      process.once('SIGTERM', () => stop.abort());
      const log = (line: string): void => console.log(line);
      await recordChaos({
        ...options,
        log,
        signal: stop.signal,
        // The recorder stops the servers itself, once the episodes that use them have ended.
        startServers: (parts) => startServers(parts, new AbortController().signal, log),
      });
    });
  return lab;
}
