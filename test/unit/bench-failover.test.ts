import { expect } from 'chai';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ArmName } from '../../bench/failover/arms';
import { baselineS, caseOf, faultNames } from '../../bench/failover/cases';
import { publishedRuns, publishedTable, readRunLines, tablePage, withShortTable } from '../../bench/failover/publish';
import { fullReport } from '../../bench/failover/report';
import { reportPage } from '../../bench/failover/report-html';
import type { ArmResult, RunResult } from '../../bench/failover/result';
import { remainingS, scheduleOf } from '../../bench/failover/schedule';
import { rowsOf, spreadOf, warningOf } from '../../bench/failover/statistics';
import { overallVerdicts, ratio, verdictsOf } from '../../bench/failover/verdict';
import { rates, spareHoursOfWeek, standbyHoursOfWeek } from '../../bench/failover/week';
import { packageRoot } from '../../package-root';

function arm(bad: number, more: Partial<ArmResult> = {}): ArmResult {
  return {
    requests: 1000,
    failed: bad,
    overSlo: 0,
    p99Ms: 100,
    failures: {},
    badPerS: [0, bad],
    badBefore: 0,
    standbyS: 0,
    falseShifts: 0,
    failedAtS: null,
    ...more,
  };
}

function foreseeing(bad: number, riskAtS: number | null, more: Partial<ArmResult> = {}): ArmResult {
  const understudy = {
    riskAtS,
    armedAtS: null,
    firstShiftAtS: null,
    evacuatedAtS: null,
    outcome: null,
    peakRisk: null,
    riskPerS: [],
    story: [],
  };
  return arm(bad, { ...more, understudy });
}

function run(arms: Partial<Record<ArmName, ArmResult>>, more: Partial<RunResult> = {}): RunResult {
  return {
    fault: 'leak-to-death',
    seed: 1,
    mechanism: 'heap-leak, linear',
    predictable: true,
    service: 'sessions',
    ratePerSecond: 45,
    cellCapacity: 37.5,
    sloMs: 1000,
    faultAtS: 20,
    failureAtS: 55,
    measuredFromS: 20,
    endS: 80,
    startedAt: '2026-11-22T20:00:00.000Z',
    tookS: 100,
    machine: { cpus: 2, busy: 0.4, pressure: 0.1, loadAverage: [1, 1, 1] },
    arms,
    ...more,
  };
}

