/** What the benchmark on a real Envoy allows between commanded and counted splits. */
import { expect } from 'chai';
import { splitDistance } from '../../bench/split-distance';
import type { CellShare } from '../../blueprints/records';
import { seededRandom } from '../../lab/random';

describe('The distance of a counted split from the commanded one', () => {
  const cells = ['a', 'b', 'c'];
  const splitOf = (...shares: number[]): CellShare[] =>
    shares.map((shareBp, i) => ({ cell: cells[i]!, shareBp, coverInstances: 0 }));
  const random = seededRandom(3);
  const anySplit = (): CellShare[] => {
    const [low, high] = [random(), random()].map((x) => 1 + Math.floor(9997 * x)).sort((x, y) => x - y) as [
      number,
      number,
    ];
    return splitOf(low, high - low + 1, 9999 - high);
  };
  const none = (): Map<string, number> => new Map(cells.map((cell) => [cell, 0]));

  /** A worker's schedule, begun anywhere: the cell whose turn comes first, turns of a share being its inverse apart. */
  const schedule = (split: CellShare[]): (() => string) => {
    const turns = split.map(({ cell, shareBp }) => ({ cell, at: random() / shareBp, apart: 1 / shareBp }));
    return () => {
      const first = turns.reduce((best, turn) => (turn.at < best.at ? turn : best));
      first.at += first.apart;
      return first.cell;
    };
  };

  it('is within the bound for whatever workers pick by their schedules, and comes near to it', () => {
    let most = 0;
    for (let round = 0; round < 500; round += 1) {
      const split = anySplit();
      const workers = [schedule(split), schedule(split)];
      const counts = none();
      for (let n = 0; n < 200; n += 1) {
        const cell = workers[random() < 0.5 ? 0 : 1]!();
        counts.set(cell, counts.get(cell)! + 1);
      }
      most = Math.max(most, splitDistance(split, counts, workers.length).ofBound);
    }
    expect(most).to.be.within(0.7, 1);
  });

  it('is beyond the bound for most windows of random picks, and for a split that was not applied', () => {
    let beyond = 0;
    for (let round = 0; round < 100; round += 1) {
      const counts = none();
      for (let n = 0; n < 200; n += 1) {
        const at = random();
        const cell = at < 0.5 ? 'a' : at < 0.8 ? 'b' : 'c';
        counts.set(cell, counts.get(cell)! + 1);
      }
      if (splitDistance(splitOf(5000, 3000, 2000), counts, 2).ofBound >= 1) beyond += 1;
    }
    expect(beyond).to.be.greaterThan(80);
    const old = new Map([...none(), ['a', 100], ['b', 100]] as const);
    expect(splitDistance(splitOf(5500, 4500), old, 2)).to.include({ requests: 10, points: 5, ofBound: 5 });
  });

  it('is without bounds for a request to a cell that has no share', () => {
    const counts = new Map([...none(), ['a', 199], ['b', 1]] as const);
    expect(splitDistance(splitOf(10_000, 0), counts, 2).ofBound).to.equal(Infinity);
    expect(splitDistance(splitOf(10_000), counts, 2).beyondRandom).to.be.greaterThan(0);
  });
});
