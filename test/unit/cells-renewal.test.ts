import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import type { RenewedIdentities } from '../../cells/identity/keeper';
import { startRenewal } from '../../cells/identity/renewal';
import { waitUntil } from '../../local/wait';

describe('The renewal of certificates', () => {
  // A round each 10 ms.
  const lifetimeS = 0.08;

  it('begins no round while one waits for the authority, goes on after one that failed, and ends with its last', async () => {
    const ends: ((result: RenewedIdentities[] | Error) => void)[] = [];
    const reports: (RenewedIdentities[] | Error)[] = [];
    const renewDue = () =>
      new Promise<RenewedIdentities[]>((resolve, reject) => {
        ends.push((result) => (result instanceof Error ? reject(result) : resolve(result)));
      });
    const renewal = startRenewal({ renewDue }, lifetimeS, (report) => reports.push(report));
    expect(ends).to.have.length(1);
    await sleep(60);
    expect(ends).to.have.length(1);
    const outage = new Error('the authority does not answer');
    ends[0]!(outage);
    await waitUntil(() => ends.length === 2, { withinMs: 10_000, what: 'the next round begins' });
    expect(reports).to.deep.equal([outage]);
    let isStopped = false;
    const stopped = renewal.stop().then(() => (isStopped = true));
    await sleep(30);
    expect(isStopped).to.equal(false);
    ends[1]!([]);
    await stopped;
    expect(reports).to.deep.equal([outage, []]);
    await sleep(30);
    expect(ends).to.have.length(2);
  });
});
