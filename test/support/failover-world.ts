/** A small model of the world around a failover: cells that carry, answer, fail and die, so that decisions meet consequences. */
import { policySchema, type Policy } from '../../blueprints/schema';
import type { RiskEvent, RiskLevel } from '../../prediction/contracts';
import { decide } from '../../workflows/decide';
import type { Failover, FailoverContext, Leftover, SourceState } from '../../workflows/failover';
import type { FleetFacts, RisingCell } from '../../workflows/fleet';
import { begin } from '../../workflows/failover';
import { hearRisk } from '../../workflows/hear';
import { measuresOf } from '../../workflows/canary';
import { judgeCanary, judgeSynthetic } from '../../workflows/judge';
import type { Override } from '../../workflows/messages';
import { hearOverride } from '../../workflows/override';
import { intend, record } from '../../workflows/record';
import type { Observation, ShiftStep, Step, StepResult } from '../../workflows/steps';

export const startMs = Date.parse('2026-11-22T06:40:00Z');

export function policyOf(overrides: Partial<Policy> = {}): Policy {
  // Back at once: how long calm must last has tests of its own.
  const wayBack = { calmS: 0, firstBp: 10_000 };
  return { ...policySchema.parse({ wayBack }), autonomy: 'act', ...overrides };
}

export function contextOf(overrides: Partial<FailoverContext> = {}): FailoverContext {
  return {
    policy: policyOf(),
    blueprint: { name: 'shop', version: 1 },
    zone: 'local',
    healthCheckPath: '/healthz',
    healthCheckIntervalMs: 1000,
    sloErrorRatio: 0.05,
    sourceBp: 5000,
    capacityBp: null,
    epoch: 1,
    ...overrides,
  };
}

/** A fleet in which nothing else happens: two cells, quick steps, 100 requests/s. */
export function factsOf(overrides: Partial<FleetFacts> = {}): FleetFacts {
  return {
    atMs: startMs,
    stop: null,
    rising: [],
    population: { fleet: 20, 'service:shop': 2, 'zone:local': 20, 'blueprint:shop@1': 2 },
    past: [],
    standbyCellHours: 0,
    durations: {
      ensure: [1000, 1100, 1200, 1300, 1500],
      warm: [900, 900, 900, 1000, 1000],
      arm: [20, 20, 20, 20, 30],
      shift: [20, 20, 20, 20, 30],
    },
    requestsPerSecond: 100,
    blueprintAgeMs: 30 * 24 * 3_600_000,
    ...overrides,
  };
}

/** Another cell that is predicted to fail. */
export function risingCell(cell: string, overrides: Partial<RisingCell> = {}): RisingCell {
  return {
    ...{ service: 'other', cell, zone: 'local', blueprint: 'other@1', sinceMs: startMs, isActive: true },
    ...{ metric: 'heap.used_bytes', model: 'test' },
    ...overrides,
  };
}

/** What a failover of before left at its synthetic cell. */
export function leftoverOf(shareBp: number): Leftover {
  const none = { requests: 0, errors: 0 };
  return { syntheticCell: 'shop-a-understudy-1', instances: 2, shareBp, totals: { source: none, synthetic: none } };
}

export function riskEvent(level: RiskLevel, atMs: number, episode = 1): RiskEvent {
  return {
    eventId: `shop-a@${episode}#${atMs}#${level}`,
    episodeId: `shop-a@${episode}`,
    service: 'shop',
    cell: 'shop-a',
    at: new Date(atMs).toISOString(),
    level,
    probability: { clear: 0.1, prepare: 0.45, shift: 0.8 }[level],
    horizonS: 60,
    health: 50,
    timeToFailureS: { p10: 10, p50: 20, p90: 40 },
    trust: 1,
    drivers: [{ metric: 'heap.used_bytes', direction: 'up', contribution: 2, text: 'heap 91 % of limit' }],
    model: 'test',
  };
}

export type RiskOptions = { episode?: number; ageMs?: number } & Partial<RiskEvent>;

