/**
 * Warm-up step `load`: a proof under the load that the cell gets first, at the rate of the service's callers. Ends at once
 * when the cell sheds or fails. Its peers are not loaded: they are asked a few times, one request after the other.
 */
import { request, type Reached } from '../http';
import { failureOf, latencyLimitMs, ms, percent, quantile, requestTimeoutMs } from './measuring';
import { openLoop, type Answered } from './open-loop';
import type { CallersOfService } from './service-traffic';
import type { StepFinding, StepOf, WarmUp } from './step';

type Step = StepOf<'load'>;

/** With fewer one slow answer would be the p95. */
const fewestRequests = 20;
const peersAsked = 3;
const requestsPerPeer = 10;
/** A cell that has more under way than it is sent in a second, or in the time that an answer may take, falls behind. */
const behindS = 1;
const fewestBehind = 16;

export async function load(step: Step, warmUp: WarmUp): Promise<StepFinding> {
  const { callers, instances, peers, isRescue, progress, signal } = warmUp;
  if (isRescue) return notJudged('left out: the source is dead, and its callers wait');
  if (instances.length === 0) return notJudged('there is nothing to load');
  const brings = await rateOf(step, callers);
  if (typeof brings === 'string') return notJudged(brings);
  const perSecond = Math.max(fewestRequests / step.forS, Math.min(step.atMostRequestsPerSecond, brings));
  const requests = Math.round(perSecond * step.forS);
  const peersP95Ms = await peersP95(step, peers, signal);
  const answerS = peersP95Ms === null ? 0 : latencyLimitMs(step, peersP95Ms) / 1000;
  const mostUnderWay = Math.max(fewestBehind, perSecond * Math.max(behindS, answerS));
  const mostFailures = Math.floor(step.maxErrorRatio * requests);
  const { answers, ended } = await openLoop({
    ...{ instances, paths: step.paths, perSecond, requests, signal },
    endIf: (so, inFlight) => {
      if (so.length % 20 === 0) progress?.(`${so.length} of ${requests} answered, ${inFlight} under way`);
      if (so.some(({ isShed }) => isShed)) return 'the cell sheds';
      if (so.filter(({ failure }) => failure).length > mostFailures) return 'too many failed';
      return inFlight > mostUnderWay ? 'the cell falls behind' : undefined;
    },
  });
  const failures = answers.flatMap(({ failure }) => failure ?? []);
  const p95Ms = p95Of(answers);
  const against = peersP95Ms === null ? '' : ` against its peers' ${peersP95Ms.toFixed(0)} ms`;
  const text = [
    `load of ${perSecond.toFixed(0)} requests/s (what the ${step.share} brings is ${brings.toFixed(1)})`,
    p95Ms === null ? 'none answered' : `p95 ${p95Ms.toFixed(0)} ms${against}`,
    `${percent(failures.length / Math.max(1, answers.length))} of ${answers.length} failed`,
  ].join(', ');
  const why = failures.length > 0 ? ` (${failures[0]})` : '';
  const obstacles = ended === undefined ? [] : [`${text}: ended, ${ended}${why}`];
  // What was cut short is too slow by any measure: one reason is enough.
  if (ended === undefined && peersP95Ms !== null) obstacles.push(...tooSlow(step, instances, answers, peersP95Ms));
  const limits = peersP95Ms === null ? ['no peer answered, so the latency under load was compared with nothing'] : [];
  return { text, obstacles, limits };
}

/** By instance: one that is slow must not hide behind its sibling. */
function tooSlow(step: Step, instances: readonly Reached[], answers: Answered[], peersP95Ms: number): string[] {
  const limitMs = latencyLimitMs(step, peersP95Ms);
  return instances.flatMap(({ name }) => {
    const p95Ms = p95Of(answers.filter(({ instance }) => instance === name));
    if (p95Ms === null || p95Ms <= limitMs) return [];
    return [
      `load on ${name}: p95 is ${ms(p95Ms)}, its peers' ${ms(peersP95Ms)} without it: more than the ${ms(limitMs)} accepted`,
    ];
  });
}

function p95Of(answers: readonly Answered[]): number | null {
  return quantile(
    answers.flatMap(({ tookMs }) => tookMs ?? []),
    0.95,
  );
}

/** Requests per second that the cell will get first, or why that is not known. */
async function rateOf({ share }: Step, callers?: CallersOfService): Promise<number | string> {
  const reading = await callers?.read().catch(() => undefined);
  if (!callers || !reading) return 'load reports cannot be read, so what the cell will get is not known';
  if (!reading.requestsPerSecond) return 'the service has no callers now, so what the cell will get is not known';
  return (reading.requestsPerSecond * (share === 'canary' ? callers.canaryBp : reading.sourceBp)) / 10_000;
}

async function peersP95({ paths }: Step, peers: readonly Reached[], signal?: AbortSignal): Promise<number | null> {
  const sampled = await Promise.all(
    peers.slice(0, peersAsked).map(async (peer) => {
      const took: number[] = [];
      for (let n = 0; n < requestsPerPeer; n += 1) {
        signal?.throwIfAborted();
        const path = paths[n % paths.length]!;
        const [answer] = await Promise.allSettled([request(peer, path, { timeoutMs: requestTimeoutMs })]);
        if (answer.status === 'fulfilled' && failureOf(answer) === undefined) took.push(answer.value.tookMs);
        else break;
      }
      return took;
    }),
  );
  return quantile(sampled.flat(), 0.95);
}

function notJudged(why: string): StepFinding {
  return { text: 'load', obstacles: [], limits: [why] };
}
