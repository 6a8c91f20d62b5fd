import { expect } from 'chai';
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
