/**
 * Runs one episode in a process of its own: `node dist/lab/chaos/episode-runner.js '<json RunnerArguments>'`. Writes the
 * episode's part file, whole or not at all, and leaves no process, mount or control group behind.
 */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import type { Peer } from '../contract';
import type { Order } from './catalogue';
import { failuresOf } from './failure';
import { incidentsOf, toColumns, type CellDescription, type EpisodePart, type TelemetryRecord } from './episode-file';
import { labMeans, removeRun } from './limits';
import { planEpisode, type EpisodePlan, type Pace, type TelemetryGap } from './plan';
import { RunningCell, type Servers } from './running-cell';

export interface RunnerArguments {
  seed: number;
  pace: Pace;
  number: number;
  /** Part file to be written. */
  out: string;
  /** Name of the run: of its control groups and its folder of file systems. */
  run: string;
  postgresUrl?: string;
  kafka?: Peer;
}

/** Sent to the parent process, the last one before the runner ends. */
export type RunnerMessage =
  | { kind: 'finished'; cells: number; samples: number; onsets: { cell: string; fault: string; afterS: number }[] }
  | { kind: 'skipped'; reason: string };

const tickMs = 250;
const startTogether = 2;

const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const iso = (ms: number): string => new Date(ms).toISOString();
/** More digits than any of these measurements carries. */
const compact = (value: number): number => Number(value.toPrecision(value >= 1e6 ? 4 : 3));

/** What the plan needs and this machine cannot do, as a sentence; undefined if it can all be done. */
export function missingMeans(plan: EpisodePlan): string | undefined {
  const { variant } = plan;
  const means = labMeans();
  if (variant.cpuQuota !== undefined && !means.cpu)
    return `${variant.id} needs a CPU quota, and this machine allows no control group for it (run as root).`;
  if (variant.memoryLimitBytes !== undefined && variant.service !== 'reports' && !means.memory) {
    return `${variant.id} needs a memory limit, and this machine allows no control group for it (run as root).`;
  }
  if (variant.diskBytes !== undefined && !means.mounts)
    return `${variant.id} needs a small file system, and this machine allows no mounts (run as root).`;
  return undefined;
}

/** Total microseconds in which some process waited for a CPU; 0 where the kernel does not say. */
function pressureUs(): number {
  try {
    return Number(/^some .*total=(\d+)/m.exec(readFileSync('/proc/pressure/cpu', 'utf8'))?.[1] ?? 0);
  } catch {
    return 0;
  }
}

/** What is left of the metrics of a step after what the collector lost; undefined if it lost all. */
function afterGaps(
  metrics: TelemetryRecord['metrics'],
  gaps: readonly TelemetryGap[],
  atS: number,
): TelemetryRecord['metrics'] | undefined {
  const lost = new Set<string>();
  for (const gap of gaps) {
    if (atS < gap.fromS || atS >= gap.toS) continue;
    if (gap.kind === 'outage') return undefined;
    for (const metric of gap.metrics) lost.add(metric);
  }
  const left = Object.entries(metrics).filter(([name, value]) => !lost.has(name) && Number.isFinite(value));
  return left.length > 0 ? Object.fromEntries(left.map(([name, value]) => [name, compact(value)])) : undefined;
}

function telemetryOf(cell: RunningCell, plan: EpisodePlan, loadStartedMs: number, untilMs: number): TelemetryRecord[] {
  const fromMs = loadStartedMs + 1000 * plan.settleS;
  const records: TelemetryRecord[] = [];
  for (const { instance, atMs, metrics } of cell.records.values()) {
    if (atMs < fromMs || atMs > untilMs) continue;
    const left = afterGaps(metrics, cell.plan.gaps, (atMs - loadStartedMs) / 1000);
    if (!left) continue;
    records.push({
      schema: 'understudy.telemetry/v1',
      cell: cell.plan.name,
      instance,
      ts: iso(atMs + cell.plan.jitterMs),
      interval_s: plan.stepMs / 1000,
      metrics: left,
      attrs: { service: plan.deployment },
    });
  }
  return records.sort((a, b) => (a.ts < b.ts ? -1 : a.ts > b.ts ? 1 : 0));
}

function describe(cell: RunningCell): CellDescription {
  const { plan, diedMs } = cell;
  const highest = (orders: readonly Order[]): number => Math.max(0, ...orders.map((o) => o.level));
  return {
    cell: plan.name,
    load: plan.load.mean,
    died: diedMs === undefined ? null : iso(diedMs),
    faults: plan.faults.map((f) => ({
      name: f.name,
      start_s: f.startS,
      shape: f.shape,
      mechanism: f.mechanism,
      level: compact(highest(f.orders.filter((o) => o.kind === f.mechanism))),
      expected_s: f.expectedS,
      predictable: f.predictable,
      shown_by: f.shownBy,
    })),
    look_alikes: plan.lookAlikes.map((e) => ({
      name: e.name,
      start_s: Math.round(10 * e.startS) / 10,
      end_s: e.endS === undefined ? null : Math.round(10 * e.endS) / 10,
    })),
    outages: plan.gaps
      .filter((g) => g.kind === 'outage')
      .map((g) => ({ from_s: Math.round(10 * g.fromS) / 10, to_s: Math.round(10 * g.toS) / 10 })),
  };
}