/** Carries out the steps of one failover against itself, one at a time, with a clock of its own. */
export class World {
  nowMs = startMs;
  failover: Failover;
  /** What the split really is. */
  sourceBp: number;
  syntheticBp: number;
  source: SourceState = 'alive';
  syntheticErrorRatio = 0;
  requestsPerSecond = 100;
  capacityBp: number | null;
  /** What the next survey finds. */
  facts: FleetFacts;
  /** Set: every change of the split is refused, with the reason for the n-th. */
  refusals: ((n: number) => string) | null = null;
  readonly taken: { step: Step; risk: RiskEvent | undefined; atMs: number; source: SourceState; held: boolean }[] = [];
  private epoch = 1;
  private readonly seen = { requests: 0, errors: 0 };
  private unanswered = 0;

  constructor(readonly context: FailoverContext = contextOf()) {
    this.sourceBp = context.sourceBp;
    this.syntheticBp = context.leftover?.shareBp ?? 0;
    this.capacityBp = context.capacityBp;
    this.facts = context.fleet ?? factsOf();
    this.failover = {
      ...begin({ service: 'shop', cell: 'shop-a' }, 'run-1', this.nowMs),
      watchesPastHorizon: true,
      endsUndecided: true,
    };
  }

  risk(level: RiskLevel, { episode = 1, ageMs = 0, ...rest }: RiskOptions = {}): this {
    const event = { ...riskEvent(level, this.nowMs - ageMs, episode), ...rest };
    this.failover = hearRisk(this.failover, event, this.nowMs);
    return this;
  }

  order(override: Omit<Override, 'by' | 'reason'>): this {
    this.failover = hearOverride(this.failover, { by: 'ada', reason: 'test', ...override }, this.nowMs);
    return this;
  }

  next(): Step {
    return decide(this.failover, this.nowMs);
  }

  /** One step as the workflow takes it. `failing`: its activity fails for good. */
  advance({ failing = false, atMostMs = 2000 } = {}): Step {
    const step = this.next();
    const risk = this.failover.risk?.last;
    this.taken.push({
      step,
      risk,
      atMs: this.nowMs,
      source: this.failover.source.state,
      held: this.failover.held !== null,
    });
    this.failover = intend(this.failover, step, this.nowMs);
    const result: StepResult =
      failing && hasActivity(step) ? { kind: 'failed', reason: 'broken' } : this.carryOut(step, atMostMs);
    this.failover = record(this.failover, step, result, this.nowMs);
    return step;
  }

  /** Advances, repeating the risk as the scoring worker does, until the step is one that is wanted. */
  until(
    wanted: (step: Step) => boolean,
    { risk, steps = 500, ...options }: { risk?: RiskLevel; steps?: number } & RiskOptions = {},
  ): Step {
    for (let i = 0; i < steps; i++) {
      if (risk) this.risk(risk, options);
      if (wanted(this.next())) return this.next();
      this.advance();
    }
    throw new Error(`not reached after ${steps} steps; last: ${JSON.stringify(this.next())}`);
  }

  get changes(): ShiftStep[] {
    return this.taken.map((t) => t.step).filter((s) => s.kind === 'shift');
  }

  private carryOut(step: Step, atMostMs: number): StepResult {
    switch (step.kind) {
      case 'load':
        return { kind: 'loaded', context: this.context };
      case 'await-turn':
        return { kind: 'turn' };
      case 'survey':
        return { kind: 'surveyed', facts: { ...this.facts, atMs: this.nowMs } };
      case 'ensure':
        this.pass(1500);
        return { kind: 'ensured', result: { cell: 'shop-a-understudy-1', instances: 2, reused: false, tookMs: 1500 } };
      case 'warm':
        this.pass(1000);
        return { kind: 'warmed', result: { passed: true, summary: 'warm', evidence: {} } };
      case 'arm':
        return { kind: 'armed', result: this.acknowledge() };
      case 'shift':
        return this.shift(step);
      case 'watch': {
        // The clock runs to the deadline, or to the next message, whichever is first.
        this.pass(Math.min(atMostMs, step.untilMs - this.nowMs));
        return { kind: 'observed', observation: this.observe(step) };
      }
      case 'wait':
        this.pass(Math.min(atMostMs, (step.untilMs ?? Infinity) - this.nowMs));
        return { kind: 'nothing' };
      case 'rest':
      case 'retire':
      case 'save':
        return { kind: 'done' };
      case 'label':
      case 'conclude':
      case 'begin-anew':
      case 'finish':
        return { kind: 'nothing' };
    }
  }

