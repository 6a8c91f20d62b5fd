/** Records episodes of the chaos lab: plans them, runs each in a process of its own, several at a time, and writes the files. */
import { fork } from 'node:child_process';
import { join, resolve } from 'node:path';
import { packageRoot } from '../../package-root';
import type { Peer } from '../contract';
import { needsServer } from './catalogue';
import type { RunnerArguments, RunnerMessage } from './episode-runner';
import { removeParents, removeRun, sweepOldRuns } from './limits';
import { planEpisode, type EpisodePlan, type Pace } from './plan';
import { ChaosFolder } from './recording-folder';

export interface RecordOptions {
  out: string;
  episodes: number;
  /** Episodes at a time. */
  parallel: number;
  seed: number;
  pace: Pace;
  log: (line: string) => void;
  signal: AbortSignal;
  /** Starts what the missing episodes need of these, once. */
  startServers: (wanted: ('kafka' | 'postgres')[]) => Promise<LabServers>;
}

export interface LabServers {
  postgresUrl?: string;
  kafka?: Peer;
  stop: () => Promise<void>;
}

/** Episodes that start in the same second would all load the machine with their starts. */
const betweenStartsMs = 1500;
/** Quality 11 makes the files a fifth smaller and takes minutes. */
const assembleQuality = 9;

const sentenceOf = ({ number, variant, cells }: EpisodePlan): string => {
  const faults = cells.flatMap((cell) => cell.faults.map(({ name }) => name));
  return `${number} (${variant.id}, ${cells.length} cells${faults.length > 0 ? `, ${faults.join(' and ')}` : ''})`;
};

const minutes = (ms: number): string => `${Math.max(0, ms / 60_000).toFixed(1)} min`;

/** Resolves to the runner's last message; rejects with what it said on its way down. */
function runInProcess(given: RunnerArguments, signal: AbortSignal): Promise<RunnerMessage> {
  return new Promise((resolve, reject) => {
    const child = fork(join(packageRoot, 'dist', 'lab', 'chaos', 'episode-runner.js'), [JSON.stringify(given)], {
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    });
    let last: RunnerMessage | undefined;
    let stderr = '';
    const stop = (): void => void child.kill('SIGTERM');
    signal.addEventListener('abort', stop, { once: true });
    child.on('message', (message) => (last = message as RunnerMessage));
    child.stderr?.on('data', (chunk: Buffer) => (stderr = (stderr + chunk.toString()).slice(-4000)));
    child.on('error', reject);
    child.on('exit', (code, killedBy) => {
      signal.removeEventListener('abort', stop);
      // Only what a killed runner could not clean up itself.
      removeRun(given.run);
      if (last) resolve(last);
      else reject(new Error(stderr.trim() || `its process ended with ${killedBy ?? code}`));
    });
  });
}

/** Records what is still missing of the episodes 0 to `episodes` - 1 into the folder, then writes its files. */
export async function recordChaos(options: RecordOptions): Promise<void> {
  const { episodes, parallel, seed, pace, log, signal } = options;
  const folder = new ChaosFolder(resolve(options.out));
  for (const run of sweepOldRuns()) log(`Cleaned up after the recording ${run}, which had been killed.`);
  for (const [number, reason] of folder.dropSpoilt()) log(`Episode ${number} is recorded anew: ${reason}.`);
  const missing = Array.from({ length: episodes }, (_, n) => n).filter((n) => !folder.has(n));
  const wanted = [...new Set(missing.map((n) => needsServer(planEpisode(seed, n, pace).variant.service)))];
  log(`Recording ${missing.length} of ${episodes} episodes, seed ${seed}, ${parallel} at a time.`);
  const servers = await options.startServers(wanted.filter((server) => server !== undefined));
  const startedMs = Date.now();
  const total = missing.length;
  const onsets = new Map<string, number>();
  let done = 0;
  let failing = 0;
  let nextStartMs = 0;

  const one = async (number: number): Promise<void> => {
    const plan = planEpisode(seed, number, pace);
    const run = `${process.pid}-${number}`;
    const { postgresUrl, kafka } = servers;
    const given: RunnerArguments = {
      seed,
      pace,
      number,
      out: folder.partOf(number),
      run,
      ...(postgresUrl === undefined ? {} : { postgresUrl }),
      ...(kafka === undefined ? {} : { kafka }),
    };
    let outcome: string;
    try {
      const message = await runInProcess(given, signal);
      if (message.kind === 'skipped') outcome = `was skipped: ${message.reason}`;
      else {
        if (message.onsets.length > 0) failing++;
        for (const { fault } of message.onsets) onsets.set(fault, (onsets.get(fault) ?? 0) + 1);
        const failures = message.onsets.map(
          ({ cell, fault, afterS }) => `${cell} ${fault} after ${afterS.toFixed(1)} s`,
        );
        outcome = `${message.samples} records; ${failures.join(', ') || 'no failure'}`;
      }
    } catch (error) {
      if (signal.aborted) return;
      outcome = `was left out: ${(error as Error).message}`;
    }
    done++;
    const left = ((Date.now() - startedMs) / done) * (total - done);
    log(`${done}/${total} (${failing} failing, ${minutes(left)} to go): ${sentenceOf(plan)}: ${outcome}`);
    if (done % 50 === 0) {
      const counts = [...onsets].sort((a, b) => b[1] - a[1]).map(([fault, n]) => `${fault} ${n}`);
      log(`Failures so far: ${counts.join(', ')}.`);
    }
  };
  const worker = async (): Promise<void> => {
    for (let number = missing.shift(); number !== undefined && !signal.aborted; number = missing.shift()) {
      const startMs = Math.max(Date.now(), nextStartMs);
      nextStartMs = startMs + betweenStartsMs;
      await new Promise((resolve) => setTimeout(resolve, startMs - Date.now()));
      if (!signal.aborted) await one(number);
    }
  };
  try {
    await Promise.all(Array.from({ length: parallel }, worker));
  } finally {
    await servers.stop();
    removeParents();
  }
  if (signal.aborted) {
    log(`Stopped after ${done} of ${total} episodes; the same command goes on from there.`);
    return;
  }
  await assembleRecording(folder, options);
}

async function assembleRecording(
  folder: ChaosFolder,
  { seed, episodes, parallel, pace, log }: RecordOptions,
): Promise<void> {
  log('Writing the files.');
  const command = `understudy lab record --out DIR --episodes ${episodes} --parallel ${parallel} --seed ${seed}${pace === 'quick' ? '' : ` --pace ${pace}`}`;
  const { kept, leftOut } = await folder.assemble(command, assembleQuality);
  for (const [number, reason] of leftOut) log(`Episode ${number} is left out: ${reason}.`);
  log(`${folder.dir} holds ${kept.length} episodes.`);
}