/** Calls `look` at each multiple of the step, until the returned function is called. */
function everyStep(stepMs: number, look: (atMs: number) => void): () => void {
  let timer: NodeJS.Timeout;
  const next = (): void => {
    const atMs = Math.floor(Date.now() / stepMs) * stepMs + stepMs;
    timer = setTimeout(
      () => {
        look(atMs);
        next();
      },
      Math.max(1, atMs - Date.now()),
    );
  };
  next();
  return () => clearTimeout(timer);
}

async function underLoad(plan: EpisodePlan, cells: readonly RunningCell[], signal: AbortSignal): Promise<EpisodePart> {
  const { stepMs, settleS, variant } = plan;
  for (const cell of cells) cell.startLoad();
  const loadStartedMs = Date.now();
  const fromMs = Math.ceil((loadStartedMs + 1000 * settleS) / stepMs) * stepMs;
  const pressureAtStart = pressureUs();
  const stopLooking = everyStep(stepMs, (atMs) => cells.forEach((cell) => cell.look(atMs)));
  const faulty = cells.filter((cell) => cell.plan.faults.length > 0);
  let endsMs = loadStartedMs + 1000 * plan.durationS;
  let sawFailure = false;
  for (let tick = 0; Date.now() < endsMs; tick++) {
    signal.throwIfAborted();
    const atS = (Date.now() - loadStartedMs) / 1000;
    for (const cell of cells) cell.advance(atS);
    if (!sawFailure && tick % 4 === 3) {
      // Steps younger than the objective are not final: an answer may still be on its way, and be in time.
      const settledMs = Date.now() - variant.sloMs;
      sawFailure = faulty.some((cell) => {
        const faultMs = loadStartedMs + 1000 * Math.min(...cell.plan.faults.map((f) => f.startS));
        return failuresOf(cell.load.measured(fromMs, settledMs), stepMs, cell.diedMs).some(
          ({ onsetMs, recoveredMs }) => onsetMs + stepMs > faultMs && recoveredMs === undefined,
        );
      });
      if (sawFailure) endsMs = Math.min(endsMs, Date.now() + 1000 * plan.afterOnsetS);
    }
    await wait(tickMs);
  }
  // The last steps are only known when their requests have had the time that the objective gives them.
  stopLooking();
  const endedMs = Math.floor(Date.now() / stepMs) * stepMs;
  const cpuPressure = (pressureUs() - pressureAtStart) / 1000 / (Date.now() - loadStartedMs);
  const measured = cells.map((cell) => toColumns(cell.plan.name, stepMs, cell.load.measured(fromMs, endedMs)));
  return {
    description: {
      episode: plan.number,
      seed: plan.seed,
      service: variant.service,
      variant: variant.id,
      deployment: plan.deployment,
      step_ms: stepMs,
      slo_ms: variant.sloMs,
      load_shape: variant.loadShape,
      load_started: iso(loadStartedMs),
      from: iso(fromMs),
      ended: iso(endedMs),
      cells: cells.map(describe),
      cpu_pressure: compact(cpuPressure),
    },
    measured,
    telemetry: cells.flatMap((cell) => telemetryOf(cell, plan, loadStartedMs, endedMs)),
  };
}

/** Runs the episode to its end; on an error, too, nothing of it goes on. */
export async function runEpisode(
  plan: EpisodePlan,
  run: string,
  servers: Servers,
  signal: AbortSignal,
): Promise<EpisodePart> {
  const cells: RunningCell[] = [];
  try {
    for (const cell of plan.cells) cells.push(new RunningCell(plan, cell, run, servers));
    for (let i = 0; i < cells.length; i += startTogether) {
      await Promise.all(cells.slice(i, i + startTogether).map((cell) => cell.start()));
      signal.throwIfAborted();
    }
    return await underLoad(plan, cells, signal);
  } finally {
    await Promise.allSettled(cells.map((cell) => cell.stop()));
    removeRun(run);
  }
}

export function writePart(file: string, part: EpisodePart): void {
  writeFileSync(`${file}.new`, gzipSync(JSON.stringify(part)));
  renameSync(`${file}.new`, file);
}

async function main(): Promise<void> {
  const given = JSON.parse(process.argv[2] ?? '{}') as RunnerArguments;
  const tell = (message: RunnerMessage): void => void process.send?.(message);
  const plan = planEpisode(given.seed, given.number, given.pace);
  const missing = missingMeans(plan);
  if (missing !== undefined) {
    tell({ kind: 'skipped', reason: missing });
    return;
  }
  const stop = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => stop.abort());
  // The recorder is no more: what it wanted is of no use to anybody.
  process.on('disconnect', () => stop.abort());
  const part = await runEpisode(plan, given.run, { postgresUrl: given.postgresUrl, kafka: given.kafka }, stop.signal);
  writePart(given.out, part);
  tell({
    kind: 'finished',
    cells: plan.cells.length,
    samples: part.telemetry.length,
    onsets: incidentsOf(part).map(({ cell, fault, fault_start, onset }) => ({
      cell,
      fault,
      afterS: (Date.parse(onset) - Date.parse(fault_start)) / 1000,
    })),
  });
}

if (require.main === module) {
  main().then(
    () => process.exit(0),
    (error: Error) => {
      process.stderr.write(`${error.stack ?? error.message}\n`);
      process.exit(1);
    },
  );
}
