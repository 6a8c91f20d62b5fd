import { expect } from 'chai';
import { createActivities } from '../../activities/failover-activities';
import type { Ports } from '../../activities/ports';
import { everyRow } from '../chaos/matrix';
import { activityOf, deeds, everyPoint, nameOfPoint, sideEffects } from '../chaos/side-effects';

describe('The reliability matrix', () => {
  it('knows every activity of a failover and what it changes', () => {
    const activities = Object.keys(createActivities({} as Ports)).sort();
    expect(Object.keys(sideEffects).sort()).to.deep.equal(activities);
    const ofSteps = Object.values(activityOf).filter((name) => name !== null);
    // Decisions are told beside the steps.
    expect([...ofSteps, 'recordDecisions'].sort()).to.deep.equal(activities);
  });

  it('kills the worker before and after every side effect of every step', () => {
    const titles = everyRow(1).map(({ title }) => title);
    for (const point of everyPoint()) expect(titles).to.include(`T1 killed ${nameOfPoint(point)}`);
    expect(new Set(titles).size).to.equal(titles.length);
    for (const deed of deeds) {
      const of = everyPoint().filter((point) => point.deed === deed);
      expect(of.filter(({ when }) => when === 'before').length, deed).to.be.above(0);
      expect(of.filter(({ when }) => when === 'after').length, deed).to.equal(of.length / 2);
    }
  });
});
