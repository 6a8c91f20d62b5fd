/** T3, T7, T11: providers that fail, hang and lie. */
import { reconciled } from './people';
import type { FailoverRow } from '../row';
import type { Trial } from '../trial';

/** Told until it is given up. */
async function untilGivenUp(trial: Trial): Promise<void> {
  await trial.tell('prepare');
  await trial.until('it is given up', () => trial.journal.some((w) => w.deed === 'retireSyntheticCell'));
  await trial.silence();
}

async function untilServing(trial: Trial): Promise<string> {
  await trial.tell('shift');
  await trial.untilMoved(1);
  return (await trial.synthetic())[0]!.name;
}

const undone = { outcomes: ['compensated'], left: 'nothing' } as const;
/** Whose word cannot be believed is asked again: what it says belongs to somebody else is made anew at each of five attempts. */
const undoneAfterLies = { ...undone, made: [0, 1, 2, 3, 4, 5] };

export function providerRows(): FailoverRow[] {
  const rows: Omit<FailoverRow, 'group'>[] = [
    {
      title: 'T7 the provider fails twice, then makes the cell',
      story: 'there-and-back',
      options: { lies: { ensureFails: 2 } },
    },
    {
      title: 'T7 the provider fails for ever',
      story: 'cold-cell',
      options: { lies: { ensureFails: 1_000_000 } },
      expected: { ...undone, made: [0] },
      act: untilGivenUp,
    },
    {
      title: 'T3 the provider hangs, and a person aborts',
      story: 'abort',
      options: { lies: { hangs: true } },
      expected: { left: 'given-back', made: [0] },
      act: async (trial) => {
        await trial.tell('prepare');
        await trial.until('it is asked', () => trial.journal.some((w) => w.effect === 'provider.ensure'));
        await trial.silence();
        await trial.order({ action: 'abort' });
      },
    },
    {
      title: 'T3 the cell never gets ready',
      story: 'cold-cell',
      options: { lies: { neverReady: true }, readinessS: 0.5 },
      expected: undone,
      act: untilGivenUp,
    },
    {
      title: 'T11 the provider says ready, and nothing listens',
      story: 'cold-cell',
      options: { lies: { readyButDead: true } },
      expected: undone,
      act: untilGivenUp,
    },
    {
      title: 'T11 the provider answers nonsense',
      story: 'cold-cell',
      options: { lies: { nonsense: { banana: [] } } },
      expected: undoneAfterLies,
      act: untilGivenUp,
    },
    {
      title: 'T11 the provider names no instance of a cell that is ready',
      story: 'cold-cell',
      options: { lies: { nonsense: { cell: 'x', service: 'x', owner: 'x', phase: 'ready', instances: [] } } },
      expected: undoneAfterLies,
      act: untilGivenUp,
    },
    {
      title: 'T11 the provider names an address that cannot be',
      story: 'cold-cell',
      options: {
        lies: {
          nonsense: {
            ...{ cell: 'x', service: 'x', owner: 'x', phase: 'ready' },
            instances: [{ name: 'x-1', address: 'nowhere', port: 99_999, phase: 'ready' }],
          },
        },
      },
      expected: undoneAfterLies,
      act: untilGivenUp,
    },
    {
      title: 'T11 the provider names the address of another cell',
      story: 'cold-cell',
      expected: undoneAfterLies,
      act: async (trial) => {
        const peer = (await trial.bench.store.cell(trial.peer))!;
        const instances = peer.instances.map((instance) => ({ ...instance, phase: 'ready' }));
        trial.cloud.lies = { nonsense: { cell: 'x', service: 'x', owner: 'x', phase: 'ready', instances } };
        await untilGivenUp(trial);
      },
    },
    {
      title: 'T11 the provider makes a second cell nobody asked for: reconciliation ends it',
      story: 'abort',
      options: { lies: { makesTwice: true } },
      afterwards: reconciled,
    },
    {
      title: 'T11 the provider loses the armed cell: it is made anew or given up',
      story: 'cold-cell',
      expected: { outcomes: ['compensated', 'drained', 'aborted'], left: 'given-back' },
      act: async (trial) => {
        await trial.tell('prepare');
        await trial.untilState('armed');
        trial.cloud.lose((await trial.synthetic())[0]!.name);
        await trial.tell('clear');
      },
      afterwards: reconciled,
    },
    {
      title: 'T11 the armed cell goes at the end of its lease, and comes back elsewhere as somebody else’s',
      story: 'cold-cell',
      expected: { outcomes: ['compensated', 'drained', 'aborted'], left: 'given-back' },
      act: async (trial) => {
        await trial.tell('prepare');
        await trial.untilState('armed');
        const { name } = (await trial.synthetic())[0]!;
        trial.cloud.lose(name);
        await trial.cloud.haunt(trial.service, name);
        await trial.tell('clear');
      },
      afterwards: reconciled,
    },
    {
      title: 'T11 the provider loses the cell that carries traffic',
      story: 'cold-cell',
      options: { policy: { canaryTimeoutS: 5, holdAtMostS: 5, operatorWaitS: 0 } },
      expected: { outcomes: ['compensated', 'drained', 'aborted'], left: 'given-back', firstBp: 2000 },
      act: async (trial) => {
        trial.cloud.lose(await untilServing(trial));
        await trial.until('it is taken back, or held for a while', () => {
          return trial.journal.some((w) => /give-back|reduce/.test(w.deed)) || trial.movedAgoMs() > 8000;
        });
        await trial.tell('clear');
      },
      afterwards: reconciled,
    },
    {
      title: 'T11 the synthetic cell answers with errors',
      story: 'cold-cell',
      // What its canary is given fails until the verdict: about 3 requests a second.
      expected: { outcomes: ['compensated'], left: 'nothing', firstBp: 2000, mayFail: 60 },
      act: async (trial) => {
        await trial.tell('prepare');
        await trial.untilState('armed');
        trial.cloud.errorRatio.set((await trial.synthetic())[0]!.name, 1);
        await trial.tell('shift');
        await trial.until('it is given up', () => trial.journal.some((w) => w.deed === 'retireSyntheticCell'));
        await trial.silence();
      },
    },
    {
      title: 'T11 the synthetic cell can carry less than is at stake: it is given no more',
      story: 'there-and-back',
      options: { capacity: 4 },
      act: async (trial) => {
        await trial.tell('shift');
        await trial.untilMoved(1);
        await trial.until('it carries all it can', async () => {
          return trial.movedAgoMs() > 5000 && (await trial.shares())[trial.source]! < 5000;
        });
        await trial.tell('clear');
      },
    },
  ];
  return rows.map((row) => ({ ...row, group: 'providers' }));
}
