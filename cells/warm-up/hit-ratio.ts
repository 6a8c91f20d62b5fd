/**
 * Warm-up step `hitRatio`: asks the cell and its peers for the same things and looks into their counters before and after.
 * A cell that says it was preloaded and holds nothing is found out by what it has to fetch.
 */
import { keptConnections, request, type Reached } from '../http';
import { figureIn } from './cache-counters';
import { failureOf, percent, requestTimeoutMs } from './measuring';
import type { StepFinding, StepOf, WarmUp } from './step';

type Step = StepOf<'hitRatio'>;

/** Of a gauge both are parts of 1. */
interface Counters {
  hits: number;
  all: number;
}

interface Measured {
  instance: string;
  counted?: Counters;
  /** Why there is nothing to judge by. */
  problem?: string;
}

const concurrency = 4;

export async function hitRatio(step: Step, warmUp: WarmUp): Promise<StepFinding> {
  const measure = (each: readonly Reached[]) => Promise.all(each.map((instance) => measureOne(step, instance, warmUp)));
  const [own, theirs] = await Promise.all([measure(warmUp.instances), measure(warmUp.peers)]);
  const peers = together(theirs);
  const needed = Math.max(peers === null ? 0 : peers - step.tolerance, step.atLeast ?? 0);
  const against = peers === null ? '' : `, its peers' ${percent(peers)}`;
  const ratio = together(own);
  const obstacles = own.flatMap(({ instance, counted, problem }) => {
    const at = `hit ratio of ${instance}`;
    if (!counted) return [`${at}: ${problem}`];
    const mine = counted.hits / counted.all;
    return mine >= needed ? [] : [`${at}: ${percent(mine)}${against}: less than the ${percent(needed)} accepted`];
  });
  const isCompared = peers !== null || step.atLeast !== undefined;
  return {
    text: ratio === null ? 'no hit ratio' : `hit ratio ${percent(ratio)}${against}`,
    obstacles,
    limits: isCompared ? [] : ['no peer told its hit ratio, so it was compared with nothing'],
  };
}

/** The ratio over all that was counted; null of nothing. */
function together(measured: readonly Measured[]): number | null {
  const counted = measured.flatMap((one) => one.counted ?? []);
  const all = counted.reduce((sum, one) => sum + one.all, 0);
  return all > 0 ? counted.reduce((sum, one) => sum + one.hits, 0) / all : null;
}

async function measureOne(step: Step, instance: Reached, { progress, signal }: WarmUp): Promise<Measured> {
  const { name } = instance;
  try {
    const before = await read(step, instance);
    const failures = await ask(step, instance, signal);
    if (failures.length > 0)
      return { instance: name, problem: `${failures.length} of ${step.requests} requests failed (${failures[0]})` };
    const after = await read(step, instance);
    const counted = step.ratio === undefined ? { hits: after.hits - before.hits, all: after.all - before.all } : after;
    if (counted.all <= 0 || counted.hits < 0)
      return { instance: name, problem: `its counters counted none of ${step.requests} requests` };
    progress?.(`${name} hits ${percent(counted.hits / counted.all)}`);
    return { instance: name, counted };
  } catch (error) {
    signal?.throwIfAborted();
    return { instance: name, problem: (error as Error).message };
  }
}

async function read({ counters, hits, misses, ratio }: Step, instance: Reached): Promise<Counters> {
  const { status, body } = await request(instance, counters, { timeoutMs: requestTimeoutMs });
  if (status < 200 || status > 299) throw new Error(`${counters} answered ${status}`);
  const figure = (where: string) => {
    const value = figureIn(body, where);
    if (value === undefined) throw new Error(`${counters} does not tell ${where}`);
    return value;
  };
  if (ratio !== undefined) return { hits: figure(ratio), all: 1 };
  const hit = figure(hits!);
  return { hits: hit, all: hit + figure(misses!) };
}

async function ask({ paths, requests }: Step, instance: Reached, signal?: AbortSignal): Promise<string[]> {
  const agent = keptConnections(instance, concurrency);
  const failures: string[] = [];
  try {
    for (let sent = 0; sent < requests; sent += concurrency) {
      signal?.throwIfAborted();
      const batch = Array.from({ length: Math.min(concurrency, requests - sent) }, (_, index) => {
        const n = sent + index;
        const path = paths[n % paths.length]!.replaceAll('{n}', String(n + 1));
        return request(instance, path, { timeoutMs: requestTimeoutMs, agent });
      });
      failures.push(...(await Promise.allSettled(batch)).flatMap((answer) => failureOf(answer) ?? []));
      if (failures.length >= concurrency) break;
    }
  } finally {
    agent.destroy();
  }
  return failures;
}
