import { expect } from 'chai';
import fc from 'fast-check';
import type { CellSeries, IncidentSpan } from '../../models/evaluation/contracts';
import {
  alertsOf,
  judge,
  recountTicks,
  summarize,
  ticksPerCellDay,
  type EventRules,
} from '../../models/evaluation/events';

const stepMs = 10_000;
const rules: EventRules = { horizonTicks: 60, minLeadTicks: 4, settleTicks: 60, strictHorizon: true };

function cell(ticks: number, incidents: Partial<Record<'fault' | 'onset' | 'recovered', number>>[] = []): CellSeries {
  return {
    cell: 'a',
    service: 'shop',
    stepMs,
    startMs: 1_000_000,
    ticks,
    values: new Map(),
    sloLatencyS: NaN,
    incidents: incidents.map(({ fault = 0, onset = 0, recovered = Infinity }) => ({
      cell: 'a',
      fault: 'memory-leak',
      faultStartMs: 1_000_000 + fault * stepMs,
      onsetMs: 1_000_000 + onset * stepMs,
      recoveredMs: 1_000_000 + recovered * stepMs,
      predictable: true,
    })),
  };
}

const withIncident = (change: Partial<IncidentSpan>): CellSeries => {
  const leak = cell(400, [{ fault: 270, onset: 300, recovered: 310 }]);
  return { ...leak, incidents: [{ ...(leak.incidents[0] as IncidentSpan), ...change }] };
};

describe('Alerts', () => {
  const of = (text: string, persist = 2): string =>
    alertsOf(
      Float32Array.from(text, (c) => (c === '?' ? NaN : c === '#' ? 0.9 : 0.1)),
      0.5,
      persist,
    )
      .map(({ start, end }) => `${start}-${end}`)
      .join(' ');

  it('begin at the second tick in a row that reaches the threshold, and end at the second below it', () => {
    expect(of('..#.##.##...')).to.equal('5-10');
  });

  it('begin at once if one tick is enough', () => {
    expect(of('.#..#', 1)).to.equal('1-2 4-5');
  });

  it('reach the threshold by being equal to it', () => {
    expect(alertsOf(Float32Array.of(0.5, 0.5), 0.5, 1)).to.deep.equal([{ start: 0, end: 2 }]);
  });

  it('last to the end where nothing ends them', () => {
    expect(of('.####')).to.equal('2-5');
  });

  it('outlast five ticks without a score, but not a sixth', () => {
    expect(of('.##?????##..')).to.equal('2-11');
    expect(of('.##??????##..')).to.equal('2-8 10-12');
  });

  it('never begin in silence', () => {
    expect(of('?????????')).to.equal('');
    expect(of('#??????#.')).to.equal('');
  });
});

