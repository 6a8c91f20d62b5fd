import { expect } from 'chai';
import type { Aim } from '../../workflows/aim';
import { decide } from '../../workflows/decide';
import type { Failover } from '../../workflows/failover';
import { outcomes, phases, type Outcome } from '../../workflows/messages';
import {
  followers,
  phaseOfMove,
  standingOf,
  standings,
  transitions,
  type Move,
  type Standing,
} from '../../workflows/transitions';
import { World, contextOf, policyOf, startMs } from '../support/failover-world';

const nowMs = startMs + 60_000;

/** A failover whose synthetic cell has come so far. */
function standing(at: Standing): Failover {
  const world = new World(contextOf({ policy: policyOf() })).risk('shift');
  const known = { ...world.failover, context: world.context, hasTurn: true };
  const state = { making: 'creating', made: 'ready', warm: 'warm' } as const;
  const cell = { name: at === 'making' ? null : 'shop-a-understudy-1', instances: 2, reused: false };
  const synthetic =
    at === 'nothing' ? null : { ...cell, state: at in state ? state[at as keyof typeof state] : ('armed' as const) };
  const syntheticBp = at === 'carrying' ? 500 : at === 'evacuated' ? 5000 : 0;
  const traffic = { sourceBp: 5000 - syntheticBp, syntheticBp, capacityBp: null, epoch: 1 };
  const evacuatedAtMs = at === 'evacuated' ? nowMs : null;
  return { ...known, synthetic, traffic, evacuatedAtMs, proven: true };
}

const by = { by: 'ada', reason: 'test' };
/** What makes each aim the failover's. */
const aims: Record<Aim['kind'], (f: Failover) => Failover> = {
  hold: (f) => ({ ...f, held: { ...by, sinceMs: startMs } }),
  prepare: (f) => told(f, 'prepare'),
  take: (f) => told(f, 'shift'),
  complete: (f) => ({ ...f, order: { ...by, kind: 'complete' } }),
  'ordered-step': (f) => ({ ...f, orderedStepBp: 1234 }),
  'give-back': (f) => ({ ...f, order: { ...by, kind: 'drain' } }),
  undo: (f) => ({ ...f, order: { ...by, kind: 'abort' } }),
  end: (f) => ({ ...f, order: { ...by, kind: 'promote' } }),
};

function told(f: Failover, level: 'prepare' | 'shift'): Failover {
  const last = { ...f.risk!.last, level, at: new Date(nowMs).toISOString() };
  return { ...f, risk: { ...f.risk!, last, heardAtMs: nowMs } };
}

/** The step that stands for each move, where no gate is closed. */
const stepOfMove: Record<Move, string[]> = {
  stay: ['watch', 'wait'],
  begin: ['ensure'],
  make: ['ensure'],
  warm: ['warm'],
  arm: ['arm'],
  canary: ['shift canary'],
  step: ['shift step'],
  // Nothing left to complete is the end of it.
  complete: ['shift complete', 'conclude'],
  ordered: ['shift ordered'],
  reduce: ['shift reduce'],
  'give-back': ['shift give-back'],
  'send-away': ['rest', 'retire'],
  conclude: ['conclude'],
};

describe('The transition table', () => {
  for (const aim of Object.keys(aims) as Aim['kind'][]) {
    it(`says what follows for ${aim}, wherever the synthetic cell stands`, () => {
      for (const at of standings) {
        const f = aims[aim](standing(at));
        expect(standingOf(f)).to.equal(at);
        const step = decide(f, nowMs);
        const name = step.kind === 'shift' ? `shift ${step.purpose}` : step.kind;
        const move = transitions[aim][at];
        expect(stepOfMove[move], `${aim} x ${at} ▶ ${move}`).to.include(name);
        const phase = phaseOfMove[move];
        const begins = move === 'begin' && name === 'ensure';
        if (phase && step.kind !== 'conclude' && !begins) expect(step.phase).to.equal(phase);
        expect(step.why).to.not.equal('');
      }
    });
  }

  it('makes nothing before it is its turn, and nothing at all where it may only look', () => {
    const first = { ...aims.take(standing('nothing')), hasTurn: false };
    expect(decide(first, nowMs)).to.include({ kind: 'await-turn', phase: 'assessing' });
    for (const autonomy of ['observe', 'advise'] as const) {
      const f = { ...first, context: { ...first.context!, policy: policyOf({ autonomy }) } };
      expect(decide(f, nowMs)).to.include({ kind: 'conclude', outcome: 'refused' });
    }
  });

  it('has a way from every phase to an end, and nothing after the end', () => {
    const ends = (phase: (typeof phases)[number]) => followers[phase].includes('cooldown') || phase === 'cooldown';
    expect(phases.filter((phase) => !ends(phase))).to.deep.equal([]);
    expect(followers.cooldown).to.deep.equal([]);
  });

  it('ends what a person ends by the name that person chose', () => {
    const expected: [Aim['kind'], Standing, Outcome][] = [
      ['give-back', 'nothing', 'drained'],
      ['undo', 'nothing', 'aborted'],
      ['end', 'evacuated', 'failed-over'],
    ];
    for (const [aim, at, outcome] of expected) {
      expect(decide(aims[aim](standing(at)), nowMs)).to.include({ kind: 'conclude', outcome });
      expect(outcomes).to.include(outcome);
    }
  });
});
