/**
 * Warm-up step `mirror`: waits until the cell has answered copies of what callers ask for now, sent to it by the proxies
 * through its shadow cluster, and compares how many failed. Copies only read, and their answers are thrown away.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { percent } from './measuring';
import { between, type CallersOfService, type Counted, type TrafficReading } from './service-traffic';
import type { StepFinding, StepOf, WarmUp } from './step';

const pollMs = 250;
/** As far back as load reports are looked at: nobody who called in it is nobody who calls. */
const noCallersMs = 6_000;

interface Seen {
  /** Copies that have their answer, or none. */
  answered: number;
  errors: number;
  peers: Counted;
}

export async function mirror(step: StepOf<'mirror'>, warmUp: WarmUp): Promise<StepFinding> {
  const { callers, isRescue } = warmUp;
  if (isRescue) return missing(step, 'left out: the source is dead, and its callers wait', false);
  if (!callers) return missing(step, 'nobody says what the proxies report');
  if (callers.mirrorPercent === 0) return missing(step, 'the service mirrors nothing (its mirror.percent is 0)');
  const { seen, why } = await watch(step, callers, warmUp);
  const failed = seen.answered > 0 ? seen.errors / seen.answered : 0;
  const peersFailed = seen.peers.requests > 0 ? seen.peers.errors / seen.peers.requests : 0;
  const accepted = peersFailed + step.tolerance;
  const text = `${seen.answered} copies of callers' requests answered, ${percent(failed)} failed, of their peers' ${percent(peersFailed)}`;
  // One error alone says nothing of the rate.
  if (seen.errors > 1 && failed > accepted)
    return { text, obstacles: [`mirror: ${text}: more than the ${percent(accepted)} accepted`] };
  if (why !== undefined) return missing(step, `${why}; ${text}`);
  return { text, obstacles: [] };
}

/** Until enough copies are answered, more have failed than could be accepted, or there is a reason not to wait longer. */
async function watch(
  { requests, timeoutS, tolerance }: StepOf<'mirror'>,
  { read }: CallersOfService,
  { progress, signal }: WarmUp,
): Promise<{ seen: Seen; why?: string }> {
  const beganAt = Date.now();
  let first: TrafficReading | undefined;
  let seen: Seen = { answered: 0, errors: 0, peers: { requests: 0, errors: 0 } };
  for (let calledAt = beganAt; ; await sleep(pollMs, undefined, { signal })) {
    const now = await read().catch(() => undefined);
    if (now) {
      first ??= now;
      seen = seenSince(first, now);
      if ((now.requestsPerSecond ?? 0) > 0 || seen.answered > 0) calledAt = Date.now();
      progress?.(`${seen.answered} of ${requests} copies answered, ${seen.errors} failed`);
      if (seen.answered >= requests) return { seen };
      // Even if all further ones were answered: no need to wait for what is lost already.
      const peersErrors = seen.peers.requests > 0 ? seen.peers.errors / seen.peers.requests : 0;
      if (seen.errors > 1 && seen.errors > (peersErrors + tolerance) * requests) return { seen };
    }
    const waitedMs = Date.now() - beganAt;
    if (waitedMs >= timeoutS * 1000)
      return { seen, why: first ? `fewer than ${requests} within ${timeoutS} s` : 'load reports cannot be read' };
    if (now && now.proxies === 0) return { seen, why: 'no proxy is connected that could send copies' };
    if (Date.now() - calledAt >= noCallersMs)
      return { seen, why: `the service has had no callers for ${noCallersMs / 1000} s` };
  }
}

function seenSince(first: TrafficReading, now: TrafficReading): Seen {
  const ended = ({ copies }: TrafficReading) => ({
    requests: copies.requests - copies.inFlight,
    errors: copies.errors,
  });
  const { requests, errors } = between(ended(first), ended(now));
  return { answered: requests, errors: Math.min(errors, requests), peers: between(first.peers, now.peers) };
}

function missing({ required }: StepOf<'mirror'>, why: string, keepsFromWarm = required): StepFinding {
  const reason = `mirror: ${why}`;
  return keepsFromWarm ? { text: why, obstacles: [reason] } : { text: 'mirror', obstacles: [], limits: [why] };
}
