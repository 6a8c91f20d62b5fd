/** Runs a blueprint's warm-up plan on the instances of a cell, and says with evidence whether the cell is warm. */
import type { Instance, WarmUpStep } from '../blueprints/schema';
import { keptConnections, request, type HttpAnswer, type Target } from './http';
import type { ProtectionReport } from './protection/read-back';

export interface ProbeEvidence {
  /** Null when no request was answered. */
  p50Ms: number | null;
  p95Ms: number | null;
  /** Null when there are no peers to compare with. */
  peersP95Ms: number | null;
  /** Requests sent to the cell; those to the peers are not counted. */
  requests: number;
  errors: number;
}

export interface WarmUpEvidence {
  /** Entries that the instances took over, added up. */
  entries: number;
  /** Connections that were opened and answered, over all instances. */
  connections: number;
  /** Null if the plan has no probe. */
  probe: ProbeEvidence | null;
  warm: boolean;
  /** What was read back of its protection; left out by a warm-up alone. */
  protection?: ProtectionReport;
  /** Where the source has drifted from the blueprint: the synthetic cell is made like the blueprint. */
  drift?: string[];
  /** Every reason why the cell is not warm, and what limits the evidence. */
  reasons: string[];
}

/** An instance and how it is spoken to. */
export type Reached = Instance & Target;

export type WarmUpProgress = (text: string) => void;

export interface WarmUp {
  plan: readonly WarmUpStep[];
  instances: readonly Reached[];
  /** Instances of the service's other healthy cells. */
  peers: readonly Reached[];
  /** Called at least once per step and batch of requests; for heartbeats. */
  progress?: WarmUpProgress;
  /** Ends the warm-up with its reason, for a cancelled activity. */
  signal?: AbortSignal;
}

const requestTimeoutMs = 5_000;
/** Requests in flight per instance while probing: enough to see contention, too few to be a load. */
const probeConcurrency = 4;

/** Never throws for what the cell or its peers do: that is evidence. Rejects only when aborted. */
export async function warmUp({ plan, instances, peers, progress, signal }: WarmUp): Promise<WarmUpEvidence> {
  const evidence: WarmUpEvidence = { entries: 0, connections: 0, probe: null, warm: false, reasons: [] };
  const obstacles: string[] = [];
  if (instances.length === 0) obstacles.push('the cell has no instances');
  for (const step of plan) {
    signal?.throwIfAborted();
    progress?.(`warm-up step ${step.kind} ${step.path}`);
    if (step.kind === 'preload') obstacles.push(...(await preload(step, instances, peers, evidence, progress)));
    else if (step.kind === 'connections') obstacles.push(...(await openConnections(step, instances, evidence)));
    else obstacles.push(...(await probe(step, instances, peers, evidence, progress, signal)));
  }
  evidence.warm = obstacles.length === 0;
  evidence.reasons.unshift(...obstacles);
  return evidence;
}

type Step<K extends WarmUpStep['kind']> = Extract<WarmUpStep, { kind: K }>;

/** Lets every instance take over what a peer has; the next peer is asked if one cannot give it. */
async function preload(
  step: Step<'preload'>,
  instances: readonly Reached[],
  peers: readonly Reached[],
  evidence: WarmUpEvidence,
  progress?: WarmUpProgress,
): Promise<string[]> {
  if (peers.length === 0) return ['preload: no healthy peer to load from'];
  const results = await Promise.all(
    instances.map(async (instance, index) => {
      let failure = '';
      for (let attempt = 0; attempt < peers.length; attempt += 1) {
        // Each instance begins with another peer, so that no peer carries the whole preload.
        const peer = peers[(index + attempt) % peers.length]!;
        try {
          const entries = entriesOf(
            await request(instance, step.path, {
              method: 'POST',
              body: { from: `${peer.address}:${peer.port}` },
              timeoutMs: step.timeoutS * 1000,
            }),
          );
          progress?.(`${instance.name} preloaded ${entries} entries from ${peer.name}`);
          evidence.entries += entries;
          if (entries >= step.minEntries) return [];
          failure = `${entries} entries from ${peer.name}, at least ${step.minEntries} are needed`;
          evidence.entries -= entries;
        } catch (error) {
          failure = `from ${peer.name}: ${(error as Error).message}`;
        }
      }
      return [`preload of ${instance.name}: ${failure}`];
    }),
  );
  return results.flat();
}

function entriesOf({ status, body }: HttpAnswer): number {
  if (status < 200 || status > 299) throw new Error(`answered ${status} ${body.slice(0, 200)}`);
  let entries: unknown;
  try {
    entries = (JSON.parse(body) as { entries?: unknown } | null)?.entries;
  } catch {
    entries = undefined;
  }
  if (typeof entries !== 'number' || !Number.isInteger(entries) || entries < 0)
    throw new Error(`answered ${body.slice(0, 100)} where {"entries": n} was expected`);
  return entries;
}

