import { expect } from 'chai';
import { planEpisode } from '../../lab/episode-plan';
import { findFailures, type MeasuredSecond } from '../../lab/onset';

const definition = { sloMs: 250, errorRatio: 0.05, consecutive: 3 };

/** One letter per second: `.` well, `s` slow, `e` errors, `d` an instance is dead, `-` no requests. */
function seconds(text: string): MeasuredSecond[] {
  return [...text].map((letter, i) => ({
    atMs: i * 1000,
    requests: letter === '-' ? 0 : 40,
    failed: letter === 'e' ? 2 : 0,
    p99Ms: letter === '-' ? null : letter === 's' ? 250 : 90,
    deadInstances: letter === 'd' ? 1 : 0,
  }));
}

const spans = (text: string): string[] =>
  findFailures(seconds(text), definition).map(
    (s) => `${s.onsetMs / 1000}-${s.recoveredMs === undefined ? '' : s.recoveredMs / 1000}`,
  );

describe('Failure onset', () => {
  it('is the first of three bad seconds in a row, whatever makes them bad', () => {
    expect(spans('....sed....')).to.deep.equal(['4-7']);
  });
  it('is not a blip of one or two seconds', () => {
    expect(spans('..s..ss..ee..')).to.deep.equal([]);
  });
  it('lasts until three good seconds in a row', () => {
    expect(spans('..sss..s..ss...s...')).to.deep.equal(['2-12']);
  });
  it('has no recovery when the cell stays dead', () => {
    expect(spans('...ddddd')).to.deep.equal(['3-']);
  });
  it('is not found in seconds without requests', () => {
    expect(spans('..------..')).to.deep.equal([]);
  });
});

describe('Episode plans', () => {
  it('are the same for the same seed and number', () => {
    expect(planEpisode(3, 17)).to.deep.equal(planEpisode(3, 17));
    expect(planEpisode(3, 17)).not.to.deep.equal(planEpisode(4, 17));
  });

  it('stop every leak of a look-alike, and only there', () => {
    for (let number = 0; number < 60; number++) {
      const { kind, leakOrders } = planEpisode(5, number);
      const running = new Map(leakOrders.map((o) => [o.instance, o.bytesPerSecond]));
      if (kind === 'healthy') expect(leakOrders).to.deep.equal([]);
      else
        expect([...running.values()].every((rate) => (kind === 'leak-to-death' ? rate > 0 : rate === 0))).to.equal(
          true,
        );
    }
  });

  it('spread leak rates over more than a decade', () => {
    const rates = Array.from({ length: 100 }, (_, n) => planEpisode(1, n).leakOrders[0]?.bytesPerSecond ?? 0).filter(
      (r) => r > 0,
    );
    expect(Math.max(...rates) / Math.min(...rates)).to.be.above(10);
  });
});
