/** One long look at a failover: the source's health by its instances, the last change by load reports; ends at the first thing worth a decision. */
import { Context } from '@temporalio/activity';
import type { ServiceRecord } from '../blueprints/records';
import type { Reached } from '../cells/http';
import type { TrafficView } from '../envoy/traffic-client';
import type { Totals } from '../workflows/failover';
import type { Latencies } from '../workflows/judge';
import { judgeCanary, judgeSource, judgeSynthetic, since } from '../workflows/judge';
import type { FailoverActivities, JudgeRequest, Observation, WatchRequest } from '../workflows/steps';
import { Answered, answersHealthCheck, SourceHealth, within } from './instance-health';
import { capacityBp, latencyOf, peersOf, shareOf, totalsOf } from './measures';
import type { Ports } from './ports';

const instancesReadEveryMs = 2000;
const beatEveryMs = 1000;
const trafficTimeoutMs = 1500;

export function watching({ store, traffic, data, cells }: Ports): Pick<FailoverActivities, 'watchFailover'> {
  /** Null for a cell that is not known. */
  async function instancesOf(name: string): Promise<Reached[] | null> {
    const cell = await store.cell(name);
    return cell ? ((await cells.reached?.(cell)) ?? cell.instances) : null;
  }

  return {
    async watchFailover(request: WatchRequest): Promise<Observation> {
      const context = Context.current();
      const before = (context.info.heartbeatDetails as { elapsedMs?: number } | undefined)?.elapsedMs ?? 0;
      const startedMs = Date.now() - before;
      const blueprint = await store.blueprint(request.blueprint.name, request.blueprint.version);
      const requestsPerSecond = blueprint?.spec.capacity.requestsPerSecond ?? Number.POSITIVE_INFINITY;
      const everyMs = Math.min(500, Math.max(200, request.healthCheckIntervalMs / 3));
      const source = new SourceHealth(request.known);
      const judge = request.judge && new Judge(request.judge);
      // Null until they have been read once: instances that nobody could look up are unknown, not dead.
      let instances: Reached[] | null = null;
      let service: ServiceRecord | undefined;
      let instancesReadMs = 0;
      let view: TrafficView | null = null;
      let excused: string | null = null;
      const answered = new Answered();
      const look = { elapsedMs: before };
      // By timer: peers that hang must not make this look dead. Every wait below has its own deadline.
      const beat = setInterval(() => context.heartbeat(look), beatEveryMs);
      try {
        for (;;) {
          const nowMs = Date.now();
          const elapsedMs = (look.elapsedMs = nowMs - startedMs);
          if (nowMs - instancesReadMs >= instancesReadEveryMs) {
            // A store that is away for a moment does not make the source's instances unknown.
            service = (await within(instancesReadEveryMs, store.service(request.service))) ?? service;
            instances = (await within(instancesReadEveryMs, instancesOf(request.cell))) ?? instances;
            instancesReadMs = nowMs;
          }
          const spec = service?.spec;
          const healthy = spec ? await Promise.all((instances ?? []).map((i) => answersHealthCheck(i, spec))) : [];
          const fresh = await within(trafficTimeoutMs, traffic.getTraffic(request.service));
          view = fresh ?? view;
          if (fresh) answered.note(totalsOf(fresh, request.cell), Date.now());
          if (instances && spec) source.round(instances, healthy);
          const state = answered.contradicts(source.state(), Date.now()) ? request.known : source.state();
          let verdict =
            view && judge ? judge.look(totalsOf(view, cellJudged(request)), elapsedMs, besides(view, request)) : null;
          if (view && judge && verdict === 'bad' && request.judge?.of === 'synthetic') {
            const why = (await data?.excuse(request.syntheticCell)) ?? null;
            if (why !== null) {
              excused = why;
              judge.beginAnew(totalsOf(view, request.syntheticCell), elapsedMs, besides(view, request));
              verdict = null;
            }
          }
          const isDue = elapsedMs >= request.forMs;
          const hasTurned = state !== request.known;
          if (view && (verdict || hasTurned || isDue)) {
            return {
              ended: hasTurned ? 'source' : verdict ? 'verdict' : 'due',
              source: state,
              healthyInstances: healthy.filter(Boolean).length,
              instances: instances?.length ?? 0,
              verdict,
              judged: judge?.seen ?? null,
              ...(judge?.against && { against: judge.against }),
              ...(excused !== null && { excused }),
              sourceBp: shareOf(view, request.cell),
              syntheticBp: shareOf(view, request.syntheticCell),
              capacityBp: capacityBp(view, requestsPerSecond),
              epoch: view.epoch,
              totals: {
                source: totalsOf(view, request.cell),
                synthetic: totalsOf(view, request.syntheticCell),
                peers: peersOf(view, request.cell, request.syntheticCell),
              },
              rates: rates(view),
            };
          }
          await context.sleep(Math.max(1, Math.min(everyMs, view ? request.forMs - elapsedMs : everyMs)));
        }
      } finally {
        clearInterval(beat);
      }
    },
  };
}

