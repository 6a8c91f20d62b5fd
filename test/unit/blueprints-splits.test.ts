/** Which splits can be. */
import { expect } from 'chai';
import type { CellRecord, CellShare } from '../../blueprints/records';
import { splitProblems } from '../../blueprints/splits';

const cell = (name: string, instances: number, state: CellRecord['state'] = 'active') =>
  ({ name, state, instances: Array.from({ length: instances }, () => ({})) }) as CellRecord;
const cells = [cell('a', 2), cell('b', 2), cell('s', 2, 'armed'), cell('empty', 0), cell('old', 2, 'retired')];
const share = (name: string, shareBp: number, coverInstances = 0): CellShare => ({
  cell: name,
  shareBp,
  coverInstances,
});

describe('A split', () => {
  const accepted: [string, CellShare[]][] = [
    ['shares between cells', [share('a', 4000), share('b', 6000)]],
    ['a synthetic cell wholly as cover', [share('a', 10_000), share('s', 0, 2)]],
    ['a canary with the rest as cover', [share('a', 9500), share('s', 500, 1)]],
    ['a cell without a share and without cover', [share('a', 10_000), share('empty', 0)]],
  ];
  for (const [what, split] of accepted)
    it(`can have ${what}`, () => expect(splitProblems(split, cells)).to.deep.equal([]));

  const refused: [string, CellShare[], string][] = [
    ['shares that do not add up', [share('a', 9999)], 'the shares add up to 9999, not 10000'],
    ['a cell twice', [share('a', 5000), share('a', 5000)], 'cell a is named twice'],
    ['an unknown cell', [share('x', 10_000)], 'cell x is not a cell of the service (it has: a, b, s, empty, old)'],
    ['a share of a cell without instances', [share('empty', 10_000)], 'cell empty has no instances to take 10000 bp'],
    ['a cell that is being retired', [share('a', 10_000), share('old', 0)], 'cell old is being retired'],
    [
      'more cover than instances',
      [share('a', 10_000), share('s', 0, 3)],
      'cell s has 2 instances, 3 of which cannot be cover',
    ],
    [
      'a share that no instance is left to take',
      [share('a', 9500), share('s', 500, 2)],
      'cell s: all 2 instances are cover, none is left to take 500 bp',
    ],
    [
      'a negative share',
      [share('a', 10_100), share('b', -100)],
      'cell a: the share must be a whole number of basis points from 0 to 10000, not 10100',
    ],
  ];
  for (const [what, split, problem] of refused)
    it(`cannot have ${what}`, () => expect(splitProblems(split, cells)).to.include(problem));
});
