/** What load reports say, and what they do not. */
import { expect } from 'chai';
import { LoadLedger, type CellReport } from '../../envoy/load-ledger';

const cell = (name: string, issued: number, failed = 0, inProgress = 0): CellReport => ({
  cell: name,
  issued,
  succeeded: issued - failed,
  failed,
  inProgress,
});
const report = (cells: CellReport[], intervalMs = 1000) => ({ cluster: 'shop', intervalMs, cells });

describe('Load ledger', () => {
  it('divides by the interval as it was and adds up the proxies', () => {
    const ledger = new LoadLedger(5000);
    ledger.record('p1', report([cell('a', 30, 3, 2), cell('b', 10)], 500), 1000);
    ledger.record('p2', report([cell('a', 20, 0, 1)], 1000), 1200);
    const a = ledger.read('shop', 1500).get('a')!;
    expect(a).to.deep.include({ requestsPerSecond: 80, errorRatio: 0.06, requestsInFlight: 3, requestsTotal: 50 });
    expect(a).to.deep.include({ ageMs: 300, errorsTotal: 3, measuredBp: 8333, measured: true });
  });

  it('does not take the absence of a cell for zero requests in flight', () => {
    const ledger = new LoadLedger(5000);
    ledger.record('p1', report([cell('a', 10, 0, 7), cell('b', 10)]), 1000);
    ledger.record('p1', report([cell('b', 10)]), 2000);
    const a = ledger.read('shop', 2000).get('a')!;
    expect(a.requestsInFlight).to.equal(7);
    expect(a.requestsPerSecond).to.equal(5);
    expect(a.ageMs).to.equal(1000);
  });

  it('says that it does not know once no report of the last seconds covers the cell', () => {
    const ledger = new LoadLedger(5000);
    ledger.record('p1', report([cell('a', 10), cell('b', 10)]), 1000);
    ledger.record('p1', report([cell('b', 10)]), 7000);
    expect(ledger.read('shop', 7000).get('a')).to.include({ measured: false, requestsTotal: 10, ageMs: 6000 });
    expect(ledger.read('shop', 7000).get('c')).to.equal(undefined);
  });

  it('forgets what a proxy that has gone had in flight, but not what it had done', () => {
    const ledger = new LoadLedger(5000);
    ledger.record('p1', report([cell('a', 10, 1, 4)]), 1000);
    ledger.forget('p1');
    const a = ledger.read('shop', 1000).get('a')!;
    expect(a).to.include({ requestsInFlight: 0, requestsTotal: 10, errorsTotal: 1, measured: false });
  });
});
