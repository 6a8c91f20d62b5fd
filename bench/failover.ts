/**
 * What failing costs callers, arm beside arm: `npm run bench:failover [-- --faults a,b --arms a,e --seeds 5 --out DIR]`. One
 * line of JSON per run in DIR/runs.ndjson; runs that are there already are not run again. Ends with a table and a page.
 */
import { appendFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { sweepOldRuns } from '../lab/chaos/limits';
import { packageRoot } from '../package-root';
import { armNames, isUnderstudy, type ArmName } from './failover/arms';
import { caseOf, faultNames, type Case, type FaultName } from './failover/cases';
import { Ground } from './failover/ground';
import { untilQuiet } from './failover/machine';
import { DisturbedError, playCase } from './failover/play';
import type { RunResult } from './failover/result';
import { publish, readRunLines } from './failover/publish';
import { fullReport } from './failover/report';
import { reportPage } from './failover/report-html';
import { remainingS, scheduleOf } from './failover/schedule';

/** How often a run that the machine disturbed is begun, and how long a quiet moment is waited for. */
const attempts = 10;
const quietWithinS = 300;

const say = (text: string): void => void process.stdout.write(`${text}\n`);

interface Wanted {
  faults: FaultName[];
  arms: ArmName[];
  seeds: number;
  /** A run begins when others leave the machine at most this busy, 0 to 1. */
  quiet: number;
  out: string;
  /** Make no runs: only the report of those that are there. */
  reportOnly: boolean;
  /** Also into bench/results, docs/ and the README. */
  publish: boolean;
}

function listFlag<T extends string>(flag: string, text: string | undefined, all: readonly T[]): T[] {
  if (text === undefined) return [...all];
  return text.split(',').map((name) => {
    if (!(all as readonly string[]).includes(name)) throw new Error(`--${flag}: ${name} is none of ${all.join(', ')}`);
    return name as T;
  });
}

function readWanted(): Wanted {
  const { values } = parseArgs({
    options: {
      faults: { type: 'string' },
      arms: { type: 'string' },
      seeds: { type: 'string', default: '5' },
      out: { type: 'string', default: join(packageRoot, '.runs', 'bench-failover') },
      quiet: { type: 'string', default: '0.5' },
      'report-only': { type: 'boolean', default: false },
      publish: { type: 'boolean', default: false },
    },
  });
  const seeds = Number(values.seeds);
  if (!(Number.isInteger(seeds) && seeds >= 1)) throw new Error(`--seeds: ${values.seeds} is no number of seeds`);
  return {
    faults: listFlag('faults', values.faults, faultNames),
    arms: listFlag('arms', values.arms, armNames),
    seeds,
    quiet: Number(values.quiet),
    out: values.out,
    reportOnly: values['report-only'],
    publish: values.publish,
  };
}

function readRuns(file: string): RunResult[] {
  if (!existsSync(file)) return [];
  return readRunLines(readFileSync(file, 'utf8'));
}

async function playAll(wanted: Wanted, file: string, ending: AbortSignal): Promise<void> {
  const done = readRuns(file);
  const planned = scheduleOf(wanted, done);
  if (planned.length === 0) return;
  for (const old of sweepOldRuns()) say(`Removed what run ${old} had left behind.`);
  say(`${planned.length} runs of arms ${wanted.arms.join(', ')}; ${done.length} are in ${file} already.`);
  const ground = await Ground.open(wanted.arms.some(isUnderstudy), say, ending);
  try {
    for (const [index, { fault, seed }] of planned.entries()) {
      const play = caseOf(fault, seed);
      const left = remainingS(
        planned.length - index,
        readRuns(file).map((r) => r.tookS),
      );
      say(
        `[${index + 1}/${planned.length}] ${fault}, seed ${seed}: ${play.mechanism}; about ${Math.ceil(left / 60)} min left`,
      );
      const result = await undisturbed(ground, play, wanted, ending);
      if (!result) continue;
      appendFileSync(file, `${JSON.stringify(result)}\n`);
      for (const [arm, r] of Object.entries(result.arms)) {
        say(`    ${arm}: ${r.failed} failed, ${r.overSlo} late of ${r.requests}; p99 ${r.p99Ms} ms`);
      }
      const { busy, pressure } = result.machine;
      say(
        `    machine ${Math.round(100 * busy)} % busy, waited for in ${pressure ?? '?'} of the time; took ${result.tookS} s`,
      );
    }
  } finally {
    await ground.close();
  }
}

/** The run in a quiet moment of the machine; null if none comes: the next call will try again. */
async function undisturbed(ground: Ground, play: Case, wanted: Wanted, ending: AbortSignal): Promise<RunResult | null> {
  for (let attempt = 1; attempt <= attempts; attempt++) {
    await untilQuiet(wanted.quiet, quietWithinS, ending);
    try {
      return await playCase(ground, play, wanted.arms, ending);
    } catch (error) {
      if (!(error instanceof DisturbedError)) throw error;
      say(`    attempt ${attempt}: ${error.message}`);
    }
  }
  say('    left out for now; call again to make up for it.');
  return null;
}

async function main(): Promise<void> {
  const wanted = readWanted();
  mkdirSync(wanted.out, { recursive: true });
  const file = join(wanted.out, 'runs.ndjson');
  const ending = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => ending.abort());
  if (!wanted.reportOnly) await playAll(wanted, file, ending.signal);
  const runs = readRuns(file);
  if (runs.length === 0) return;
  const report = fullReport(runs);
  say(`\n${report}`);
  writeFileSync(join(wanted.out, 'failover-table.md'), report);
  writeFileSync(join(wanted.out, 'failover-table.html'), reportPage(runs));
  say(`Written: ${join(wanted.out, 'failover-table.html')}`);
  if (wanted.publish) publish(runs);
}

main().catch((error: unknown) => {
  process.stderr.write(`bench:failover: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
  process.exitCode = 1;
});