  private shift(step: ShiftStep): StepResult {
    if (this.refusals) return this.refused(this.refusals(this.changes.length % 9));
    const total = this.sourceBp + this.syntheticBp;
    this.syntheticBp = Math.min(
      step.targetBp,
      total,
      step.targetBp > this.syntheticBp ? (this.capacityBp ?? 10_000) : 10_000,
    );
    this.sourceBp = total - this.syntheticBp;
    const acknowledgement = this.acknowledge();
    return {
      kind: 'shifted',
      result: {
        applied: true,
        why: 'moved',
        acknowledgement,
        sourceBp: this.sourceBp,
        syntheticBp: this.syntheticBp,
        capacityBp: this.capacityBp,
        epoch: this.epoch,
        totals: { source: { requests: 0, errors: 0 }, synthetic: { ...this.seen } },
      },
    };
  }

  private refused(why: string): StepResult {
    const { sourceBp, syntheticBp, capacityBp, epoch } = this;
    const totals = { source: { requests: 0, errors: 0 }, synthetic: { ...this.seen } };
    const result = { applied: false, why, acknowledgement: null, sourceBp, syntheticBp, capacityBp, epoch, totals };
    return { kind: 'shifted', result };
  }

  private acknowledge() {
    this.epoch += 1;
    const split = { 'shop-a': this.sourceBp, 'shop-a-understudy-1': this.syntheticBp };
    return { epoch: this.epoch, split, acknowledged: ['envoy'], refused: [], pending: [], tookMs: 5 };
  }

  private observe(step: Step & { kind: 'watch' }): Observation {
    const { judgement } = step;
    let verdict: Observation['verdict'] = null;
    let judged: Observation['judged'] = null;
    if (judgement?.of === 'synthetic') {
      const requests = this.seen.requests - judgement.baseline.requests;
      const errors = this.seen.errors - judgement.baseline.errors;
      judged = { requests, errors, errorRatio: requests ? errors / requests : 0 };
      const { canaryMinRequests: minRequests, maxErrorRatio } = this.context.policy;
      verdict = this.context.fleet
        ? this.judgeBySequence({ requests, errors })
        : judgeSynthetic({ requests, errors }, { minRequests, maxErrorRatio });
      if (verdict === 'good' && (this.nowMs < judgement.notBeforeMs || judgement.verdict === 'good')) verdict = null;
    } else if (judgement && this.nowMs >= judgement.notBeforeMs) {
      verdict = 'good';
    }
    const counted = { ...this.seen };
    return {
      ended: 'due',
      source: this.source,
      healthyInstances: { alive: 2, failing: 1, dead: 0 }[this.source],
      instances: 2,
      verdict,
      judged,
      sourceBp: this.sourceBp,
      syntheticBp: this.syntheticBp,
      capacityBp: this.capacityBp,
      epoch: this.epoch,
      totals: { source: { requests: 0, errors: 0 }, synthetic: counted },
      rates: {},
    };
  }

  private judgeBySequence(seen: { requests: number; errors: number }) {
    const { policy, sloErrorRatio } = this.context;
    const isShort =
      this.failover.plan !== null && this.failover.plan !== undefined && this.failover.plan.kind !== 'full-canary';
    const baselines = { peers: null, beforeOnset: null, sloErrorRatio };
    const request = { measures: measuresOf(policy, isShort), baselines, sloLatencyMs: null };
    return judgeCanary(seen, null, null, request, policy.canaryMinRequests).verdict;
  }

  private pass(ms: number): void {
    const passed = Math.max(1, ms);
    this.nowMs += passed;
    // What is left of a request is answered later: a service of few requests has some after all.
    const due = this.unanswered + (this.requestsPerSecond * this.syntheticBp * passed) / 10_000 / 1000;
    const requests = Math.floor(due + 1e-6);
    this.unanswered = due - requests;
    this.seen.requests += requests;
    this.seen.errors += Math.round(requests * this.syntheticErrorRatio);
  }
}

function hasActivity(step: Step): boolean {
  return !['conclude', 'begin-anew', 'finish', 'wait'].includes(step.kind);
}