describe('bench:failover', () => {
  describe('the cases', () => {
    it('are the same for the same fault and seed, and differ between seeds', () => {
      for (const fault of faultNames) {
        expect(caseOf(fault, 3)).to.deep.equal(caseOf(fault, 3));
        expect(caseOf(fault, 3)).not.to.deep.equal(caseOf(fault, 4));
      }
    });

    it('load two cells so that one alone is overloaded, and leave a quiet time before the fault', () => {
      for (const fault of faultNames) {
        for (let seed = 1; seed <= 10; seed++) {
          const { deployment, orders, faultAtS, endS } = caseOf(fault, seed);
          expect(deployment.ratePerSecond).to.be.greaterThan(deployment.cellCapacity);
          expect(deployment.ratePerSecond).to.be.lessThan(1.3 * deployment.cellCapacity);
          expect(faultAtS).to.be.at.least(baselineS);
          expect(orders.length).to.be.at.least(1);
          for (const { atS } of orders) expect(atS).to.be.at.least(faultAtS);
          expect(endS).to.be.within(70, 100);
        }
      }
    });

    it('have no failure to foresee where what happens is harmless', () => {
      for (let seed = 1; seed <= 8; seed++) expect(caseOf('look-alikes', seed).failureAtS).to.equal(null);
    });
  });

  describe('the schedule', () => {
    const wanted = { faults: ['leak-to-death', 'disk-full'] as const, arms: ['a', 'e'] as const, seeds: 2 };

    it('takes every fault with one seed before any with two', () => {
      expect(scheduleOf(wanted, []).map(({ fault, seed }) => `${fault} ${seed}`)).to.deep.equal([
        'leak-to-death 1',
        'disk-full 1',
        'leak-to-death 2',
        'disk-full 2',
      ]);
    });

    it('leaves out what was run with all the arms that are wanted, and only that', () => {
      const done = [run({ a: arm(0), e: arm(0) }), run({ a: arm(0) }, { fault: 'disk-full' })];
      expect(scheduleOf(wanted, done)).to.have.length(3);
      expect(scheduleOf(wanted, done)[0]).to.deep.equal({ fault: 'disk-full', seed: 1 });
    });

    it('tells the time that is left by the runs that were made', () => {
      expect(remainingS(3, [100, 200])).to.equal(450);
      expect(remainingS(0, [100])).to.equal(0);
      expect(remainingS(2, [])).to.be.greaterThan(60);
    });
  });

  describe('the statistics', () => {
    it('give the median with the smallest and the largest', () => {
      expect(spreadOf([5, 1, 3])).to.deep.equal({ median: 3, min: 1, max: 5 });
      expect(spreadOf([4, 2])).to.deep.equal({ median: 3, min: 2, max: 4 });
      expect(spreadOf([])).to.equal(null);
    });

    it('count failed and late requests together, over the seeds', () => {
      const runs = [run({ a: arm(100) }), run({ a: arm(300, { overSlo: 100 }) }, { seed: 2 })];
      const row = rowsOf(runs)[0]!.rows[0]!;
      expect(row.bad).to.equal(500);
      expect(row.badShare).to.deep.equal({ median: 0.25, min: 0.1, max: 0.4 });
    });

    it('measure the warning against the failure that came where nobody helped', () => {
      const failing = arm(400, { failedAtS: 50 });
      expect(warningOf(run({ b: failing, e: foreseeing(0, 30) }), 'e')).to.equal(20);
      expect(warningOf(run({ b: failing, e: foreseeing(0, 60) }), 'e')).to.equal(null);
      expect(warningOf(run({ b: failing, e: foreseeing(0, null) }), 'e')).to.equal(null);
      expect(warningOf(run({ b: arm(0), e: foreseeing(0, 30) }), 'e')).to.equal(null);
      const rows = rowsOf([
        run({ b: failing, e: foreseeing(0, 30) }),
        run({ b: failing, e: foreseeing(0, null) }, { seed: 2 }),
      ]);
      expect(rows[0]!.rows.find((r) => r.arm === 'e')!.foreseen).to.deep.equal({ of: 2, in: 1 });
    });
  });

  describe('the verdicts', () => {
    const figures = (a: number, b: number, c: number, e: number, f = 0): RunResult =>
      run({ a: arm(a), b: arm(b), c: arm(c), e: arm(e), f: arm(f) });
    const met = (one: RunResult, judged: 'e' | 'f' = 'e'): (boolean | null)[] =>
      verdictsOf(rowsOf([one])[0]!, judged).map((verdict) => verdict.met);

    it('ask of a predictable fault for 1 % of (a), 5 % of (b) and no more than (c)', () => {
      expect(met(figures(500, 100, 5, 5))).to.deep.equal([true, true, true]);
      expect(met(figures(500, 100, 5, 6))).to.deep.equal([false, false, false]);
      expect(met(figures(1000, 100, 0, 1))).to.deep.equal([true, true, false]);
    });

    it('say a target that is missed by the noise of the machine is missed, and by what', () => {
      const noisy = figures(1000, 100, 0, 1);
      noisy.arms.a!.badBefore = 30;
      const verdict = verdictsOf(rowsOf([noisy])[0]!).at(-1)!;
      expect(verdict.met).to.equal(false);
      expect(verdict.note).to.include('before the fault');
    });

    it('ask of what cannot be foreseen for no more than (b)', () => {
      const crash = { ...figures(500, 100, 5, 100), predictable: false };
      expect(met(crash)).to.deep.equal([true]);
      expect(met({ ...crash, arms: { ...crash.arms, e: arm(101) } })).to.deep.equal([false]);
    });

    it('do not judge what was not run', () => {
      expect(met(run({ a: arm(500), e: arm(1) }))).to.deep.equal([true, null, null]);
      expect(verdictsOf(rowsOf([run({ a: arm(500) })])[0]!)).to.deep.equal([]);
    });

    it('take nothing of nothing for reached, and something of nothing for missed', () => {
      expect(ratio(0, 0)).to.equal(0);
      expect(ratio(1, 0)).to.equal(Infinity);
    });

    it('sum all predictable faults, and leave the others out of the sum', () => {
      const runs = [
        figures(1000, 200, 10, 2),
        { ...figures(1000, 200, 10, 18), fault: 'disk-full' as const },
        { ...figures(0, 0, 0, 500), fault: 'abrupt-crash' as const, predictable: false },
      ];
      const [ofUsual, ofBest, spare] = overallVerdicts(rowsOf(runs), runs, rates);
      expect(ofUsual).to.include({ met: true, figure: '1.00 %' });
      expect(ofBest).to.include({ met: true, figure: '5.00 %' });
      expect(spare).to.include({ met: true });
    });
  });

  describe('the hours of a week', () => {
    const at = { failuresPerCellDay: 0.5, lookAlikesPerCellDay: 1, repairS: 900, idleS: 1800 };

    it('are all of them for a cell that is always on, and none for those that have none', () => {
      const runs = [run({ b: arm(0), c: arm(0) })];
      expect(standbyHoursOfWeek('c', runs, at)).to.equal(spareHoursOfWeek);
      expect(standbyHoursOfWeek('b', runs, at)).to.equal(0);
      expect(standbyHoursOfWeek('e', runs, at)).to.equal(null);
    });

    it('are for each event what was measured, and for each cell that was made the time until it is retired', () => {
      // 7 failures a week, each with 60 s measured, 900 s of repair and 1,800 s idle; 14 look-alikes, half of which made a cell.
      const runs = [
        run({ e: arm(0, { standbyS: 60 }) }),
        run({ e: arm(0, { standbyS: 40 }) }, { fault: 'look-alikes' }),
        run({ e: arm(0, { standbyS: 0 }) }, { fault: 'look-alikes', seed: 2 }),
      ];
      const hours = (7 * (60 + 900 + 1800) + 14 * 0.5 * (40 + 1800)) / 3600;
      expect(standbyHoursOfWeek('e', runs, at)).to.be.closeTo(hours, 1e-9);
    });
  });

  it('publishes tables that are those of the runs that are kept', () => {
    const runs = readRunLines(readFileSync(publishedRuns, 'utf8'));
    expect(readFileSync(publishedTable, 'utf8')).to.equal(tablePage(runs));
    const readme = readFileSync(join(packageRoot, 'README.md'), 'utf8');
    expect(readme).to.equal(withShortTable(readme, runs));
  });

  it('reports every arm of every fault, its missed targets and what foresight could not do, as text and as a page', () => {
    const runs = [run({ a: arm(500), b: arm(100), c: arm(5), e: foreseeing(50, 30), f: foreseeing(40, 10) })];
    const text = fullReport(runs);
    expect(text).to.include('(e) Understudy');
    expect(text).to.include('**missed**');
    expect(text).to.include('Perfect foresight (f) did not reach it here either');
    const page = reportPage(runs);
    expect(page).to.include('<svg');
    expect(page).not.to.include('http://');
  });
});
