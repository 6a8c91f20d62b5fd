/** A small model of the world around a failover: cells that carry, answer, fail and die, so that decisions meet consequences. */
import { policySchema, type Policy } from '../../blueprints/schema';
import type { RiskEvent, RiskLevel } from '../../prediction/contracts';
import { decide } from '../../workflows/decide';
import type { Failover, FailoverContext, Leftover, SourceState } from '../../workflows/failover';
import { begin } from '../../workflows/failover';
import { hearRisk } from '../../workflows/hear';
import { judgeSynthetic } from '../../workflows/judge';
import type { Override } from '../../workflows/messages';
import { hearOverride } from '../../workflows/override';
import { intend, record } from '../../workflows/record';
import type { Observation, ShiftStep, Step, StepResult } from '../../workflows/steps';

export const startMs = Date.parse('2026-11-22T06:40:00Z');

export function policyOf(overrides: Partial<Policy> = {}): Policy {
  return { ...policySchema.parse({}), autonomy: 'act', ...overrides };
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
  readonly taken: { step: Step; risk: RiskEvent | undefined; atMs: number; source: SourceState; held: boolean }[] = [];
  private epoch = 1;
  private readonly seen = { requests: 0, errors: 0 };

  constructor(readonly context: FailoverContext = contextOf()) {
    this.sourceBp = context.sourceBp;
    this.syntheticBp = context.leftover?.shareBp ?? 0;
    this.capacityBp = context.capacityBp;
    this.failover = begin({ service: 'shop', cell: 'shop-a' }, 'run-1', this.nowMs);
  }

  risk(level: RiskLevel, { episode = 1, ageMs = 0 } = {}): this {
    this.failover = hearRisk(this.failover, riskEvent(level, this.nowMs - ageMs, episode), this.nowMs);
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
  until(wanted: (step: Step) => boolean, { risk, steps = 500 }: { risk?: RiskLevel; steps?: number } = {}): Step {
    for (let i = 0; i < steps; i++) {
      if (risk) this.risk(risk);
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
      case 'conclude':
      case 'begin-anew':
      case 'finish':
        return { kind: 'nothing' };
    }
  }

  private shift(step: ShiftStep): StepResult {
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
      verdict = judgeSynthetic({ requests, errors }, { minRequests, maxErrorRatio });
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

  private pass(ms: number): void {
    const passed = Math.max(1, ms);
    this.nowMs += passed;
    const requests = Math.round((this.requestsPerSecond * this.syntheticBp * passed) / 10_000 / 1000);
    this.seen.requests += requests;
    this.seen.errors += Math.round(requests * this.syntheticErrorRatio);
  }
}

function hasActivity(step: Step): boolean {
  return !['conclude', 'begin-anew', 'finish', 'wait'].includes(step.kind);
}
