import { expect } from 'chai';
import { ledgerEntry } from '../../blueprints/ledger';
import type { Dossier } from '../../workflows/messages';
import { riskEvent, startMs } from '../support/failover-world';

const at = (minutes: number) => new Date(startMs + minutes * 60_000).toISOString();

function dossierOf(change: Partial<Dossier> = {}): Dossier {
  const step = { epoch: 2, split: { 'shop-a': 3000, synthetic: 2000 }, reason: 'step', acknowledgedBy: 1 };
  return {
    failover: 'failover/shop/shop-a',
    runId: 'run-1',
    service: 'shop',
    cell: 'shop-a',
    syntheticCell: 'synthetic',
    startedAt: at(0),
    endedAt: at(31),
    phase: 'cooldown',
    outcome: 'drained',
    reason: 'the risk has cleared',
    phaseTimes: [
      { phase: 'assessing', at: at(0) },
      { phase: 'provisioning', at: at(1) },
      { phase: 'cooldown', at: at(31) },
    ],
    firstRisk: riskEvent('prepare', startMs),
    lastRisk: { ...riskEvent('shift', startMs), probability: 0.5 },
    steps: [
      { ...step, at: at(2) },
      { ...step, at: at(3), split: { 'shop-a': 0, synthetic: 5000 } },
    ],
    entries: [],
    ...change,
  };
}

const policy = { outageMinutes: 20 };

describe('The ledger', () => {
  it('enters one that lacks what came later as worth nothing, and none that has not ended', () => {
    const { failover, runId, service, cell, startedAt } = dossierOf();
    const older = { failover, runId, service, cell, startedAt } as Dossier;
    expect(ledgerEntry(older, { outageMinutes: 60 })).to.equal(null);
    const ended = { ...older, endedAt: at(31), outcome: 'drained', syntheticCell: 'synthetic' } as Dossier;
    expect(ledgerEntry(ended, { outageMinutes: 60 })).to.deep.include({
      label: 'unknown',
      avertedMinutes: 0,
      expectedMinutes: 0,
      standbyCellHours: 0,
    });
  });
  it('has no entry for a failover that has not ended', () => {
    expect(ledgerEntry(dossierOf({ endedAt: null, outcome: null }), policy)).to.equal(null);
  });

  it('counts the share that was kept out of an outage, once the label says that there was one', () => {
    const entry = ledgerEntry(dossierOf({ label: { kind: 'averted', why: 'test' } }), policy);
    expect(entry).to.deep.include({ label: 'averted', avertedMinutes: 10, falseAlarm: false });
  });

  it('expects half as much of a failure that was as likely as not, whatever came', () => {
    expect(ledgerEntry(dossierOf(), policy)).to.deep.include({
      label: 'unknown',
      avertedMinutes: 0,
      expectedMinutes: 5,
    });
  });

  it('counts a false alarm and what it cost, from when the cell was made', () => {
    const entry = ledgerEntry(dossierOf({ label: { kind: 'false', why: 'test' } }), policy);
    expect(entry).to.deep.include({ falseAlarm: true, avertedMinutes: 0, standbyCellHours: 0.5 });
  });

  it('takes the death of an evacuated source as a prediction confirmed', () => {
    const change = { outcome: 'failed-over', reason: 'shop-a is dead: its health checks fail repeatedly' } as const;
    expect(ledgerEntry(dossierOf(change), policy)?.label).to.equal('confirmed');
  });

  it('counts neither drills nor take-overs as predictions, but their hours', () => {
    const drill = ledgerEntry(
      dossierOf({ drill: { id: 'd', shareBp: 100 }, label: { kind: 'false', why: 'test' } }),
      policy,
    );
    expect(drill).to.deep.include({ kind: 'drill', label: null, falseAlarm: false, expectedMinutes: 0 });
    expect(drill?.standbyCellHours).to.equal(0.5);
    const firstRisk = { ...riskEvent('clear', startMs), model: 'reconciliation' };
    expect(ledgerEntry(dossierOf({ firstRisk }), policy)?.kind).to.equal('takeover');
  });
});
