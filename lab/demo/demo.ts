/** `npm run demo`: plays the four acts, tells them as they happen, and leaves the report behind. */
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import { formatStack } from '../../local/stack';
import { packageRoot } from '../../package-root';
import { leakOfTheOwner, leakThatStops, leakToDeath, leakUnpredicted } from './acts';
import { cellCapacityRps, demoRatePerSecond, demoSloMs } from './documents';
import { formatTable, reportRows, type ActReport, type DemoReport } from './report';
import { renderReport } from './report-html';
import { Stage } from './stage';

export interface DemoOptions {
  /** Leave the stack running until Ctrl-C. */
  keep: boolean;
  /** Where demo-report.json and demo-report.html go. */
  outDir: string;
}

function modelName(manifestFile: string): string {
  const { model, version } = JSON.parse(readFileSync(manifestFile, 'utf8')) as { model: string; version: string };
  return `${model} ${version}`;
}

/** Plays the demo until its end or the signal's. True if it was played to its end. */
async function playDemo({ keep, outDir }: DemoOptions, ending: AbortSignal): Promise<boolean> {
  const begun = Date.now();
  const say = (text: string): void => console.log(text);
  say('Setting the stage: Kafka, Temporal, Postgres, the control plane, both workers and Envoy.');
  const stage = await Stage.open({ tell: say, progress: say, signal: ending });
  try {
    const interruption = once(ending, 'abort').then(() => 'interrupted' as const);
    say(formatStack(stage.stack));
    const acts: ActReport[] = [];
    for (const play of [leakToDeath, leakThatStops, leakUnpredicted, leakOfTheOwner]) {
      say('');
      const ended = ending.aborted ? 'interrupted' : await Promise.race([play(stage), interruption]);
      if (ended === 'interrupted') return false;
      acts.push(ended);
      await stage.clear(ended.service);
    }
    const report: DemoReport = {
      startedAt: new Date(begun).toISOString(),
      tookS: (Date.now() - begun) / 1000,
      load: {
        ratePerSecond: demoRatePerSecond,
        sloMs: demoSloMs,
        cellCapacityRps,
        model: modelName(stage.stack.settings.scoring.modelManifest),
      },
      acts,
    };
    say(`\n${formatTable(reportRows(report))}\n`);
    for (const [file, text] of [
      ['demo-report.json', JSON.stringify(report, null, 2)],
      ['demo-report.html', renderReport(report)],
    ] as const) {
      writeFileSync(join(outDir, file), text);
      say(`Written: ${file}`);
    }
    if (keep) {
      say(`\nThe stack stays up; stop it with Ctrl-C.\n${formatStack(stage.stack)}`);
      await interruption;
    }
    return true;
  } finally {
    say('Stopping everything.');
    await stage.close();
  }
}

async function main(): Promise<void> {
  const program = new Command('demo')
    .description('Four acts on the real servers; ends with a table, demo-report.json and demo-report.html.')
    .option('--keep', 'leave the stack up afterwards, until Ctrl-C', false)
    .option('--out <dir>', 'where the report goes', packageRoot)
    .parse();
  const { keep, out } = program.opts<{ keep: boolean; out: string }>();
  const ending = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => ending.abort());
  const played = await playDemo({ keep, outDir: out }, ending.signal).catch((error: unknown) => {
    if (ending.signal.aborted) return false;
    throw error;
  });
  if (!played) process.exitCode = 130;
}

main().catch((error: unknown) => {
  console.error(error instanceof Error ? (error.stack ?? error.message) : String(error));
  process.exitCode = 1;
});
