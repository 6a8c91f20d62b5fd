/** `understudy demo`: plays the three acts, tells them as they happen, and leaves the report behind. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { formatStack } from '../../local/stack';
import { leakThatStops, leakToDeath, leakUnpredicted } from './acts';
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

/** Plays the demo; resolves with the process's exit code. */
export async function playDemo({ keep, outDir }: DemoOptions): Promise<number> {
  const begun = Date.now();
  const say = (text: string): void => console.log(text);
  say('Setting the stage: Kafka, Temporal, Postgres, the control plane, both workers and Envoy.');
  const stage = await Stage.open({ tell: say, progress: say });
  let interrupted = false;
  const interruption = new Promise<'interrupted'>((resolve) => {
    const stop = (): void => {
      interrupted = true;
      resolve('interrupted');
    };
    process.once('SIGINT', stop);
    process.once('SIGTERM', stop);
  });
  try {
    say(formatStack(stage.stack));
    const acts: ActReport[] = [];
    for (const play of [leakToDeath, leakThatStops, leakUnpredicted]) {
      say('');
      const ended = await Promise.race([play(stage), interruption]);
      if (ended === 'interrupted') {
        say('Interrupted: stopping everything.');
        return 130;
      }
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
    return interrupted && !keep ? 130 : 0;
  } finally {
    await stage.close();
  }
}
