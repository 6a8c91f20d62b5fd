/** One run: every arm of one fault and seed, side by side on the machine, from the first cell to the last figure. */
import { join } from 'node:path';
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
import { reactiveBootstrap, writeHosts } from './reactive-envoy';
import { watchMachine } from './machine';
import type { Machine, RunResult } from './result';
import { UnderstudyArm } from './understudy-arm';

const tickMs = 50;
const watchEveryMs = 200;
/** Answers that every service must have given before its callers come. */
const answersBefore = 8;
/** Share of the requests before the fault that may fail or be late in a run that counts. */
const mostBadBefore = 0.01;
/** Where fewer have been answered by then, whoever sends them has fallen behind himself. */
const fewestAnswered = 0.85;

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
    // Listeners first: a cell that takes any free port must not take one of theirs.
    await startReactiveEnvoy(ground, run, dir, adminPort, arms);
    // One after the other: a dozen processes that start at once would make one another late.
    for (const arm of [...arms].sort((x, y) => Number(isUnderstudy(y.name)) - Number(isUnderstudy(x.name)))) {
      await arm.start();
      signal.throwIfAborted();
    }
    await Promise.all(arms.map(serves));
    await Promise.all(arms.map((arm) => arm.know()));
    const machine = await underLoad(play, arms, signal);
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
      machine,
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
  for (const service of services) writeHosts(dir, service.name, []);
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
async function underLoad(play: Case, arms: readonly Arm[], signal: AbortSignal): Promise<Machine> {
  const orders = [...play.orders].sort((a, b) => a.atS - b.atS);
  const machine = watchMachine();
  const beganMs = Date.now();
  for (const arm of arms) arm.startLoad();
  let isMeasured = false;
  for (let watchedMs = 0; ; await sleep(tickMs)) {
    signal.throwIfAborted();
    const nowMs = Date.now();
    const atS = (nowMs - beganMs) / 1000;
    if (atS >= play.endS) return machine();
    if (!isMeasured && atS >= baselineS) {
      refuseDisturbed(arms, machine());
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
}

/** Where callers suffer before anything has been done to the cells, the machine is what would be measured. */
export class DisturbedError extends Error {}

function refuseDisturbed(arms: readonly Arm[], { busy, pressure }: Machine): void {
  const seen = arms.map((arm) => arm.quietFigures());
  const bad = seen.reduce((sum, figures) => sum + figures.failed + figures.overSlo, 0);
  const requests = seen.reduce((sum, figures) => sum + figures.requests, 0);
  const expected = arms.reduce((sum, arm) => sum + arm.expectedRequests(baselineS), 0);
  if (bad <= mostBadBefore * requests && requests >= fewestAnswered * expected) return;
  throw new DisturbedError(
    `before the fault ${bad} of ${requests} requests (${Math.round(expected)} expected) were failed or late already: the machine is too busy (${Math.round(100 * busy)} % of its CPUs, ${pressure ?? '?'} of the time some process waited)`,
  );
}
