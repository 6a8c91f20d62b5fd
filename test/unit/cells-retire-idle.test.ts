/** Which idle synthetic cells are due to be retired. */
import { expect } from 'chai';
import type { CellRecord } from '../../blueprints/records';
import { cellsToRetire } from '../../cells/retire-idle';

describe('Idle synthetic cells', () => {
  const byTime = ({ service }: CellRecord) =>
    service === 'shop' ? { keepS: 60, worth: 0, keepAtMostS: 86_400 } : undefined;
  const idle = (name: string, idleForS: number, service = 'shop') => ({
    cell: { name, service } as CellRecord,
    idleForS,
  });

  it('are kept for as long as the policy of their service says, and no longer', () => {
    const due = cellsToRetire([idle('a', 59.9), idle('b', 60), idle('c', 3600)], byTime);
    expect(due.map(({ cell }) => cell.name)).to.deep.equal(['b', 'c']);
  });

  it('are kept when nobody knows the policy of their service', () => {
    expect(cellsToRetire([idle('a', 3600, 'gone')], byTime)).to.deep.equal([]);
  });

  it('are kept, the newest, as far as they are worth their cost, and never longer than they may', () => {
    const due = (worth: number) =>
      cellsToRetire([idle('a', 90_000), idle('b', 3600), idle('c', 10)], () => ({
        keepS: 0,
        worth,
        keepAtMostS: 86_400,
      }))
        .map(({ cell }) => cell.name)
        .join('');
    expect([due(0), due(1), due(2), due(3)]).to.deep.equal(['abc', 'ab', 'a', 'a']);
  });

  it('of a blueprint that has changed go once as many of the present one lie idle as are wanted, and at once where none is', () => {
    const due = (outdatedUntil: number, present: string[] = []) =>
      cellsToRetire(
        ['old', ...present].map((name) => idle(name, 10)),
        ({ name }) => ({ keepS: 60, worth: 1, keepAtMostS: 86_400, ...(name === 'old' && { outdatedUntil }) }),
      ).map(({ cell }) => cell.name);
    expect(due(1), 'until there is another').to.deep.equal([]);
    expect(due(1, ['new'])).to.deep.equal(['old']);
    expect(due(2, ['new'])).to.deep.equal([]);
    expect(due(0)).to.deep.equal(['old']);
  });
});
