/** Isolation forest (Liu, Ting, Zhou 2008) over per-cell-normalised metrics: the fewer cuts set a row apart, the odder it is. */
import type { MetricName } from '../../../prediction/metrics';
import type { CellSeries, Detector } from '../contracts';
import { columnsOf, healthyRows, readRow, type RowShape } from './healthy-rows';

const trees = 100;
const sampleSize = 256;
const seed = 20_251_122;

/** One tree in arrays; a negative column marks a leaf, whose `cut` is then its depth with the expected rest. */
interface Tree {
  column: Int16Array;
  cut: Float64Array;
  left: Int32Array;
}

/** Mulberry32: small, and the same everywhere. */
function randomFrom(state: number): () => number {
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Mean path length of an unsuccessful search in a binary tree of n: what is left to go in a leaf of n rows. */
function expectedDepth(n: number): number {
  if (n <= 1) return 0;
  if (n === 2) return 1;
  return 2 * (Math.log(n - 1) + 0.5772156649) - (2 * (n - 1)) / n;
}

function growTree(rows: readonly Float64Array[], random: () => number, deepest: number): Tree {
  const column: number[] = [];
  const cut: number[] = [];
  const left: number[] = [];
  const reserve = (): number => {
    column.push(-1);
    cut.push(0);
    left.push(0);
    return column.length - 1;
  };
  const grow = (node: number, members: readonly Float64Array[], depth: number): void => {
    const size = members[0]?.length ?? 0;
    let chosen = -1;
    let low = 0;
    let high = 0;
    // A column in which all are alike cannot set anything apart; another one is drawn.
    for (let attempt = 0; attempt < 8 && depth < deepest && members.length > 1; attempt++) {
      const candidate = Math.floor(random() * size);
      low = Infinity;
      high = -Infinity;
      for (const row of members) {
        low = Math.min(low, row[candidate]!);
        high = Math.max(high, row[candidate]!);
      }
      if (high > low) {
        chosen = candidate;
        break;
      }
    }
    if (chosen < 0) {
      cut[node] = depth + expectedDepth(members.length);
      return;
    }
    const at = low + random() * (high - low);
    const first = reserve();
    const second = reserve();
    column[node] = chosen;
    cut[node] = at;
    left[node] = first;
    grow(
      first,
      members.filter((row) => row[chosen]! < at),
      depth + 1,
    );
    grow(
      second,
      members.filter((row) => row[chosen]! >= at),
      depth + 1,
    );
  };
  grow(reserve(), rows, 0);
  return { column: Int16Array.from(column), cut: Float64Array.from(cut), left: Int32Array.from(left) };
}

interface Forest {
  metrics: readonly MetricName[];
  trees: readonly Tree[];
  /** Mean path length of the sample, by which depths are judged. */
  usualDepth: number;
}

function growForest(training: readonly CellSeries[], shape: RowShape): Forest | undefined {
  const { metrics, rows } = healthyRows(training, shape);
  if (rows.length < 2) return undefined;
  const random = randomFrom(seed);
  const size = Math.min(sampleSize, rows.length);
  const deepest = Math.ceil(Math.log2(size));
  return {
    metrics,
    usualDepth: expectedDepth(size),
    trees: Array.from({ length: trees }, () => {
      const sample = Array.from({ length: size }, () => rows[Math.floor(random() * rows.length)]!);
      return growTree(sample, random, deepest);
    }),
  };
}

function depthIn(tree: Tree, row: Float64Array): number {
  let node = 0;
  for (;;) {
    const column = tree.column[node]!;
    if (column < 0) return tree.cut[node]!;
    node = tree.left[node]! + (row[column]! < tree.cut[node]! ? 0 : 1);
  }
}

function member(shape: RowShape): Detector {
  let forest: Forest | undefined;
  return {
    name: `isolation-forest memory ${shape.memory} window ${shape.windowTicks}`,
    family: 'isolation-forest',
    fit(training) {
      forest = growForest(training, shape);
    },
    score(cell) {
      const scores = new Float32Array(cell.ticks).fill(NaN);
      if (!forest) return scores;
      const columns = columnsOf(cell, shape, forest.metrics);
      const row = new Float64Array(columns.length);
      for (let tick = 0; tick < cell.ticks; tick++) {
        if (readRow(columns, tick, row) === 0) continue;
        let depths = 0;
        for (const tree of forest.trees) depths += depthIn(tree, row);
        scores[tick] = 2 ** (-depths / forest.trees.length / forest.usualDepth);
      }
      return scores;
    },
  };
}

/** Two baselines times rows of the present tick, and of means over the last 8 and 32. */
export const isolationForests = (): Detector[] =>
  [120, 480].flatMap((memory) => [1, 8, 32].map((windowTicks) => member({ memory, windowTicks })));
