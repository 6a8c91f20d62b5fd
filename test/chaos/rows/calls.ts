/** T3, T7, T11: calls that fail, lose their answer, hang, or fail for good. */
import type { FailoverRow } from '../row';
import { everyPoint, type Point } from '../side-effects';
import { stories, storyAt } from '../stories';

export function callRows(): FailoverRow[] {
  return [...failures(), ...hangs(), ...forGood()];
}

const leadsBack = ({ deed }: Point): boolean => /retire|rest|reduce|give-back/.test(deed);

/** The call fails, or was carried out and its answer is lost: three times, then it goes well. */
function failures(): FailoverRow[] {
  return everyPoint()
    .filter(({ effect }) => effect !== 'itself')
    .map((point) => {
      const what = point.when === 'before' ? 'failed thrice' : 'answer lost thrice';
      return {
        title: `${leadsBack(point) ? 'T7' : 'T11'} ${what}: ${point.effect} in ${point.deed}`,
        group: 'calls',
        story: storyAt(point),
        options: { fault: { ...point, what: 'fail', times: 3 } },
      };
    });
}

/** Nothing is heard of a call any more; its attempt runs into its time limit and the next one goes well. */
function hangs(): FailoverRow[] {
  const points: Point[] = [
    { deed: 'armCell', effect: 'traffic.armCell', when: 'before' },
    { deed: 'shiftTraffic(canary)', effect: 'traffic.applySplit', when: 'after' },
    { deed: 'recordDecisions', effect: 'store.recordDecisions', when: 'after' },
    { deed: 'saveDossier', effect: 'store.saveDossier', when: 'before' },
  ];
  return points.map((point) => ({
    title: `T3 hangs ${point.when} ${point.effect} in ${point.deed}`,
    group: 'calls',
    story: storyAt(point),
    options: { fault: { ...point, what: 'hang' } },
  }));
}

/** What leads forward is undone; what leads back parks, and a person's resume brings it to its end. */
function forGood(): FailoverRow[] {
  const forward: Point[] = [
    { deed: 'ensureSyntheticCell', effect: 'provider.ensure', when: 'before' },
    { deed: 'warmSyntheticCell', effect: 'store.updateCell', when: 'before' },
    { deed: 'armCell', effect: 'traffic.armCell', when: 'before' },
    { deed: 'shiftTraffic(canary)', effect: 'traffic.applySplit', when: 'before' },
  ];
  const back: Point[] = [
    { deed: 'restAtIdle', effect: 'store.restCell', when: 'before' },
    { deed: 'shiftTraffic(reduce)', effect: 'traffic.applySplit', when: 'before' },
    { deed: 'retireSyntheticCell', effect: 'store.beginRetirement', when: 'before' },
  ];
  return [
    ...forward.map((point): FailoverRow => ({
      title: `T7 refused for good: ${point.effect} in ${point.deed}`,
      group: 'calls',
      story: 'there-and-back',
      options: { fault: { ...point, what: 'fail', forGood: true } },
      expected: { outcomes: ['compensated', 'refused'], left: 'nothing', made: [0, 1] },
      act: async (trial) => {
        await trial.tell('shift');
        await trial.until('it failed', () => trial.journal.some((w) => w.stage === 'fault'));
        await trial.silence();
      },
    })),
    ...back.map((point): FailoverRow => ({
      title: `T7 refused for good, until a person resumes: ${point.effect} in ${point.deed}`,
      group: 'calls',
      story: storyAt(point),
      options: { fault: { ...point, what: 'fail', forGood: true } },
      act: async (trial) => {
        await stories[storyAt(point)].act(trial);
        await trial.until('a person is asked and resumes', async () => {
          return (await trial.order({ action: 'resume' })).accepted;
        });
      },
    })),
  ];
}
