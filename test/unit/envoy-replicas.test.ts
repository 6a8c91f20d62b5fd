/** What is put together from several replicas, decided without servers: who has a split, what a cell carries, how it drains. */
import { expect } from 'chai';
import fc from 'fast-check';
import { drainingSplit } from '../../envoy/drain';
import { mergeLoads, quiet, type ReplicaLoads } from '../../envoy/replicas/loads';
import { emptyStanding, fleetStanding, whereabouts, type OtherReplica } from '../../envoy/replicas/standing';
import { BadRequestError, readFieldViolations, statusOf } from '../../envoy/traffic-errors';

const other = (change: Partial<OtherReplica> = {}): OtherReplica => ({
  id: 'b',
  silentMs: 0,
  lost: false,
  proxies: ['q'],
  holding: { epoch: 7, ...emptyStanding, acknowledged: ['q'] },
  ...change,
});
const local = { ...emptyStanding, acknowledged: ['p'] };

describe('The standing of a fleet of proxies', () => {
  const stand = (now: OtherReplica[], then: OtherReplica[] = now, here = local) =>
    fleetStanding(7, 'a', here, now, whereabouts('a', local, then));

  it('counts the proxies of all replicas', () => {
    expect(stand([other()])).to.deep.include({ acknowledged: ['p', 'q'], pending: [], gone: [], moved: [] });
  });
  it('waits for the proxies of a replica that has not published the epoch', () => {
    expect(stand([other({ holding: { epoch: 6, ...emptyStanding, acknowledged: ['q'] } })]).pending).to.deep.equal([
      'q',
    ]);
  });
  it('waits for a replica of which nobody knows who is connected to it', () => {
    expect(stand([other({ proxies: [], holding: undefined })]).pending).to.deep.equal(['(replica b)']);
  });
  it('names who moved from a replica that fell silent to another', () => {
    const moved = { ...local, acknowledged: ['p', 'q'] };
    expect(stand([other({ holding: undefined })], [other()], moved)).to.deep.include({ moved: ['q'], pending: [] });
  });
  it('names as gone whom a lost replica took along, and waits for them no longer', () => {
    expect(stand([other({ lost: true })], [other()])).to.deep.include({
      gone: ['q'],
      pending: [],
      acknowledged: ['p'],
    });
  });
  it('does not miss for ever the proxies of a replica that was lost before the wait began', () => {
    expect(stand([other({ lost: true })]).gone).to.deep.equal([]);
  });
  it('takes a proxy that refuses anywhere for one that refuses', () => {
    const refused = [{ node: 'q', resource: 'endpoints shop', reason: 'no' }];
    const here = { acknowledged: ['p', 'q'], refused: [], pending: [] };
    const standing = stand([other({ holding: { epoch: 7, ...emptyStanding, refused } })], undefined, here);
    expect(standing).to.deep.include({ acknowledged: ['p'], refused, pending: [] });
  });
});

describe('Load reports of several replicas', () => {
  const load = (change: object = {}) => ({
    measured: true,
    requestsPerSecond: 10,
    errorRatio: 0,
    requestsInFlight: 0,
    measuredBp: 5000,
    ageMs: 100,
    requestsTotal: 100,
    errorsTotal: 0,
    requestsSeen: 100,
    ...change,
  });
  const part = (change: object, reports: ReplicaLoads['reports'], ageMs = 0) => ({
    ageMs,
    loads: { cells: [{ cell: 'x', load: load(change) }], reports },
  });

  it('add up, errors and shares weighed by requests, as old as their oldest part', () => {
    const merged = mergeLoads([
      part({}, [{ node: 'p', ageMs: 100 }]),
      part(
        { requestsPerSecond: 30, errorRatio: 0.4, measuredBp: 1000, requestsSeen: 300 },
        [{ node: 'q', ageMs: 100 }],
        900,
      ),
    ]);
    expect(merged.cells[0]!.load).to.deep.include({
      requestsPerSecond: 40,
      ageMs: 1000,
      requestsTotal: 200,
      measuredBp: 2000,
    });
    expect(merged.cells[0]!.load.errorRatio).to.be.closeTo(0.3, 1e-9);
    expect(merged.reports).to.deep.equal([
      { node: 'p', ageMs: 100 },
      { node: 'q', ageMs: 1000 },
    ]);
  });

  const verdict = (change: object, reports: ReplicaLoads['reports'], sinceMs = 1000) =>
    quiet('x', part(change, reports).loads, ['p', 'q'], sinceMs).verdict;
  const both = (ageMs: number) => [
    { node: 'p', ageMs },
    { node: 'q', ageMs },
  ];

  it('show that a cell is quiet once every proxy has reported without a trace of it', () => {
    expect(verdict({ ageMs: 5000 }, both(200))).to.equal('quiet');
  });
  it('do not show it while requests are in flight, or the newest report still has the cell', () => {
    expect(verdict({ ageMs: 5000, requestsInFlight: 1 }, both(200))).to.equal('carrying');
    expect(verdict({ ageMs: 200 }, both(200))).to.equal('carrying');
  });
  it('do not show it as long as one proxy has not reported since: absence is not zero', () => {
    expect(verdict({ ageMs: 5000 }, [{ node: 'p', ageMs: 200 }])).to.equal('unknown');
    expect(verdict({ ageMs: 5000 }, both(200), 100)).to.equal('unknown');
  });
});

describe('A draining split', () => {
  it('spreads the share in proportion, to the basis point, and leaves the cell named', () => {
    const shares = fc.uniqueArray(fc.integer({ min: 1, max: 4999 }), { minLength: 2, maxLength: 5 });
    fc.assert(
      fc.property(shares, (cuts) => {
        const sorted = [...cuts, 0, 10_000].sort((a, b) => a - b);
        const split = sorted
          .slice(1)
          .map((cut, i) => ({ cell: `c${i}`, shareBp: cut - sorted[i]!, coverInstances: 0 }));
        const drained = drainingSplit('shop', split, 'c0');
        expect(drained.reduce((sum, s) => sum + s.shareBp, 0)).to.equal(10_000);
        expect(drained.find((s) => s.cell === 'c0')).to.deep.equal({ cell: 'c0', shareBp: 0, coverInstances: 0 });
        for (const s of split.slice(1)) {
          const exact = (10_000 * s.shareBp) / (10_000 - split[0]!.shareBp);
          expect(Math.abs(drained.find((d) => d.cell === s.cell)!.shareBp - exact)).to.be.below(1);
        }
      }),
    );
  });
  it('gives all to the one that is named', () => {
    const split = [{ cell: 'x', shareBp: 10_000, coverInstances: 0 }];
    expect(drainingSplit('shop', split, 'x', 'y')[0]).to.deep.equal({ cell: 'y', shareBp: 10_000, coverInstances: 0 });
    expect(() => drainingSplit('shop', split, 'x')).to.throw('nobody else takes a share');
  });
});

describe('A bad request', () => {
  it('is answered with the field named, readably and as google.rpc.BadRequest', () => {
    const violations = [{ field: 'split[0].share_bp', problem: 'must be a whole number' }];
    const status = statusOf(new BadRequestError(violations))!;
    expect(status).to.include({ code: 3, details: 'split[0].share_bp: must be a whole number' });
    expect(readFieldViolations(status.metadata.get('grpc-status-details-bin')[0] as Buffer)).to.deep.equal(violations);
  });
});
