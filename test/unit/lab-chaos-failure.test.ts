import { expect } from 'chai';
import type { MeasuredStep } from '../../lab/chaos/cell-load';
import { incidentsOf, spoiltBy, toColumns, type EpisodeDescription } from '../../lab/chaos/episode-file';
import { failuresOf } from '../../lab/chaos/failure';

const stepMs = 500;
const well = { requests: 10, failed: 0, slow: 0, p50Ms: 50, p99Ms: 90, retries: 0, heldMs: 0 };

/** One letter per step of ten requests: `.` well, `s` a slow one, `e` a failed one, `x` all failed, `-` none, `h` the load was late. */
function steps(text: string): MeasuredStep[] {
  const changes: Record<string, Partial<MeasuredStep>> = {
    s: { slow: 1, p99Ms: 900 },
    e: { failed: 1 },
    x: { failed: 10 },
    '-': { requests: 0, p99Ms: null },
    h: { slow: 10, p99Ms: 5000, heldMs: 4000 },
  };
  return [...text].map((letter, i) => ({ ...well, atMs: i * stepMs, ...changes[letter] }));
}

const spans = (text: string, deadSinceMs?: number): string[] =>
  failuresOf(steps(text), stepMs, deadSinceMs).map(
    ({ onsetMs, recoveredMs }) => `${onsetMs / stepMs}-${recoveredMs === undefined ? '' : recoveredMs / stepMs}`,
  );

describe('A failure in the chaos lab', () => {
  it('begins with the first of three steps in a row that hold slow requests', () => {
    expect(spans('....sss...')).to.deep.equal(['4-7']);
    expect(spans('..ss..s.ss')).to.deep.equal([]);
  });

  it('is every request failing, and not one bad client among many', () => {
    expect(spans('......xxxx')).to.deep.equal(['6-']);
    expect(spans('e.........'.repeat(8))).to.deep.equal([]);
  });

  it('is a share of errors that is seen only over many steps', () => {
    expect(spans(`${'.'.repeat(20)}${'..ee'.repeat(10)}`)).to.have.length(1);
  });

  it('is a dead process, from the step in which it died', () => {
    expect(spans('..........', 2300)).to.deep.equal(['4-']);
  });

  it('is not found in steps in which the load was late, or nothing was sent', () => {
    expect(spans('..hhhhhh..')).to.deep.equal([]);
    expect(spans('..-------')).to.deep.equal([]);
  });
});

describe('Incidents of an episode', () => {
  const description = (faults: EpisodeDescription['cells'][0]['faults']): EpisodeDescription => ({
    episode: 1,
    seed: 1,
    service: 'sessions',
    variant: 'sessions-1',
    deployment: 'd',
    step_ms: stepMs,
    slo_ms: 500,
    load_shape: 'steady',
    load_started: new Date(0).toISOString(),
    from: new Date(0).toISOString(),
    ended: new Date(20_000).toISOString(),
    cells: [{ cell: 'a', load: 20, died: null, faults, look_alikes: [], outages: [] }],
    cpu_pressure: 0,
  });
  const fault = (name: string, start_s: number, expected_s: number) => ({
    name,
    start_s,
    expected_s,
    shape: 'linear',
    mechanism: 'heap-leak',
    level: 1,
    predictable: true,
    shown_by: 'heap.used_bytes' as const,
  });
  const measured = [toColumns('a', stepMs, steps(`${'.'.repeat(20)}${'x'.repeat(20)}`))];

  it('belong to the fault at work that had come farthest', () => {
    const faults = [fault('slow', 2, 100), fault('fast', 5, 5), fault('later', 15, 1)];
    const [incident] = incidentsOf({ description: description(faults), measured });
    expect(incident).to.include({ fault: 'fast', onset: new Date(10_000).toISOString(), recovered: null });
  });

  it('are nobody’s without a fault at work, and spoil an episode that they fill', () => {
    const part = { description: description([fault('later', 15, 1)]), measured };
    const incidents = incidentsOf(part);
    expect(incidents[0]).to.include({ fault: 'unexplained', predictable: false });
    expect(spoiltBy(part, incidents)).to.match(/without a fault at work/);
  });

  it('never begin before their fault did', () => {
    const [incident] = incidentsOf({ description: description([fault('crash', 10.3, 0)]), measured });
    expect(incident?.onset).to.equal(new Date(10_300).toISOString());
  });
});
