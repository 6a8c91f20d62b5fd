/**
 * Requests at a steady pace, whatever becomes of those before: a cell that falls behind is asked no less for it, as
 * callers would ask. Ends early as soon as there is a reason to.
 */
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';
import { keptConnections, request, type Reached } from '../http';
import { failureOf, requestTimeoutMs } from './measuring';

export interface Answered {
  instance: string;
  /** Only of those that were answered well. */
  tookMs?: number;
  failure?: string;
  /** Turned away, rather than answered wrongly. */
  isShed?: boolean;
}

export interface OpenLoop {
  instances: readonly Reached[];
  paths: readonly string[];
  perSecond: number;
  requests: number;
  /** Asked after each answer and before each request: why to end now; undefined: go on. */
  endIf: (answers: readonly Answered[], inFlight: number) => string | undefined;
  signal?: AbortSignal | undefined;
}

/** Resolves once everything sent has its answer; ended early at once, without waiting for it. All take turns. */
export async function openLoop(order: OpenLoop): Promise<{ answers: Answered[]; ended?: string }> {
  const { instances, paths, perSecond, requests, endIf, signal } = order;
  const agents = instances.map((instance) => keptConnections(instance, Infinity));
  const answers: Answered[] = [];
  const underWay = new Set<Promise<void>>();
  let ended: string | undefined;
  const beganAt = performance.now();
  try {
    for (let n = 0; n < requests; n += 1) {
      const dueInMs = beganAt + (1000 * n) / perSecond - performance.now();
      // Late, answers are heard all the same before the next request leaves.
      await (dueInMs > 0 ? sleep(dueInMs, undefined, { signal }) : turn());
      signal?.throwIfAborted();
      ended ??= endIf(answers, underWay.size);
      if (ended !== undefined) break;
      const index = n % instances.length;
      // Each instance is asked for every path, also where there are as many paths as instances.
      const path = paths[Math.floor(n / instances.length) % paths.length]!;
      const one = ask(instances[index]!, path, agents[index]!).then((answer) => {
        answers.push(answer);
        underWay.delete(one);
        ended ??= endIf(answers, underWay.size);
      });
      underWay.add(one);
    }
    while (underWay.size > 0 && ended === undefined) await Promise.race(underWay);
    // A copy: what is broken off below is no answer of the cell's.
    return { answers: [...answers], ...(ended !== undefined && { ended }) };
  } finally {
    for (const agent of agents) agent.destroy();
  }
}

async function ask(instance: Reached, path: string, agent: ReturnType<typeof keptConnections>): Promise<Answered> {
  const [answer] = await Promise.allSettled([request(instance, path, { timeoutMs: requestTimeoutMs, agent })]);
  const failure = failureOf(answer);
  if (answer.status === 'rejected') return { instance: instance.name, failure: failure! };
  const { status, tookMs } = answer.value;
  if (failure === undefined) return { instance: instance.name, tookMs };
  return { instance: instance.name, failure, isShed: status === 429 || status === 503 };
}
