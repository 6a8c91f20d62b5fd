/** What load reports say, and what they do not. */
import { expect } from 'chai';
import fc from 'fast-check';
import { upstreamLatencyMs } from '../../envoy/access-logs';
import { LatencyLedger } from '../../envoy/latency-ledger';
import { LoadLedger, type CellReport } from '../../envoy/load-ledger';
import { measuredShare } from '../../envoy/measured-share';
import { carriesLiveTraffic } from '../../envoy/resources/resource';

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

  it('does not blame a cell for what Envoy shed before it reached the cell', () => {
    const ledger = new LoadLedger(5000);
    const loads = (shed: number, ...cells: CellReport[]) => ledger.record('p1', { ...report(cells), shed }, 1000);
    const failed = (name: string) => ledger.read('shop', 1000).get(name)?.errorsTotal;
    // Of a's 23 none was issued; b failed 5 of its own beside the 21.
    loads(44, cell('a', 8, 0, 8), cell('b', 13, 5, 0));
    loads(44, { ...cell('a', 0, 0, 8), failed: 23 }, { ...cell('b', 13, 5, 0), failed: 26 });
    expect(failed('a')).to.equal(0);
    expect(failed('b')).to.equal(10);
    // Connections that are refused are not issued either, and are the cell's own.
    loads(3, { ...cell('a', 0, 0, 8), failed: 0 }, { ...cell('b', 0, 0, 0), failed: 12 });
    expect(failed('b')).to.equal(19);
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

  it('counts the time in which a proxy spoke but not of this cluster: its rate falls instead of standing still', () => {
    const ledger = new LoadLedger(5000);
    ledger.connected('p1', 0);
    ledger.heard('p1', [report([cell('a', 30)])], 1000);
    expect(ledger.read('shop', 1000).get('a')).to.include({ requestsPerSecond: 30 });
    ledger.heard('p1', [], 3000);
    expect(ledger.read('shop', 3000).get('a')).to.include({ requestsPerSecond: 10, ageMs: 2000, measured: true });
  });

  it('names a proxy that is connected but silent, and one that has not reported yet', () => {
    const ledger = new LoadLedger(5000, 3000);
    for (const node of ['speaks', 'stalls']) {
      ledger.connected(node, 0);
      ledger.heard(node, [report([cell('a', 10)])], 1000);
    }
    ledger.heard('speaks', [report([cell('a', 10)])], 4500);
    ledger.connected('new', 4500);
    const a = ledger.read('shop', 4500).get('a')!;
    expect(a).to.deep.include({ silentProxies: ['stalls'], startingProxies: ['new'], requestsTotal: 30 });
    expect(ledger.proxies(4500)).to.deep.equal([
      { node: 'speaks', state: 'reporting', ageMs: 0 },
      { node: 'stalls', state: 'silent', ageMs: 3500 },
      { node: 'new', state: 'starting', ageMs: 0 },
    ]);
    ledger.forget('stalls');
    expect(ledger.read('shop', 4500).get('a')!.silentProxies).to.deep.equal([]);
  });

  it('takes the clusters of a service together, each with its own cell', () => {
    const ledger = new LoadLedger(5000);
    ledger.record('p1', { cluster: 'shop/a', intervalMs: 1000, cells: [cell('a', 90)] }, 1000);
    ledger.record('p1', { cluster: 'shop/b', intervalMs: 1000, cells: [cell('b', 9), cell('a', 1)] }, 1000);
    ledger.record('p1', { cluster: 'shop|b', intervalMs: 1000, cells: [cell('b', 500)] }, 1000);
    const loads = ledger.read((name) => carriesLiveTraffic(name, 'shop'), 1000);
    expect(loads.get('a')).to.include({ measuredBp: 9100, requestsPerSecond: 91 });
    expect(loads.get('b')).to.include({ measuredBp: 900, requestsTotal: 9 });
  });
});

describe('Measured share', () => {
  it('says how sure it is', () => {
    // Figures from the formula, computed by hand: 5 of 100, and none of 40.
    expect(measuredShare(5, 100)).to.deep.equal({ measuredBp: 500, measuredLowBp: 215, measuredHighBp: 1118 });
    expect(measuredShare(0, 40)).to.deep.equal({ measuredBp: 0, measuredLowBp: 0, measuredHighBp: 877 });
    expect(measuredShare(0, 0)).to.deep.equal({ measuredBp: 0, measuredLowBp: 0, measuredHighBp: 10_000 });
  });

  it('holds the commanded share in about 95 of 100 samples of random picks', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 2 ** 31 - 1 }), (seed) => {
        const picks = randomPicks(seed);
        let held = 0;
        for (let sample = 0; sample < 200; sample += 1) {
          const { measuredLowBp, measuredHighBp } = measuredShare(picks(300, 0.05), 300);
          if (measuredLowBp <= 500 && measuredHighBp >= 500) held += 1;
        }
        expect(held).to.be.within(176, 200);
      }),
      { numRuns: 3 },
    );
  });
});

describe('Latency ledger', () => {
  const any = (): boolean => true;

  it('tells quantiles within 1 %, over proxies and slices of time', () => {
    const ledger = new LatencyLedger(30_000, 5000);
    for (let ms = 1; ms <= 1000; ms += 1) ledger.record('shop', 'a', ms, ms * 20);
    const a = ledger.read(any, 20_000).get('a')!;
    expect(a.p50Ms).to.be.closeTo(500, 6);
    expect(a.p99Ms).to.be.closeTo(990, 11);
    expect(a).to.include({ samples: 1000, ageMs: 0 });
  });

  it('knows no 99th percentile of a few, and nothing of what is long past', () => {
    const ledger = new LatencyLedger(30_000, 5000);
    for (let n = 0; n < 99; n += 1) ledger.record('shop', 'a', 10, 1000);
    expect(ledger.read(any, 2000).get('a')).to.include({ p99Ms: undefined, samples: 99, ageMs: 1000 });
    expect(ledger.read(any, 40_000).size).to.equal(0);
  });

  it('takes a request that was given up for as long as it was waited for, and one that reached nobody for nothing', () => {
    const seconds = (s: number) => ({ seconds: String(s), nanos: 0 });
    const entry = (times: object) => upstreamLatencyMs({ common_properties: times });
    const time_to_first_upstream_tx_byte = seconds(1);
    expect(entry({ time_to_first_upstream_tx_byte, time_to_last_upstream_rx_byte: seconds(3) })).to.equal(2000);
    expect(entry({ time_to_first_upstream_tx_byte, duration: seconds(16) })).to.equal(15_000);
    expect(entry({ duration: seconds(16) })).to.equal(undefined);
  });
});

/** How many of so many picks hit, reproducibly. */
function randomPicks(seed: number): (picks: number, probability: number) => number {
  let state = seed;
  const next = (): number => {
    state = Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9;
    const mixed = Math.imul(state ^ (state >>> 12), 0x297a2d39);
    return ((mixed ^ (mixed >>> 15)) >>> 0) / 2 ** 32;
  };
  return (picks, probability) => Array.from({ length: picks }, next).filter((value) => value < probability).length;
}
