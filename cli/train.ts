/** `understudy train`: a model from a user's own telemetry and incidents, in the contract's formats. */
import { Command } from 'commander';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

interface TrainFlags {
  telemetry?: string;
  incidents?: string;
  recordings?: string;
  decoder?: string;
  step?: string;
  sloLatencyMs?: string;
  out: string;
  name: string;
  leaveOut: boolean;
}

/** The command, to be added to the `understudy` program. */
export function trainCommand(): Command {
  return new Command('train')
    .description(
      'Train a failure model on recorded telemetry and incidents. Needs Python 3; compare it with the model in use by ' +
        '`understudy evaluate --against` before it takes over.',
    )
    .option('--telemetry <file>', 'recorded telemetry, one record per line; plain, .gz or .br')
    .option('--incidents <file>', 'incidents, one JSON object per line')
    .option('--recordings <dirs>', 'instead: recordings of `understudy lab record`, separated by commas')
    .option('--decoder <name>', 'decoder of the telemetry; default: told from each record')
    .option('--step <seconds>', 'sampling step; default: what the records say')
    .option('--slo-latency-ms <ms>', 'latency objective of all cells; default: five times the usual p99 of each')
    .requiredOption('--out <dir>', 'folder for the model')
    .option('--name <name>', 'name of the model', 'own')
    .option('--leave-out', 'also fit without each fault and each service, for the model card', false)
    .action(async (flags: TrainFlags) => {
      const own = flags.telemetry !== undefined && flags.incidents !== undefined;
      if (own === (flags.recordings !== undefined)) {
        throw new Error('Give either --telemetry and --incidents, or --recordings.');
      }
      const { train } = await import('../models/training/train.js');
      const rows = mkdtempSync(join(tmpdir(), 'understudy-rows-'));
      try {
        await train({
          source: own
            ? [
                ...['--telemetry', flags.telemetry ?? '', '--incidents', flags.incidents ?? ''],
                ...(flags.decoder === undefined ? [] : ['--decoder', flags.decoder]),
                ...(flags.step === undefined ? [] : ['--step', flags.step]),
                ...(flags.sloLatencyMs === undefined ? [] : ['--slo-latency-ms', flags.sloLatencyMs]),
              ]
            : ['--recordings', flags.recordings ?? ''],
          rows,
          out: resolve(flags.out),
          name: flags.name,
          heldOutServices: [],
          heldOutEvery: 5,
          leaveOut: flags.leaveOut,
        });
      } finally {
        rmSync(rows, { recursive: true, force: true });
      }
    });
}
