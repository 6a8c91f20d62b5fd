/** T4: risk signals that come twice, late, in another order, about others, or make no sense. */
import { randomUUID } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import type { RiskEvent } from '../../../prediction/contracts';
import { signalNames } from '../../../workflows/messages';
import type { FailoverRow } from '../row';
import { seeded, shuffled } from '../seed';
import type { Trial } from '../trial';

const agoMs = (ms: number): string => new Date(Date.now() - ms).toISOString();

export function signalRows(seed: number): FailoverRow[] {
  return [
    {
      title: 'T4 every word of the risk a hundred times',
      group: 'signals',
      story: 'there-and-back',
      // Each signal is an event, with its workflow task up to four.
      expected: { maxEvents: 400 + 200 * 4 },
      act: async (trial) => {
        await repeated(trial, trial.event('shift'), 100);
        await trial.tell('shift');
        await trial.untilMoved(5000);
        await trial.silence();
        await repeated(trial, trial.event('clear'), 100);
      },
    },
    {
      title: `T4 words in another order (seed ${seed}): the newest counts, not the last`,
      group: 'signals',
      story: 'there-and-back',
      act: async (trial) => {
        await trial.tell('shift');
        await trial.untilMoved(1);
        const late = [1, 2, 3, 4, 5].flatMap((n): RiskEvent[] => [
          trial.event('clear', { at: agoMs(n * 60_000), eventId: randomUUID() }),
          trial.event('prepare', { at: agoMs(n * 61_000), eventId: randomUUID() }),
        ]);
        for (const event of shuffled(late, seeded(seed))) await trial.signal(event);
        await trial.untilMoved(5000);
        await trial.tell('clear');
      },
    },
    {
      title: 'T4 nonsense, and words about others',
      group: 'signals',
      story: 'there-and-back',
      act: async (trial) => {
        await trial.tell('prepare');
        await trial.untilState('armed');
        const nonsense = [null, 7, {}, { level: 'shift' }, trial.event('clear', { cell: trial.peer }), [[]]];
        for (const word of nonsense) await trial.handle.signal(signalNames.riskChanged, word);
        for (const word of nonsense) await trial.handle.signal(signalNames.override, word);
        await trial.tell('shift');
        await trial.untilMoved(5000);
        await trial.tell('clear');
      },
    },
    {
      title: 'T4 late words after the end begin nothing',
      group: 'signals',
      story: 'there-and-back',
      options: { policy: { cooldownS: 4 } },
      act: async (trial) => {
        await trial.tell('shift');
        await trial.untilMoved(5000);
        const late = trial.event('shift');
        await trial.tell('clear');
        await trial.until('it is in its cooldown', async () => (await trial.phase()) === 'cooldown');
        for (let i = 0; i < 5; i += 1) await trial.signal(late);
      },
      afterwards: async (trial) => {
        let runs = 0;
        const query = `WorkflowId = '${trial.failover}'`;
        for await (const _ of trial.bench.client.workflow.list({ query })) runs += 1;
        if (runs !== 1) throw new Error(`late words began another run: there are ${runs}`);
      },
    },
    {
      title: 'T4 silence in the middle: it holds, and gives back in the end',
      group: 'signals',
      story: 'there-and-back',
      options: { policy: { staleAfterS: 2, holdAtMostS: 3 } },
      expected: { outcomes: ['aborted', 'failed-over'], left: 'by-outcome' },
      act: async (trial) => {
        await trial.tell('shift');
        await trial.untilMoved(1);
        await trial.silence();
      },
    },
  ];
}

async function repeated(trial: Trial, event: RiskEvent, times: number): Promise<void> {
  for (let sent = 0; sent < times; sent += 10) {
    await Promise.all(Array.from({ length: 10 }, () => trial.surely(() => trial.signal(event).then(() => true))));
    await pause(1);
  }
}
