/** Whether an idle cell waits frozen or stopped, chosen by what starts of such cells took. */
import { expect } from 'chai';
import fc from 'fast-check';
import type { CellStart } from '../../blueprints/records';
import { chooseRest } from '../../cells/choose-rest';
import { blueprintDocument } from '../support/documents';

const start = (readyS: number, warmS: number | null = null): CellStart => ({
  cell: 'shop-a-understudy-1',
  from: 'nothing',
  readyMs: readyS * 1000,
  warmMs: warmS === null ? null : warmS * 1000,
});
const plan = { warmUp: [{ kind: 'connections', perInstance: 1 }] };
const choose = (change: Record<string, unknown>, starts: CellStart[]) => chooseRest(blueprintDocument(change), starts);
const within = (backWithinS: number) => ({ scaleDown: { backWithinS } });

describe('The way an idle cell waits', () => {
  it('is what its blueprint says, whatever was measured', () => {
    expect(choose({ scaleDown: { idle: 'frozen' } }, [start(0.1)])).to.include({ how: 'frozen' });
    expect(choose({ scaleDown: { idle: 'stopped' } }, [start(60)])).to.include({ how: 'stopped' });
  });

  it('is frozen where nothing was measured', () => {
    expect(choose({}, [])).to.deep.equal({
      how: 'frozen',
      why: 'auto: no start of such a cell was measured until it was ready',
    });
    expect(choose(plan, [start(0.1), start(0.2)]), 'as long as none of them has been warm').to.deep.equal({
      how: 'frozen',
      why: 'auto: no start of such a cell was measured until it was ready and warm',
    });
  });

  it('is stopped where a start was fast enough, frozen where it was not, and says how long it took', () => {
    expect(choose({}, [start(1.2)])).to.deep.equal({
      how: 'stopped',
      why: 'auto: the last start was ready after 1.20 s, within the 2 s allowed',
    });
    expect(choose({}, [start(2.5)])).to.deep.equal({
      how: 'frozen',
      why: 'auto: the last start was ready after 2.50 s, more than the 2 s allowed',
    });
  });

  it('counts what the warm-up took beside the start, where there is a plan', () => {
    expect(choose(plan, [start(0.4, 1.1)]).how).to.equal('stopped');
    expect(choose(plan, [start(0.4, 30)])).to.deep.include({ how: 'frozen' });
    expect(choose({}, [start(0.4, 30)]).how, 'without a plan').to.equal('stopped');
  });

  it('says which steps of the plan were not counted', () => {
    const own = { kind: 'connections', perInstance: 1 };
    const given = [
      { kind: 'mirror', requests: 20, timeoutS: 5 },
      { kind: 'load', paths: ['/'], forS: 10 },
    ];
    expect(choose({ warmUp: [own, ...given] }, [start(0.4, 1.1)])).to.deep.equal({
      how: 'stopped',
      why: 'auto: the last start was ready and warm after 1.50 s, mirror and load not counted, within the 2 s allowed',
    });
  });

  it('follows the slowest of the last five starts', () => {
    const fast = Array.from({ length: 5 }, () => start(0.3));
    expect(choose({}, [...fast.slice(1), start(9)]).why).to.contain(
      'the slowest of the last 5 starts was ready after 9.00 s',
    );
    expect(choose({}, [...fast, start(9)]).how, 'that one is long ago').to.equal('stopped');
  });

  it('allows 2 s to processes, 10 s to anything else, or what the blueprint says', () => {
    expect(choose({ provider: 'process' }, [start(4)]).how).to.equal('frozen');
    expect(choose({ provider: 'docker' }, [start(4)]).how).to.equal('stopped');
    expect(choose({ provider: 'exec:aws' }, [start(40)]).how).to.equal('frozen');
    expect(choose(within(60), [start(40)]).how).to.equal('stopped');
    expect(choose(within(0), [start(0.1)]).how).to.equal('frozen');
  });

  it('is running for a cell that keeps data', () => {
    const dataSync = { kind: 'kafka-changelog', brokers: ['127.0.0.1:9092'], topic: 'shop-changes' };
    for (const idle of ['auto', 'frozen', 'stopped'])
      expect(choose({ dataSync, scaleDown: { idle } }, [start(0.1)]).how).to.equal('running');
  });

  it('never becomes stopped by a slower start, or by fewer seconds allowed', () => {
    const starts = fc.array(fc.tuple(fc.double({ min: 0, max: 20, noNaN: true }), fc.option(fc.nat(20))), {
      maxLength: 8,
    });
    fc.assert(
      fc.property(starts, fc.nat(20), fc.nat(5), fc.boolean(), (drawn, withinS, lessS, hasPlan) => {
        const change = hasPlan ? plan : {};
        const taken = drawn.map(([readyS, warmS]) => start(readyS, warmS));
        if (choose({ ...change, ...within(withinS) }, taken).how === 'stopped') return;
        const slower = taken.map((one) => ({ ...one, readyMs: one.readyMs + 1000 }));
        expect(choose({ ...change, ...within(withinS) }, slower).how).to.equal('frozen');
        expect(choose({ ...change, ...within(Math.max(0, withinS - lessS)) }, taken).how).to.equal('frozen');
      }),
    );
  });
});
