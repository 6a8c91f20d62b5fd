/** The look for drift over all declared cells: what it keeps, and whom it does not wait for. */
import { expect } from 'chai';
import type { CellRecord } from '../../blueprints/records';
import type { CellDrift } from '../../cells/capture/capture-cell';
import { lookForDrift, type DriftLook } from '../../cells/look-for-drift';
import { cellsStatusText } from '../../cli/cells-status';
import { blueprintDocument } from '../support/documents';

const nowMs = Date.parse('2026-01-01T12:00:00Z');
const at = '2026-01-01T12:00:00.000Z';
const never = new Promise<never>(() => undefined);
const asUser = { path: 'security.user', matters: 'protection' as const, text: 'it runs as root' };

function storeOf(cells: Record<string, { provider?: string; version?: number; role?: CellRecord['role'] }>) {
  const all = Object.entries(cells).map(([name, { provider = 'process', version = 1, role = 'primary' }]) => ({
    ...{ name, service: 'shop', role, blueprint: { name: provider.replace(':', '-'), version } },
    provider,
  }));
  return {
    cells: async () => all as unknown as CellRecord[],
    blueprint: async (name: string) => {
      const { provider, blueprint } = all.find((cell) => cell.blueprint.name === name)!;
      return { ...blueprint, spec: blueprintDocument({ name, provider }) };
    },
  };
}

describe('The look for drift', () => {
  it('tells for each declared cell where it differs from its blueprint, and when it was seen', async () => {
    const store = storeOf({ a: {}, b: {}, synthetic: { role: 'synthetic' } });
    const seen = async ({ name }: CellRecord) => ({ compared: [`${name}-1`], drift: name === 'a' ? [asUser] : [] });
    const { cells, silent } = await lookForDrift(store, seen, undefined, { nowMs });
    const same = { service: 'shop', blueprint: 'process@1', at };
    expect(cells).to.deep.equal([
      { cell: 'a', ...same, compared: ['a-1'], drift: [asUser] },
      { cell: 'b', ...same, compared: ['b-1'], drift: [] },
    ]);
    expect(silent).to.deep.equal([]);
  });

  it('keeps what another worker saw of a cell that runs elsewhere, until its blueprint is another', async () => {
    const last: DriftLook['cells'] = ['a', 'b'].map((cell) => ({
      ...{ cell, service: 'shop', blueprint: 'process@1', at: '2026-01-01T11:00:00.000Z' },
      ...{ compared: [`${cell}-1`], drift: [asUser] },
    }));
    const store = storeOf({ a: {}, b: { version: 2 } });
    const blueprints = {
      ...store,
      blueprint: async (name: string, version?: number) => ({ ...(await store.blueprint(name)), version: version! }),
    };
    const unseen = async () => ({ compared: [], drift: [] });
    const { cells } = await lookForDrift(blueprints, unseen, { cells: last, silent: [] }, { nowMs });
    expect(cells).to.deep.equal([last[0]]);
  });

  it('tells what fails at one cell of that cell alone: the others of its provider are seen', async () => {
    const store = storeOf({ a: {}, b: {}, c: {} });
    const look = await lookForDrift(
      store,
      async ({ name }) => {
        if (name === 'a') throw new Error('no such container');
        return { compared: [`${name}-1`], drift: [] };
      },
      undefined,
      { nowMs },
    );
    expect(look.cells.map(({ cell }) => cell)).to.deep.equal(['b', 'c']);
    expect(look.silent).to.deep.equal([{ cell: 'a', trouble: 'no such container' }]);
  });

  it('waits for no cell that hangs, and no provider waits for another', async () => {
    const store = storeOf({ a: { provider: 'exec:slow' }, b: { provider: 'exec:slow' }, c: {} });
    const look = await lookForDrift(
      store,
      async ({ name }) => {
        if (name === 'a') await never;
        return { compared: [`${name}-1`], drift: [] };
      },
      undefined,
      { nowMs, withinMs: 50 },
    );
    expect(look.cells.map(({ cell }) => cell)).to.deep.equal(['b', 'c']);
    expect(look.silent).to.deep.equal([{ cell: 'a', trouble: 'what runs of a has not answered within 0.05 s' }]);
  });

  it('ends in time though every cell of a provider hangs: whom it did not come to is named, and is first the next time', async () => {
    const slow = { provider: 'exec:slow' };
    const store = storeOf({ a: slow, b: slow, c: slow, d: slow, e: {} });
    const asked: string[] = [];
    const hangs = ({ name }: CellRecord): Promise<CellDrift> => {
      asked.push(name);
      return name === 'a' || name === 'b' ? never : Promise.resolve({ compared: [`${name}-1`], drift: [] });
    };
    const first = await lookForDrift(store, hangs, undefined, { nowMs, withinMs: 200, providerWithinMs: 150 });
    expect(asked.sort()).to.deep.equal(['a', 'e']);
    expect(first.silent.map(({ cell, notAsked = false }) => [cell, notAsked])).to.deep.equal([
      ['a', false],
      ['b', true],
      ['c', true],
      ['d', true],
    ]);
    const status = cellsStatusText({ idle: [], sweep: null, drift: { ...first, at } });
    expect(status).to.contain('1 declared cells seen, 0 drifted from their blueprint, 4 could not be looked at');
    expect(status).to.contain('  a could not be looked at: what runs of a has not answered within 0.2 s');
    expect(status).to.contain(
      '  c could not be looked at: the other cells of provider exec:slow took the 0.15 s that it has in one look',
    );

    asked.length = 0;
    const second = await lookForDrift(store, hangs, first, { nowMs, withinMs: 50 });
    expect(asked.filter((name) => name !== 'e')).to.deep.equal(['b', 'c', 'd', 'a']);
    asked.length = 0;
    await lookForDrift(store, hangs, second, { nowMs, withinMs: 50 });
    expect(asked.filter((name) => name !== 'e')).to.deep.equal(['c', 'd', 'a', 'b']);
  });

  it('goes on showing what was seen last of a cell that cannot be looked at now', async () => {
    const store = storeOf({ a: {} });
    const found = await lookForDrift(store, async () => ({ compared: ['a-1'], drift: [asUser] }), undefined, { nowMs });
    const fails = () => Promise.reject(new Error('no such container'));
    const later = await lookForDrift(store, fails, found, { nowMs: nowMs + 900_000 });
    expect(later.cells).to.deep.equal(found.cells);
    expect(later.silent.map(({ cell }) => cell)).to.deep.equal(['a']);
    const status = cellsStatusText({ idle: [], sweep: null, drift: { ...later, at: '2026-01-01T12:15:00.000Z' } });
    expect(status).to.contain(`  a (process@1, seen ${at}): protection: security.user: it runs as root`);
    expect(status).to.contain('  a could not be looked at: no such container');
  });
});
