/** What terminated runs leave behind, and what is left there on purpose: the table of findings, case by case. */
import { expect } from 'chai';
import fc from 'fast-check';
import { findings, type CellFact, type Mend, type RunFact, type ServiceFacts } from '../../workflows/findings';

const owner = 'failover/shop/shop-a';
const cell: CellFact = {
  name: 'shop-a-understudy-1',
  role: 'synthetic',
  state: 'serving',
  sourceCell: 'shop-a',
  owner,
  shareBp: 2000,
  coverInstances: 0,
  observed: 'ready',
  requestsPerSecond: 10,
  idleForS: null,
};
const terminated: RunFact = { status: 'terminated', runId: 'r1', endedForS: 60, outcome: null };

function look(change: Partial<CellFact> = {}, run: Partial<RunFact> | null = {}, facts: Partial<ServiceFacts> = {}) {
  const base = { service: 'shop', autonomy: 'act' as const, epoch: 7, graceS: 30, strangers: [] };
  const runs = run === null ? {} : { [owner]: { ...terminated, ...run } };
  return findings({ ...base, runs, cells: [{ ...cell, ...change }], ...facts });
}

const armed = { state: 'armed', shareBp: 0, coverInstances: 2 } as const;
const idle = { state: 'idle', owner: null, shareBp: 0, requestsPerSecond: 0, idleForS: 600 } as const;

describe('Findings', () => {
  type Case = [what: string, cell: Partial<CellFact>, run: Partial<RunFact> | null, kind: string, mend: Mend];
  const found: Case[] = [
    ['a share whose run was terminated', {}, {}, 'split-of-an-ended-run', 'take-over'],
    ['a share whose run failed', {}, { status: 'failed' }, 'split-of-an-ended-run', 'take-over'],
    ['a share whose run Temporal has forgotten', {}, null, 'split-of-an-ended-run', 'take-over'],
    ['a share of nobody', { owner: null }, null, 'traffic-without-owner', 'take-over'],
    ['a share of nobody and of no source', { owner: null, sourceCell: null }, null, 'traffic-without-owner', 'none'],
    [
      'a share that a run left to a person',
      {},
      { status: 'completed', outcome: 'aborted' },
      'share-left-to-a-person',
      'none',
    ],
    [
      'a share at a cell that has gone, although its failover completed',
      { observed: 'absent' },
      { status: 'completed', outcome: 'failed-over' },
      'split-of-an-ended-run',
      'take-over',
    ],
    ['an armed cell whose run was terminated', armed, {}, 'claim-of-an-ended-run', 'rest'],
    [
      'a cell half made',
      { ...armed, state: 'provisioning', observed: 'failed' },
      {},
      'claim-of-an-ended-run',
      'retire',
    ],
    [
      'a cell that was never proven for the pool',
      { ...armed, state: 'warming', owner: 'pool/shop', coverInstances: 0 },
      null,
      'claim-of-an-ended-run',
      'retire',
    ],
    ['a cell of nobody that does not rest', { ...armed, owner: null }, null, 'orphaned-cell', 'rest'],
    ['an idle cell that has died', { ...idle, observed: 'absent' }, null, 'idle-cell-gone', 'retire'],
    ['requests at an idle cell', { ...idle, requestsPerSecond: 3 }, null, 'traffic-outside-the-split', 'none'],
  ];
  for (const [what, change, run, kind, mend] of found) {
    it(`are: ${what} (${kind}, mended by: ${mend})`, () => {
      expect(look(change, run).map((f) => [f.kind, f.mend])).to.deep.equal([[kind, mend]]);
    });
  }

  const fine: [string, Partial<CellFact>, Partial<RunFact> | null][] = [
    ['what a running failover holds', {}, { status: 'running', endedForS: null }],
    ['what ended a moment ago', {}, { endedForS: 5 }],
    ['the share of a failover that completed', {}, { status: 'completed', outcome: 'failed-over' }],
    ['cover that a refusal left on purpose', armed, { status: 'completed', outcome: 'refused' }],
    ['a cell at rest', idle, null],
    ['the last requests at a cell just laid to rest', { ...idle, idleForS: 5, requestsPerSecond: 3 }, null],
    ['an idle cell where no provider could be asked', { ...idle, observed: null }, null],
    ['a cell that is being retired', { state: 'retired', shareBp: 0, owner: null }, null],
    ['declared cells', { role: 'primary', owner: null }, null],
  ];
  for (const [what, change, run] of fine) {
    it(`are not: ${what}`, () => expect(look(change, run)).to.deep.equal([]));
  }

  it('at a service that is only observed are said, and nothing is done', () => {
    const [finding] = look({}, {}, { autonomy: 'observe' });
    expect(finding?.mend).to.equal('none');
    expect(finding?.what).to.contain('nothing is done under autonomy observe');
  });

  it('are cells that no store knows of, unless they answer requests or a run or an operator has them', () => {
    const stranger = { name: 'shop-a-understudy-9', owner, requestsPerSecond: null };
    const strange = (change: object, run: Partial<RunFact> | null = {}) =>
      look({ role: 'primary' }, run, { strangers: [{ ...stranger, ...change }] }).map((f) => f.mend);
    expect(strange({})).to.deep.equal(['destroy']);
    expect(strange({ requestsPerSecond: 5 })).to.deep.equal(['none']);
    expect(strange({}, { status: 'running', endedForS: null })).to.deep.equal([]);
    expect(strange({ owner: 'operator' })).to.deep.equal([]);
    expect(strange({ owner: 'pool/shop' }), 'of the pool').to.deep.equal(['destroy']);
  });

  it('keep their ids from look to look, so that each is told once', () => {
    expect(look({}, { endedForS: 60 })[0]?.id).to.equal(look({}, { endedForS: 120 })[0]?.id);
    expect(look({}, { runId: 'r2' })[0]?.id).to.not.equal(look()[0]?.id);
  });

  it('never take away what carries traffic, whatever the facts', () => {
    const fact = fc.record({
      shareBp: fc.constantFrom(0, 1, 5000),
      state: fc.constantFrom('provisioning', 'warming', 'armed', 'serving', 'idle', 'retired'),
      owner: fc.constantFrom(null, owner),
      observed: fc.constantFrom(null, 'absent', 'ready', 'failed', 'provisioning'),
      coverInstances: fc.constantFrom(0, 2),
    });
    const run = fc.record({ status: fc.constantFrom('running', 'completed', 'cancelled', 'terminated', 'unknown') });
    fc.assert(
      fc.property(fact, run, (change, status) => {
        for (const finding of look(change, status)) {
          if (change.shareBp > 0) expect(['take-over', 'none']).to.include(finding.mend);
          if (status.status === 'running' && change.owner === owner) throw new Error('a running failover is disturbed');
        }
      }),
    );
  });
});
