/** The part of the reliability matrix that every run of the tests plays; all of it: `npm run test:chaos`. */
import { expect } from 'chai';
import { Bench } from '../chaos/bench';
import { everyRow } from '../chaos/matrix';
import { runRow, type Verdict } from '../chaos/row';
import { sideBySide } from '../chaos/side-by-side';
import { quietRuntime } from '../support/failover-bench';

/** A worker's death before and after one side effect of each kind, and one row of every other kind of trouble. */
const chosen = [
  /^T1 killed (before|after) provider.ensure in/,
  /^T1 killed (before|after) traffic.applySplit in shiftTraffic\(canary\)/,
  /^T1 killed (before|after) traffic.applySplit in shiftTraffic\(complete\)/,
  /^T1 killed after store.beginRetirement in/,
  /^T1 killed before store.saveDossier in/,
  /^T9 without a cache of workflows: there-and-back/,
  /^T6 terminated while shifting/,
  /^T5 two operators at once in shiftTraffic\(canary\): complete and abort/,
  /^T11 the provider says ready, and nothing listens/,
  /^T11 the provider makes a second cell/,
  /^T7 refused for good, until a person resumes: store.restCell/,
  /^T15 killed (before|after) provider.ensure/,
];

describe('Failovers that are attacked, on real servers', function () {
  this.timeout(600_000);
  const rows = everyRow(1).filter(({ title }) => chosen.some((pattern) => pattern.test(title)));
  const verdicts = new Map<string, Verdict>();
  let bench: Bench;

  before(async () => {
    quietRuntime();
    bench = await Bench.open();
    await sideBySide(rows, 4, async (row) => void verdicts.set(row.title, await runRow(bench, row)));
  });
  after(() => bench?.close());

  it('are of every kind that was chosen', () => {
    for (const pattern of chosen)
      expect(
        rows.some(({ title }) => pattern.test(title)),
        String(pattern),
      ).to.equal(true);
  });

  for (const { title } of rows) {
    it(`${title}: ends in a named outcome, with every promise kept`, () => {
      expect(verdicts.get(title)?.broken).to.deep.equal([]);
    });
  }
});
