/** Labels of failovers as incidents to learn from: strictly in the format that training and evaluation read. */
import { expect } from 'chai';
import { incidentOf } from '../../cli/ledger-incidents';
import { parseIncident } from '../../models/evaluation/incidents';
import { labelOf } from '../../models/training/labels';
import { dossierOf } from '../../workflows/dossier';
import type { Dossier } from '../../workflows/messages';
import { World, contextOf, factsOf, policyOf, type RiskOptions } from '../support/failover-world';

const inHours: RiskOptions = { timeToFailureS: { p10: null, p50: null, p90: null } };
const stepMs = 1000;

/** A failover that has moved everything, and then met its end. */
function ended(end: (world: World) => void): Dossier {
  const world = new World(contextOf({ capacityBp: 8000, policy: policyOf(), fleet: factsOf() }));
  world.until(() => world.failover.evacuatedAtMs !== null, { risk: 'shift', ...inHours });
  end(world);
  world.until((step) => step.kind === 'finish');
  return dossierOf(world.failover);
}

const incident = (dossier: Dossier) => {
  const found = incidentOf(dossier);
  return found && parseIncident(JSON.stringify(found), 'incidents.ndjson:1');
};

describe('Incidents from the labels of failovers', () => {
  it('make a confirmed prediction a failure, from the first word of the risk to when it was seen', () => {
    const dossier = ended((world) => (world.source = 'dead'));
    const span = incident(dossier)!;
    expect(span).to.include({ cell: 'shop-a', fault: 'heap.used_bytes', predictable: true });
    const firstMs = Date.parse(dossier.firstRisk!.at);
    expect(span.faultStartMs).to.equal(firstMs);
    const { stepsToFailure } = labelOf(firstMs, [span], span.onsetMs + 60_000, stepMs);
    expect(stepsToFailure).to.equal((span.onsetMs - firstMs) / stepMs);
  });

  it('teach nothing about the time in which the failover itself may have averted it', () => {
    const dossier = ended((world) => world.risk('clear'));
    expect(dossier.label?.kind).to.equal('averted');
    const span = incident(dossier)!;
    expect(span).to.include({ fault: 'uncertain', predictable: false });
    const during = span.onsetMs + 1000;
    expect(labelOf(during, [span], during + 600_000, stepMs).stepsWatched).to.be.NaN;
    const before = span.onsetMs - 5000;
    expect(labelOf(before, [span], before + 600_000, stepMs)).to.deep.include({ stepsToFailure: NaN, stepsWatched: 5 });
  });

  it('are none after a false alarm, a drill, a clean-up, or where nothing was predicted', () => {
    const dossier = ended((world) => world.risk('clear'));
    expect(incidentOf({ ...dossier, label: { ...dossier.label!, kind: 'false' } })).to.equal(null);
    expect(incidentOf({ ...dossier, drill: { id: 'd', shareBp: 100 } })).to.equal(null);
    expect(incidentOf({ ...dossier, firstRisk: { ...dossier.firstRisk!, model: 'reconciliation' } })).to.equal(null);
    expect(incidentOf({ ...dossier, label: { kind: 'unknown', why: 'nothing', predictedAt: null } })).to.equal(null);
  });
});
