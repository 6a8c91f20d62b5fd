/**
 * Warm-up step `probe`: asks the cell and its peers the same, side by side, and compares, path by path. A path that is
 * too slow is asked again for as long as it becomes faster: a half-warm cell gets its time, a cold one is found out.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { keptConnections, request, type Reached } from '../http';
import { failureOf, latencyLimitMs, ms, quantile, requestTimeoutMs } from './measuring';
import type { ProbeEvidence, StepFinding, StepOf, WarmUp } from './step';

/** Requests in flight per instance while probing: enough to see contention, too few to be a load. */
const probeConcurrency = 4;
const betweenRoundsMs = 200;
/** Rounds over which a p95 must have fallen to be taken for falling, and by which part. */
const roundsToFall = 2;
const leastFall = 0.05;

/** What was found of one path at one time. */
interface Round {
  measured: ProbeEvidence;
  /** The slowest instance's p95 as a part of what is accepted; infinite where requests failed. */
  slowness: number;
  obstacles: string[];
}

type Step = StepOf<'probe'>;

export async function probe(step: Step, warmUp: WarmUp): Promise<StepFinding> {
  const paths = step.path === undefined ? step.paths : [step.path, ...step.paths];
  const trials = paths.map((path) => ({ path, rounds: [] as Round[] }));
  const until = Date.now() + step.atMostS * 1000;
  for (let open = trials; open.length > 0;) {
    for (const { path, rounds } of open) {
      rounds.push(await probeOnce(step, path, warmUp));
      warmUp.progress?.(`round ${rounds.length}: ${inWords(path, rounds)}`);
    }
    // While a dead source's callers wait nobody waits for code to be compiled.
    if (Date.now() >= until || warmUp.isRescue) break;
    open = open.filter(({ rounds }) => rounds.at(-1)!.obstacles.length > 0 && isFalling(rounds));
    if (open.length > 0) await sleep(betweenRoundsMs, undefined, { signal: warmUp.signal });
  }
  const last = trials.map(({ path, rounds }) => ({ path, ...rounds.at(-1)! }));
  const uncompared = last.filter(({ measured }) => measured.peersP95Ms === null);
  return {
    text: trials.map(({ path, rounds }) => inWords(path, rounds)).join(', '),
    obstacles: last.flatMap(({ obstacles }) => obstacles),
    limits: uncompared.map(
      ({ path }) => `probe of ${path}: no peer answered, so the latency was compared with nothing`,
    ),
    probe: last.reduce((worst, one) => (one.slowness > worst.slowness ? one : worst)).measured,
  };
}

/** Whether one more round may find what these did not: too few to say, or the p95 has come down lately. */
function isFalling(rounds: readonly Round[]): boolean {
  if (rounds.length <= roundsToFall) return true;
  const least = (some: readonly Round[]) => Math.min(...some.map(({ slowness }) => slowness));
  return least(rounds.slice(-roundsToFall)) < (1 - leastFall) * least(rounds.slice(0, -roundsToFall));
}

async function probeOnce(step: Step, path: string, warmUp: WarmUp): Promise<Round> {
  const { instances, peers } = warmUp;
  let isMeasured = false;
  const sample = (each: readonly Reached[], isEnough = () => false) =>
    Promise.all(each.map((instance) => probeInstance(step, path, instance, isEnough, warmUp)));
  const measuring = sample(instances).finally(() => (isMeasured = true));
  // Peers that are overloaded answer slowly: waiting for all of their answers would keep from them the help they need.
  const [own, theirs] = await Promise.all([measuring, sample(peers, () => isMeasured)]);
  const latencies = own.flatMap((one) => one.latenciesMs);
  const errors = own.reduce((sum, one) => sum + one.failures.length, 0);
  const peersP95Ms = quantile(
    theirs.flatMap((one) => one.latenciesMs),
    0.95,
  );
  const limitMs = peersP95Ms === null ? Infinity : latencyLimitMs(step, peersP95Ms);
  // By instance: one cold instance must not hide behind its warm sibling.
  const judged = instances.map(({ name }, index) => {
    const { latenciesMs, failures } = own[index]!;
    const p95Ms = quantile(latenciesMs, 0.95);
    const at = `probe of ${path} on ${name}`;
    if (failures.length > 0)
      return {
        slowness: Infinity,
        obstacles: [`${at}: ${failures.length} of ${step.requests} requests failed (${failures[0]})`],
      };
    const slowness = (p95Ms ?? 0) / limitMs;
    if (p95Ms === null || peersP95Ms === null || slowness <= 1) return { slowness, obstacles: [] };
    const told = `p95 is ${ms(p95Ms)}, its peers' ${ms(peersP95Ms)}: more than the ${ms(limitMs)} accepted`;
    return { slowness, obstacles: [`${at}: ${told}`] };
  });
  return {
    measured: {
      p50Ms: quantile(latencies, 0.5),
      p95Ms: quantile(latencies, 0.95),
      peersP95Ms,
      requests: latencies.length + errors,
      errors,
    },
    slowness: Math.max(...judged.map(({ slowness }) => slowness)),
    obstacles: judged.flatMap(({ obstacles }) => obstacles),
  };
}

/** `p95 310, 95, 14 ms against its peers' 12 ms (/work)`: the rounds in their order. */
function inWords(path: string, rounds: readonly Round[]): string {
  const fell = rounds.map(({ measured }) => measured.p95Ms?.toFixed(0) ?? 'unanswered');
  const { peersP95Ms } = rounds.at(-1)!.measured;
  const peers = peersP95Ms === null ? '' : ` against its peers' ${peersP95Ms.toFixed(0)} ms`;
  return `p95 ${fell.join(', ')} ms${peers} (${path})`;
}

async function probeInstance(
  { requests }: Step,
  path: string,
  instance: Reached,
  isEnough: () => boolean,
  { progress, signal }: WarmUp,
): Promise<{ latenciesMs: number[]; failures: string[] }> {
  const agent = keptConnections(instance, probeConcurrency);
  const latenciesMs: number[] = [];
  const failures: string[] = [];
  try {
    for (let sent = 0; sent < requests; sent += probeConcurrency) {
      signal?.throwIfAborted();
      const batch = Math.min(probeConcurrency, requests - sent);
      const call = () => request(instance, path, { timeoutMs: requestTimeoutMs, agent });
      for (const answer of await Promise.allSettled(Array.from({ length: batch }, call))) {
        const failure = failureOf(answer);
        if (failure !== undefined) failures.push(failure);
        else if (answer.status === 'fulfilled') latenciesMs.push(answer.value.tookMs);
      }
      progress?.(`${path} on ${instance.name} asked ${sent + batch} times`);
      if (isEnough()) break;
      // An instance that answers nothing at all would cost a time-out per batch and say nothing new.
      if (latenciesMs.length === 0 && failures.length >= probeConcurrency) break;
    }
  } finally {
    agent.destroy();
  }
  return { latenciesMs, failures };
}
