/** One run: every arm of one fault and seed, side by side on the machine, from the first cell to the last figure. */
import { cpus, loadavg } from 'node:os';
import { join } from 'node:path';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { removeParents, removeRun } from '../../lab/chaos/limits';
import { prepareEnvoy } from '../../local/envoy';
import { releasePorts, reservePorts } from '../../local/ports';
import { waitUntil } from '../../local/wait';
import type { Arm } from './arm';
import { isUnderstudy, type ArmName } from './arms';
import { baselineS, type Case } from './cases';
import type { Ground } from './ground';
import { ReactiveArm } from './reactive-arm';
import { reactiveBootstrap } from './reactive-envoy';
import type { RunResult } from './result';
import { UnderstudyArm } from './understudy-arm';

const tickMs = 50;
const watchEveryMs = 200;
/** Answers that every service must have given before its callers come. */
const answersBefore = 8;

let runs = 0;

export async function playCase(
  ground: Ground,
  play: Case,
  armNames: readonly ArmName[],
  signal: AbortSignal,
): Promise<RunResult> {
  const startedMs = Date.now();
  const run = `${process.pid}-${++runs}`;
  const ports = await reservePorts(armNames.length + 1);
  const [adminPort = 0, ...own] = ports;
  const dir = join(ground.stack.dir, 'bench', run);
  const arms = armNames.map((name, index): Arm => {
    const context = { ground, play, run, port: own[index]! };
    return isUnderstudy(name) ? new UnderstudyArm(name, context) : new ReactiveArm(name, context, { dir, adminPort });
  });
  try {
    // One after the other: a dozen processes that start at once would make one another late.
    for (const arm of arms) {
      await arm.start();
      signal.throwIfAborted();
    }
    await startReactiveEnvoy(ground, run, dir, adminPort, arms);
    await Promise.all(arms.map(serves));
    await Promise.all(arms.map((arm) => arm.know()));
    const { busy } = await underLoad(play, arms, signal);
    const results = await Promise.all(arms.map(async (arm) => [arm.name, await arm.end()] as const));
    const { variant, ratePerSecond, cellCapacity } = play.deployment;
    return {
      fault: play.fault,
      seed: play.seed,
      mechanism: play.mechanism,
      predictable: play.predictable,
      service: variant.service,
      ratePerSecond,
      cellCapacity,
      sloMs: variant.sloMs,
      faultAtS: play.faultAtS,
      failureAtS: play.failureAtS,
      measuredFromS: baselineS,
      endS: play.endS,
      startedAt: new Date(startedMs).toISOString(),
      tookS: Math.round((Date.now() - startedMs) / 1000),
      machine: { cpus: cpus().length, busy: Math.round(100 * busy) / 100, loadAverage: loadavg() },
      arms: Object.fromEntries(results),
    };
  } finally {
    for (const arm of arms) arm.abandon();
    await Promise.allSettled(arms.map((arm) => arm.stop()));
    await ground.endRun();
    await Promise.allSettled(arms.map((arm) => arm.stopWays()));
    releasePorts(ports);
    removeRun(run);
    removeParents();
  }
}

async function startReactiveEnvoy(ground: Ground, run: string, dir: string, adminPort: number, arms: readonly Arm[]) {
  const services = arms.flatMap((arm) => (arm instanceof ReactiveArm ? [arm.behindEnvoy] : []));
  if (services.length === 0) return;
  const name = `reactive-envoy-${run}`;
  const spec = prepareEnvoy(name, dir, reactiveBootstrap(dir, adminPort, services), adminPort);
  ground.stopWithRun(await ground.stack.startAlso(spec));
}

/** Several answers, so that every instance has been found healthy and has given one. */
async function serves(arm: Arm): Promise<void> {
  await waitUntil(
    async () => {
      for (let i = 0; i < answersBefore; i++) if (!(await fetch(`${arm.url}/work?key=1`)).ok) return false;
      return true;
    },
    { withinMs: 60_000, everyMs: 200, what: `Envoy serves ${arm.service}` },
  );
}

/** The load of all arms over the time of the case, the fault in its time, and how busy the machine was. */
async function underLoad(play: Case, arms: readonly Arm[], signal: AbortSignal): Promise<{ busy: number }> {
  const orders = [...play.orders].sort((a, b) => a.atS - b.atS);
  const cpuBefore = cpuTicks();
  const beganMs = Date.now();
  for (const arm of arms) arm.startLoad();
  let isMeasured = false;
  for (let watchedMs = 0; ; await sleep(tickMs)) {
    signal.throwIfAborted();
    const nowMs = Date.now();
    const atS = (nowMs - beganMs) / 1000;
    if (atS >= play.endS) break;
    if (!isMeasured && atS >= baselineS) {
      isMeasured = true;
      for (const arm of arms) arm.measure();
    }
    for (let order = orders[0]; isMeasured && order && order.atS <= atS; order = orders[0]) {
      orders.shift();
      for (const arm of arms) arm.give(order);
    }
    if (nowMs - watchedMs >= watchEveryMs) {
      watchedMs = nowMs;
      for (const arm of arms) arm.watch();
    }
  }
  const cpuAfter = cpuTicks();
  return { busy: 1 - (cpuAfter.idle - cpuBefore.idle) / (cpuAfter.all - cpuBefore.all) };
}

/** Of the whole machine since its start, by the kernel. */
function cpuTicks(): { idle: number; all: number } {
  const line = readFileSync('/proc/stat', 'utf8').split('\n')[0] ?? '';
  const ticks = line.trim().split(/\s+/).slice(1, 9).map(Number);
  return { idle: (ticks[3] ?? 0) + (ticks[4] ?? 0), all: ticks.reduce((sum, n) => sum + n, 0) };
}
