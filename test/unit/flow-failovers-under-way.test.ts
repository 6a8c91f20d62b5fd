import { expect } from 'chai';
import { oneForAll } from '../../activities/failovers-under-way';

describe('Failovers that begin at once', () => {
  it('ask one question together, and anew once it is answered or has failed', async () => {
    let asked = 0;
    let settle: { answer: (n: number) => void; fail: (err: Error) => void } | undefined;
    const ask = oneForAll(() => {
      asked += 1;
      return new Promise<number>((answer, fail) => (settle = { answer, fail }));
    });

    const fifty = Array.from({ length: 50 }, () => ask());
    settle!.answer(7);
    expect(new Set(await Promise.all(fifty))).to.deep.equal(new Set([7]));
    expect(asked).to.equal(1);

    const failing = Promise.allSettled([ask(), ask()]);
    settle!.fail(new Error('too slow'));
    expect((await failing).map(({ status }) => status)).to.deep.equal(['rejected', 'rejected']);

    const again = ask();
    settle!.answer(8);
    expect(await again).to.equal(8);
    expect(asked).to.equal(3);
  });
});