/** Opens the connections all at once and uses each for one request. */
async function openConnections(
  step: Step<'connections'>,
  instances: readonly Reached[],
  evidence: WarmUpEvidence,
): Promise<string[]> {
  const results = await Promise.all(
    instances.map(async (instance) => {
      const agent = keptConnections(instance, step.perInstance);
      try {
        const call = () => request(instance, step.path, { timeoutMs: requestTimeoutMs, agent });
        const answers = await Promise.allSettled(Array.from({ length: step.perInstance }, call));
        const failures = answers.map(failureOf).filter((failure) => failure !== undefined);
        evidence.connections += answers.length - failures.length;
        if (failures.length === 0) return [];
        return [`connections to ${instance.name}: ${failures.length} of ${step.perInstance} failed (${failures[0]})`];
      } finally {
        agent.destroy();
      }
    }),
  );
  return results.flat();
}

/** Asks the cell and its peers the same, side by side and at the same time, and compares. */
async function probe(
  step: Step<'probe'>,
  instances: readonly Reached[],
  peers: readonly Reached[],
  evidence: WarmUpEvidence,
  progress?: WarmUpProgress,
  signal?: AbortSignal,
): Promise<string[]> {
  let isMeasured = false;
  const sample = (each: readonly Reached[], isEnough = () => false) =>
    Promise.all(each.map((instance) => probeInstance(step, instance, isEnough, progress, signal)));
  const measuring = sample(instances).finally(() => (isMeasured = true));
  // Peers that are overloaded answer slowly: waiting for all of their answers would keep from them the help they need.
  const [own, theirs] = await Promise.all([measuring, sample(peers, () => isMeasured)]);
  const latencies = own.flatMap((one) => one.latenciesMs);
  const errors = own.reduce((sum, one) => sum + one.failures.length, 0);
  const peersP95Ms = quantile(
    theirs.flatMap((one) => one.latenciesMs),
    0.95,
  );
  evidence.probe = {
    p50Ms: quantile(latencies, 0.5),
    p95Ms: quantile(latencies, 0.95),
    peersP95Ms,
    requests: latencies.length + errors,
    errors,
  };
  if (peersP95Ms === null)
    evidence.reasons.push(`probe of ${step.path}: no peer answered, so the latency was compared with nothing`);

  // By instance: one cold instance must not hide behind its warm sibling.
  return instances.flatMap(({ name }, index) => {
    const { latenciesMs, failures } = own[index]!;
    const p95Ms = quantile(latenciesMs, 0.95);
    const at = `probe of ${step.path} on ${name}`;
    if (failures.length > 0) return [`${at}: ${failures.length} of ${step.requests} requests failed (${failures[0]})`];
    if (p95Ms === null || peersP95Ms === null) return [];
    const limitMs = Math.max(peersP95Ms * step.maxLatencyRatio, peersP95Ms + step.toleranceMs);
    if (p95Ms <= limitMs) return [];
    return [`${at}: p95 is ${ms(p95Ms)}, its peers' ${ms(peersP95Ms)}: more than the ${ms(limitMs)} accepted`];
  });
}

async function probeInstance(
  step: Step<'probe'>,
  instance: Reached,
  isEnough: () => boolean,
  progress?: WarmUpProgress,
  signal?: AbortSignal,
): Promise<{ latenciesMs: number[]; failures: string[] }> {
  const agent = keptConnections(instance, probeConcurrency);
  const latenciesMs: number[] = [];
  const failures: string[] = [];
  try {
    for (let sent = 0; sent < step.requests; sent += probeConcurrency) {
      signal?.throwIfAborted();
      const batch = Math.min(probeConcurrency, step.requests - sent);
      const call = () => request(instance, step.path, { timeoutMs: requestTimeoutMs, agent });
      for (const answer of await Promise.allSettled(Array.from({ length: batch }, call))) {
        const failure = failureOf(answer);
        if (failure !== undefined) failures.push(failure);
        else if (answer.status === 'fulfilled') latenciesMs.push(answer.value.tookMs);
      }
      progress?.(`probed ${instance.name} ${sent + batch} times`);
      if (isEnough()) break;
      // An instance that answers nothing at all would cost a time-out per batch and say nothing new.
      if (latenciesMs.length === 0 && failures.length >= probeConcurrency) break;
    }
  } finally {
    agent.destroy();
  }
  return { latenciesMs, failures };
}

function failureOf(answer: PromiseSettledResult<HttpAnswer>): string | undefined {
  if (answer.status === 'rejected') {
    const { message, code } = answer.reason as NodeJS.ErrnoException;
    return message || code || 'no answer';
  }
  return answer.value.status >= 200 && answer.value.status <= 299 ? undefined : `answered ${answer.value.status}`;
}

/** Nearest rank; null of nothing. */
function quantile(values: number[], q: number): number | null {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.ceil(q * sorted.length) - 1]!;
}

function ms(value: number): string {
  return `${value.toFixed(1)} ms`;
}
