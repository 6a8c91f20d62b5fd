/** The part of the reliability matrix that every run of the tests plays; all of it: `npm run test:chaos`. */
import { expect } from 'chai';
import { Bench } from '../chaos/bench';
import { everyRow, runRow, type Verdict } from '../chaos/matrix';
import { sideBySide } from '../chaos/side-by-side';
import { quietRuntime } from '../support/failover-bench';

/** Of each kind of side effect one, killed before and after. */
const chosen = [/^T1 killed (before|after) traffic.applySplit in shiftTraffic\(canary\)/];

describe('Failovers that are attacked, on real servers', function () {
  this.timeout(300_000);
  const rows = everyRow().filter(({ title }) => chosen.some((pattern) => pattern.test(title)));
  const verdicts = new Map<string, Verdict>();
  let bench: Bench;

  before(async () => {
    quietRuntime();
    bench = await Bench.open();
    await sideBySide(rows, 6, async (row) => void verdicts.set(row.title, await runRow(bench, row)));
  });
  after(() => bench?.close());

  for (const { title } of rows) {
    it(`${title}: ends in a named outcome, with every promise kept`, () => {
      expect(verdicts.get(title)?.broken).to.deep.equal([]);
    });
  }
});
