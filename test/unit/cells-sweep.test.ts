/** What the janitor takes for an orphan, and what it never touches. */
import { expect } from 'chai';
import fc from 'fast-check';
import type { ObservedCell } from '../../cells/provider';
import { judge, sweepCells } from '../../cells/sweep';

const now = Date.parse('2026-01-01T12:00:00Z');
const lapsed = '2026-01-01T11:00:00Z';
const holding = '2026-01-01T13:00:00Z';

const observed = (change: Partial<ObservedCell> = {}): ObservedCell => ({
  cell: 'shop-a-understudy-1',
  service: 'shop',
  owner: 'failover/shop/shop-a',
  phase: 'ready',
  instances: [],
  observedAt: '2026-01-01T12:00:00Z',
  expiresAt: lapsed,
  ...change,
});
const known = { name: 'shop-a-understudy-1', state: 'idle' as const, owner: null };
const splitWith = (cell: string, shareBp: number, coverInstances = 0) => ({
  service: 'shop',
  split: [{ cell, shareBp, coverInstances }],
});
const named = splitWith('shop-a-understudy-1', 500);

describe('Janitor', () => {
  const cases: [string, Parameters<typeof judge>, boolean, RegExp][] = [
    ['what nobody knows and whose lease lapsed', [observed(), undefined, [], now], true, /lease lapsed/],
    ['a destruction that never ended', [observed({ phase: 'deleting' }), undefined, [], now], true, /never ended/],
    ['a lease that holds', [observed({ expiresAt: holding }), undefined, [], now], false, /holds until/],
    ['what the store knows', [observed(), known, [], now], false, /knows it as idle/],
    ['what carries traffic', [observed(), undefined, [named], now], false, /the split of shop names it \(500 bp/],
    [
      'what stands as cover',
      [observed(), undefined, [splitWith('shop-a-understudy-1', 0, 2)], now],
      false,
      /2 instances as cover/,
    ],
    ['another cell’s traffic', [observed(), undefined, [splitWith('shop-b', 10_000)], now], true, /lease lapsed/],
  ];
  for (const [what, args, isOrphan, why] of cases)
    it(`${isOrphan ? 'takes for an orphan' : 'keeps'}: ${what}`, () => {
      const judgement = judge(...args);
      expect(judgement.isOrphan).to.equal(isOrphan);
      expect(judgement.why).to.match(why);
    });

  it('keeps a cell without a lease', () => {
    const { expiresAt: _, ...without } = observed();
    expect(judge(without, undefined, [], now)).to.deep.equal({ isOrphan: false, why: 'it has no lease' });
  });

  it('never takes what a split names, whatever else is so', () => {
    fc.assert(
      fc.property(
        fc.constantFrom<ObservedCell['phase']>('ready', 'idle', 'failed', 'provisioning', 'deleting'),
        fc.constantFrom(lapsed, holding),
        fc.constantFrom(undefined, known),
        fc.nat(10_000),
        fc.nat(4),
        (phase, expiresAt, record, shareBp, cover) => {
          const split = splitWith('shop-a-understudy-1', shareBp, cover);
          expect(judge(observed({ phase, expiresAt }), record, [splitWith('x', 1), split], now).isOrphan).to.equal(
            false,
          );
        },
      ),
    );
  });

  const store = {
    cells: async () => [],
    services: async () => [],
    traffic: async () => undefined,
    whileUnknown: async (_: unknown, work: () => Promise<void>) => {
      await work();
      return undefined;
    },
  };
  const provider = (kind: string, list: () => Promise<ObservedCell[]>, removeLapsed = async () => true) => ({
    kind,
    list,
    removeLapsed,
    ...({} as Record<'ensure' | 'observe' | 'idle' | 'renew' | 'destroy', never>),
  });

  it('says which provider could not be asked, and goes on with the others', async () => {
    const providers = [
      provider('docker', () => Promise.reject(new Error('connect ENOENT /var/run/docker.sock'))),
      provider('process', async () => [observed()]),
    ];
    const looked = await sweepCells(store, providers, { remove: false });
    expect(looked.silent).to.deep.equal([{ provider: 'docker', trouble: 'connect ENOENT /var/run/docker.sock' }]);
    expect(looked.cells.map(({ cell, isOrphan, removed }) => [cell, isOrphan, removed])).to.deep.equal([
      ['shop-a-understudy-1', true, null],
    ]);
    const swept = await sweepCells(store, providers, { remove: true });
    expect(swept.cells.map(({ removed }) => removed)).to.deep.equal([true]);
  });

  it('does not wait for a provider that hangs, neither for what it keeps nor for a removal', async () => {
    const forEver = () => new Promise<never>(() => undefined);
    const providers = [
      provider('exec:slow', forEver),
      provider('docker', async () => [observed({ cell: 'stuck' })], forEver),
      provider('process', async () => [observed()]),
    ];
    const { cells, silent } = await sweepCells(store, providers, { remove: true, withinMs: 50 });
    expect(silent).to.deep.equal([
      { provider: 'exec:slow', trouble: 'its list of cells has not answered within 0.05 s' },
    ]);
    expect(cells.map(({ cell, removed, trouble }) => [cell, removed, trouble])).to.deep.equal([
      ['stuck', false, 'the removal of stuck has not answered within 0.05 s'],
      ['shop-a-understudy-1', true, undefined],
    ]);
  });
});