describe('An incident', () => {
  const leak = cell(400, [{ fault: 270, onset: 300, recovered: 310 }]);
  const outcome = (start: number, end: number, changed: Partial<EventRules> = {}, of = leak) => {
    const verdict = judge(of, [{ start, end }], { ...rules, ...changed });
    return { ...verdict.incidents[0], falseAlarms: verdict.falseAlarms.length };
  };

  it('is caught by an alert that begins within the horizon and with the least lead', () => {
    expect(outcome(240, 300)).to.include({ outcome: 'caught', leadTicks: 60, falseAlarms: 0 });
    expect(outcome(296, 300)).to.include({ outcome: 'caught', leadTicks: 4, falseAlarms: 0 });
  });

  it('is detected, not caught, by an alert that begins later than the least lead', () => {
    expect(outcome(297, 305)).to.include({ outcome: 'detected', leadTicks: 3, falseAlarms: 0 });
    expect(outcome(305, 309)).to.include({ outcome: 'detected', falseAlarms: 0 });
  });

  it('is missed where an alert began before the horizon and still lasts, and that alert is false', () => {
    expect(outcome(239, 300)).to.include({ outcome: 'missed', inAlarmAtMinLead: true, falseAlarms: 1 });
  });

  it('is missed where nothing was said, and where something was said after it was over', () => {
    expect(judge(leak, [], rules).incidents[0]).to.include({ outcome: 'missed', alertTick: -1 });
    expect(outcome(320, 330)).to.include({ outcome: 'missed', falseAlarms: 0 });
  });

  it('says so when it was caught before the fault began', () => {
    expect(outcome(265, 300)).to.include({ outcome: 'caught', beforeFault: true });
    expect(outcome(271, 300)).to.include({ outcome: 'caught', beforeFault: false });
  });

  it('with an alert after the fault but ahead of the horizon is early by the strict rule, caught by the other', () => {
    const slow = cell(400, [{ fault: 150, onset: 300 }]);
    expect(outcome(200, 210, {}, slow)).to.include({ outcome: 'early', earlierThanHorizon: true, falseAlarms: 1 });
    const lenient = outcome(200, 210, { strictHorizon: false }, slow);
    expect(lenient).to.include({ outcome: 'caught', leadTicks: 100, earlierThanHorizon: true, falseAlarms: 0 });
    expect(outcome(140, 300, { strictHorizon: false }, slow)).to.include({ outcome: 'missed', falseAlarms: 1 });
  });

  it('that gives no warning, or of uncertain cause, is neither caught nor held against alerts after the fault', () => {
    for (const change of [{ predictable: false }, { fault: 'uncertain' }]) {
      const verdict = judge(withIncident(change), [{ start: 280, end: 300 }], rules);
      expect(verdict.incidents).to.deep.equal([]);
      expect(verdict.apart[0]).to.include({ outcome: 'missed', inAlarmAtMinLead: true });
      expect(verdict.falseAlarms).to.deep.equal([]);
      expect(judge(withIncident(change), [{ start: 260, end: 265 }], rules).falseAlarms).to.have.length(1);
    }
  });
});

describe('False alarms', () => {
  it('are counted again every hour that they last', () => {
    const healthy = cell(2 * recountTicks + 10);
    const counted = (end: number): number => judge(healthy, [{ start: 0, end }], rules).falseAlarms[0]?.count ?? 0;
    expect(counted(recountTicks)).to.equal(1);
    expect(counted(recountTicks + 1)).to.equal(2);
    expect(counted(2 * recountTicks + 1)).to.equal(3);
  });

  it('are not counted in a failure nor until it has settled, and that time is no healthy time', () => {
    const leak = cell(1000, [{ fault: 290, onset: 300, recovered: 310 }]);
    const verdict = judge(leak, [{ start: 350, end: 360 }], rules);
    expect(verdict).to.include({ alarmTicks: 0, healthyTicks: 1000 - 60 - 10 - 60 });
    expect(verdict.falseAlarms).to.deep.equal([]);
    expect(judge(leak, [{ start: 371, end: 381 }], rules)).to.include({ alarmTicks: 10 });
  });

  it('make an alarm that is always on lose: it catches nothing and costs one an hour', () => {
    const incidents = [1, 2, 3].map((i) => ({ fault: 2000 * i - 40, onset: 2000 * i, recovered: 2000 * i + 10 }));
    const year = cell(ticksPerCellDay, incidents);
    const figures = summarize([judge(year, alertsOf(new Float32Array(year.ticks).fill(1), 0.5, 2), rules)]);
    expect(figures).to.include({ caught: 0, incidents: 3, recall: 0, alarmTimeShare: 1 - 1 / figures.cellDays / 8640 });
    expect(figures.falseAlarmsPerCellDay).to.be.above(20);
  });

  it('whatever the alerts: no more caught than incidents, and no alarm time without an alert', () => {
    fc.assert(
      fc.property(fc.array(fc.boolean(), { minLength: 10, maxLength: 400 }), fc.nat(399), (bits, onset) => {
        const series = cell(bits.length, [{ fault: onset - 20, onset, recovered: onset + 5 }]);
        const alerts = alertsOf(
          Float32Array.from(bits, (b) => (b ? 1 : 0)),
          0.5,
          1,
        );
        const verdict = judge(series, alerts, rules);
        const figures = summarize([verdict]);
        expect(figures.caught).to.be.at.most(figures.incidents);
        expect(verdict.alarmTicks).to.be.at.most(verdict.healthyTicks);
        if (alerts.length === 0) expect(verdict).to.include({ alarmTicks: 0 });
      }),
    );
  });
});
