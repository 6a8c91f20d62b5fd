/** The consistency checker finds each thing that a stateful service must not do, and nothing where there is nothing. */
import { expect } from 'chai';
import { checkHistory, type Rule } from '../../lab/stateful/checker';
import type { HistoryEntry } from '../../lab/stateful/history';

type Outcome = HistoryEntry['outcome'];
const at = (startMs: number, outcome: Outcome = 'ok') => ({
  client: 0,
  cell: 'a',
  startMs,
  endMs: startMs + 5,
  outcome,
});
const append = (startMs: number, value: string, outcome?: Outcome): HistoryEntry => ({
  ...at(startMs, outcome),
  kind: 'append',
  list: 'orders',
  value,
});
const list = (startMs: number, values: string[], mayBeStale = false): HistoryEntry => ({
  ...at(startMs),
  kind: 'read-list',
  list: 'orders',
  mayBeStale,
  values,
});
const set = (startMs: number, version: number, outcome?: Outcome): HistoryEntry => ({
  ...at(startMs, outcome),
  kind: 'set',
  register: 'price',
  version,
  value: `v${version}`,
});
const register = (startMs: number, version: number, mayBeStale = false): HistoryEntry => ({
  ...at(startMs),
  kind: 'read-register',
  register: 'price',
  mayBeStale,
  version,
  value: version > 0 ? `v${version}` : '',
});

const found = (...history: HistoryEntry[]): Rule[] => [...new Set(checkHistory(history).map(({ rule }) => rule))];

describe('The consistency checker', () => {
  it('is content with a history in which every promise was kept', () => {
    expect(
      found(
        append(0, 'a'),
        list(10, ['a']),
        append(20, 'b', 'unknown'),
        append(30, 'b'),
        append(40, 'c', 'failed'),
        list(50, ['a'], true),
        set(60, 1),
        register(70, 1),
        set(80, 2, 'unknown'),
        register(90, 1, true),
        register(100, 2),
        list(110, ['a', 'b']),
      ),
    ).to.deep.equal([]);
  });

  it('does not ask for what nobody was promised: an unknown append may be there or not, concurrent reads may differ', () => {
    expect(found(append(0, 'a', 'unknown'), list(20, []))).to.deep.equal([]);
    expect(found(append(0, 'a', 'unknown'), list(20, ['a']))).to.deep.equal([]);
    expect(found(append(0, 'a'), list(2, []), list(3, ['a']), list(20, ['a']))).to.deep.equal([]);
  });

  const broken: [string, Rule, HistoryEntry[]][] = [
    ['an acknowledged append that is gone', 'lost-append', [append(0, 'a'), append(10, 'b'), list(20, ['b'])]],
    ['an append that is there twice', 'duplicate', [append(0, 'a'), list(20, ['a', 'a'])]],
    ['a value that nobody wrote', 'phantom', [append(0, 'a'), list(20, ['a', 'x'])]],
    ['an append that surely failed and is there', 'phantom', [append(0, 'a', 'failed'), list(20, ['a'])]],
    [
      'an append that is read before it was asked for',
      'phantom',
      [list(0, ['a'], true), append(20, 'a'), list(30, ['a'])],
    ],
    [
      'an order that changed, in a stale read too',
      'order-changed',
      [append(0, 'a', 'unknown'), append(1, 'b'), list(10, ['a', 'b'], true), list(20, ['b', 'a'])],
    ],
    ['a current list without what was acknowledged', 'stale-list', [append(0, 'a'), list(10, []), list(20, ['a'])]],
    [
      'a current list shorter than one before it',
      'stale-list',
      [append(0, 'a', 'unknown'), list(10, ['a']), list(20, []), list(30, ['a'])],
    ],
    ['a register older than what was acknowledged', 'stale-register', [set(0, 1), set(10, 2), register(20, 1)]],
    [
      'a register that goes back',
      'register-went-back',
      [set(0, 1), set(10, 2, 'unknown'), register(20, 2), register(30, 1)],
    ],
    ['a version that nobody wrote', 'wrong-value', [set(0, 1), register(10, 3)]],
    ['a history that ends before it can be judged', 'nothing-checked', [list(0, []), append(10, 'a')]],
    ['no history at all', 'nothing-checked', []],
  ];
  for (const [what, rule, history] of broken) {
    it(`finds ${what}`, () => expect(found(...history)).to.include(rule));
  }
});
