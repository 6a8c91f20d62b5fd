/** `understudy cells status` tells how idle cells rest, and why so. */
import { expect } from 'chai';
import type { IdleCell } from '../../blueprints/store';
import { cellsStatus, cellsStatusText } from '../../cli/cells-status';

describe('The status of cells', () => {
  it('tells of each idle cell how it rests and by what measurement, and of one from before only that it does', async () => {
    const idle = (name: string, rest?: IdleCell['cell']['rest']) =>
      ({ cell: { name, blueprint: { name: 'shop', version: 2 }, ...(rest && { rest }) }, idleForS: 59.6 }) as IdleCell;
    const why = 'auto: the last start was ready after 0.40 s, within the 2 s allowed';
    const store = {
      lastLook: async () => undefined,
      idleCells: async () => [idle('shop-a-understudy-1', { how: 'stopped', why }), idle('shop-a-understudy-2')],
    };
    const text = cellsStatusText(await cellsStatus(store));
    expect(text.split('\n').slice(0, 3)).to.deep.equal([
      '2 synthetic cells wait idle',
      `  shop-a-understudy-1 (shop@2, idle for 60 s) rests stopped: ${why}`,
      '  shop-a-understudy-2 (shop@2, idle for 60 s) rests',
    ]);
  });
});