/** Applies the verdict's rules to what was counted since the change. */
export class Judge {
  /** What it was judged against, in words. */
  against: string | null = null;
  private peersBefore: Totals | null | undefined;
  seen: (Totals & { errorRatio: number }) | null = null;
  /** Null where only what happens from now on counts. */
  private baseline: Totals | null;
  private dueMs: number;

  constructor(private readonly request: JudgeRequest) {
    // A source that was found bad is looked at afresh: its old errors would keep it bad for ever.
    const isAfresh = request.of === 'source' && request.wanted === 'good';
    this.baseline = isAfresh ? null : request.baseline;
    this.dueMs = isAfresh ? request.intervalMs : request.notBeforeMs;
  }

  /** The verdict that was wanted, once there is one. */
  look(totals: Totals, elapsedMs: number, beside: Beside = { peers: null, latencies: null }): 'good' | 'bad' | null {
    this.baseline ??= totals;
    this.seen = since(this.baseline, totals);
    const { of, wanted } = this.request;
    const verdict = of === 'synthetic' ? this.ofSynthetic(this.seen, beside) : judgeSource(this.seen, this.request);
    if (verdict === 'bad' && wanted !== 'good') return 'bad';
    if (verdict === null || elapsedMs < this.dueMs) return null;
    if (verdict === 'good' && wanted !== 'bad') return 'good';
    // Not what was wanted: what was counted so far must not hide what comes, good or bad.
    this.beginAnew(totals, elapsedMs, beside);
    return null;
  }

  /** What was counted so far is nothing to judge by. */
  beginAnew(totals: Totals, elapsedMs: number, { peers }: Beside): void {
    this.baseline = totals;
    this.dueMs = elapsedMs + this.request.intervalMs;
    this.peersBefore = peers;
  }

  private ofSynthetic(seen: Totals, { peers, latencies }: Beside): 'good' | 'bad' | null {
    const { canary } = this.request;
    if (!canary) return judgeSynthetic(seen, this.request);
    this.peersBefore ??= canary.baselines.peers ?? peers;
    const peersSince = peers && this.peersBefore ? since(this.peersBefore, peers) : null;
    const { verdict, against } = judgeCanary(seen, peersSince, latencies, canary, this.request.minRequests);
    this.against = against;
    return verdict;
  }
}

/** What happens beside the cell that is judged. */
export interface Beside {
  /** Counters of the other cells. */
  peers: Totals | null;
  latencies: Latencies | null;
}

function besides(view: TrafficView, { cell, syntheticCell }: WatchRequest): Beside {
  const others = view.cells.filter((c) => c.cell !== cell && c.cell !== syntheticCell);
  const synthetic = latencyOf(view, syntheticCell);
  const medians = others.flatMap((c) => (c.latency ? [c.latency.p50Ms] : []));
  return {
    peers: peersOf(view, cell, syntheticCell),
    latencies: synthetic
      ? {
          p50Ms: synthetic.p50Ms,
          samples: synthetic.samples,
          peersP50Ms: medians.length > 0 ? Math.max(...medians) : null,
        }
      : null,
  };
}

function cellJudged(request: WatchRequest): string {
  return request.judge?.of === 'source' ? request.cell : request.syntheticCell;
}

function rates(view: TrafficView): Observation['rates'] {
  const measured = view.cells.filter((c) => c.measured);
  return Object.fromEntries(
    measured.map((c) => [
      c.cell,
      { requestsPerSecond: round(c.requestsPerSecond), errorRatio: round(c.errorRatio), ageMs: c.ageMs },
    ]),
  );
}

function round(value: number): number {
  return Math.round(value * 1000) / 1000;
}
