/** Which idle synthetic cells are due to be retired. */
import { expect } from 'chai';
import type { CellRecord } from '../../blueprints/records';
import { cellsToRetire } from '../../cells/retire-idle';
import { serviceDocument } from '../support/documents';

describe('Idle synthetic cells', () => {
  const services = [{ name: 'shop', spec: serviceDocument({ policy: { retireAfterS: 60 } }) }];
  const idle = (name: string, idleForS: number, service = 'shop') => ({
    cell: { name, service } as CellRecord,
    idleForS,
  });

  it('are kept for as long as the policy of their service says, and no longer', () => {
    const due = cellsToRetire([idle('a', 59.9), idle('b', 60), idle('c', 3600)], services);
    expect(due.map(({ cell }) => cell.name)).to.deep.equal(['b', 'c']);
  });

  it('are kept when nobody knows the policy of their service', () => {
    expect(cellsToRetire([idle('a', 3600, 'gone')], services)).to.deep.equal([]);
  });
});
